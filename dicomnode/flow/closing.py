"""Judging the completeness of series that are due, and closing those that are complete.

Every instance and every end of an association moves its series' due time, in the database: a restart forgets nothing.
Closing is one transaction: the series' state, the originals that waited for it, and the workflow that routes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy.orm import Session

from dicomnode.core.completeness import close_now, judge
from dicomnode.core.rules.needs import missing
from dicomnode.core.types import Completeness, OnDeadline, Verdict
from dicomnode.faults import kill_point
from dicomnode.flow.port import Call
from dicomnode.flow.repeating import Repeating
from dicomnode.store.database import Database
from dicomnode.store.index import needs as needs_index
from dicomnode.store.index import series as series_index
from dicomnode.store.schema import NeedState, Series, StudyNeed
from dicomnode.telemetry import event

_POLL_S: Final = 0.2
_MIN_WAIT_S: Final = 0.05

Enqueue = Callable[[Session, Call], None]


def route_call(series_row: int, generation: int) -> Call:
    """The workflow that routes one closing of a series."""
    return Call("route", "route", f"route:{series_row}:{generation}", (series_row, generation))


def need_call(need: StudyNeed) -> Call:
    """The workflow that routes the series of a rule's first need once more: the others are waited for no longer."""
    main = need.met[need.needs[0]]
    first = route_call(main["series_row"], main["generation"])
    return replace(first, id=f"{first.id}:need{need.id}:{need.due_at:.0f}")


class Closer(Repeating):
    """A thread that judges due series until it is stopped."""

    def __init__(self, database: Database, enqueue: Enqueue) -> None:
        super().__init__("close", _POLL_S, self.judge_due)
        self._database = database
        self._enqueue = enqueue

    def judge_due(self, now: float) -> int:
        """Judge every series that is due; how many were closed."""
        with self._database.read() as session:  # nobody who writes waits while evidence is gathered
            judged = [_judged(session, series, now) for series in series_index.due_series(session, now)]
            needs = needs_index.due_needs(session, now)
        for need in needs:
            self._end_waiting(need, now)
        return sum(self._act(one, now) for one in judged)

    def _end_waiting(self, need: StudyNeed, now: float) -> None:
        """A rule has waited for other series of a study until its deadline: it goes on with what there is, or not."""
        with self._database.write() as session:
            state = needs_index.end_waiting(session, need, now)
            if state == NeedState.DUE:
                self._enqueue(session, need_call(need))
        if state is not None:
            lacking = ", ".join(map(repr, missing(need.needs, need.met)))
            event("need_unmet", rule=need.rule, state=state.value, reason=f"no series fulfils {lacking}")

    def _act(self, judged: _Judged, now: float) -> bool:
        series, verdict = judged.series, judged.verdict
        if verdict.state == Completeness.WAIT:
            until = now + _MIN_WAIT_S if verdict.until is None else max(verdict.until, now + _MIN_WAIT_S)
            with self._database.write() as session:
                series_index.postpone(session, series, verdict, until)
            return False
        if judged.is_to_be_held:
            with self._database.write() as session:
                held = series_index.hold(session, series, verdict)
            if held:
                event("series_held", **_told(judged))
            return False
        with self._database.write() as session:
            generation = series_index.close(session, series, verdict, now)
            if generation is None:
                return False
            kill_point("route.before_enqueue")
            self._enqueue(session, route_call(series.id, generation))
        kill_point("route.after_enqueue")
        event("series_closed", state=verdict.state.value, **_told(judged))
        return True


@dataclass(frozen=True, slots=True)
class _Judged:
    """A series with the verdict on it, and on how many instances that rests."""

    series: Series
    verdict: Verdict
    instances: int

    @property
    def is_to_be_held(self) -> bool:
        """Whether a person is to look at it first; who closed it has."""
        incomplete = self.verdict.state == Completeness.INCOMPLETE
        return incomplete and self.series.on_deadline == OnDeadline.HOLD and self.series.close_by is None


def _judged(session: Session, series: Series, now: float) -> _Judged:
    evidence, policy = series_index.evidence(session, series), series_index.policy(series)
    if series.close_by is not None:
        return _Judged(series, close_now(evidence, policy, series.close_by), evidence.instances)
    return _Judged(series, judge(evidence, policy, now), evidence.instances)


def _told(judged: _Judged) -> dict[str, str | int]:
    return {
        "series_id": judged.series.id,
        "series_instance_uid": judged.series.series_instance_uid,
        "instances": judged.instances,
        "reason": "; ".join(judged.verdict.reasons),
    }
