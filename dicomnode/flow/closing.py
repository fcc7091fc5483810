"""Judging the completeness of series that are due, and closing those that are complete.

Every instance and every end of an association moves its series' due time, in the database: a restart forgets nothing.
Closing is one transaction: the series' state, the originals that waited for it, and the workflow that routes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy.orm import Session

from dicomnode.core.completeness import judge
from dicomnode.core.types import Completeness
from dicomnode.faults import kill_point
from dicomnode.flow.port import Call
from dicomnode.flow.repeating import Repeating
from dicomnode.store.database import Database
from dicomnode.store.index import series as series_index
from dicomnode.store.schema import Series
from dicomnode.telemetry import event

_POLL_S: Final = 0.2
_MIN_WAIT_S: Final = 0.05

Enqueue = Callable[[Session, Call], None]


def route_call(series_row: int, generation: int) -> Call:
    """The workflow that routes one closing of a series."""
    return Call("route", "route", f"route:{series_row}:{generation}", (series_row, generation))


class Closer(Repeating):
    """A thread that judges due series until it is stopped."""

    def __init__(self, database: Database, enqueue: Enqueue) -> None:
        super().__init__("close", _POLL_S, self.judge_due)
        self._database = database
        self._enqueue = enqueue

    def judge_due(self, now: float) -> int:
        """Judge every series that is due; how many were closed."""
        with self._database.read() as session:
            due = series_index.due_series(session, now)
        return sum(self._judge(series, now) for series in due)

    def _judge(self, series: Series, now: float) -> bool:
        with self._database.write() as session:
            evidence = series_index.evidence(session, series)
            verdict = judge(evidence, series_index.policy(series), now)
            if verdict.state == Completeness.WAIT:
                until = now + _MIN_WAIT_S if verdict.until is None else max(verdict.until, now + _MIN_WAIT_S)
                series_index.postpone(session, series, until)
                return False
            generation = series_index.close(session, series, verdict, now)
            if generation is None:
                return False
            kill_point("route.before_enqueue")
            self._enqueue(session, route_call(series.id, generation))
        kill_point("route.after_enqueue")
        event(
            "series_closed",
            series_id=series.id,
            series_instance_uid=series.series_instance_uid,
            state=verdict.state.value,
            instances=evidence.instances,
            reason="; ".join(verdict.reasons),
        )
        return True
