"""A simulated clock runs traces through the node's own judgement and learner; nothing waits."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.arrivals.traces import Arrived, Ended, Event, Opened
from dicomnode.core.completeness import judge, look_ahead_s
from dicomnode.core.quiet import Carried, Learning, Pace, Silence, longest_pauses, pauses, silence_of
from dicomnode.core.types import ArrivalEvidence, AssociationEnd, Completeness, CompletenessPolicy

Key = tuple[int, int]
"""Study and series, by number."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What became of one series.

    premature  whether it was closed though more came; what came late does not count
    delay_s    from its last instance to the closing after it
    """

    premature: bool
    delay_s: float


@dataclass
class _Series:
    key: Key
    first_at: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    positions_mm: list[float] = field(default_factory=list)
    due_at: float | None = None
    learned_until: float = 0.0
    closings: list[float] = field(default_factory=list)
    last_expected_at: float = 0.0

    @property
    def last_at(self) -> float:
        return self.arrivals[-1][0]


class Judgement:
    """Our judgement of one sender's series. `learning` None: nothing is learned, what is configured holds."""

    def __init__(self, policy: CompletenessPolicy, learning: Learning | None) -> None:
        self._policy, self._learning = policy, learning
        self._pace = Pace()
        self._associations: dict[int, Carried] = {}
        self._series: dict[Key, _Series] = {}
        self._study_arrivals: defaultdict[int, list[float]] = defaultdict(list)
        self._due: list[tuple[float, Key]] = []

    def run(self, events: Sequence[Event]) -> list[Closed]:
        """Play all events, and judge until every series is closed."""
        for event in events:
            self._judge_until(event.at)
            if isinstance(event, Opened):
                self._associations[event.association] = Carried(event.at, None, None)
            elif isinstance(event, Ended):
                self._end(event)
            else:
                self._arrive(event)
        self._judge_until(float("inf"))
        return [_closed(series) for series in self._series.values()]

    def _arrive(self, event: Arrived) -> None:
        key = (event.study, event.series)
        series = self._series.setdefault(key, _Series(key, event.at))
        if series.due_at is None:
            series.first_at = event.at
        series.arrivals.append((event.at, event.association))
        if event.position_mm is not None:
            series.positions_mm.append(event.position_mm)
        if not event.late:
            series.last_expected_at = event.at
        self._study_arrivals[event.study].append(event.at)
        self._be_due(series, event.at + look_ahead_s(self._policy.shortest_quiet_s))

    def _end(self, event: Ended) -> None:
        opened = self._associations[event.association]
        self._associations[event.association] = Carried(opened.opened_at, event.at, event.how)
        for series in self._series.values():
            if series.due_at is not None and any(carrier == event.association for _, carrier in series.arrivals):
                soonest = max(series.last_at + look_ahead_s(self._policy.shortest_quiet_s), event.at)
                self._be_due(series, min(series.due_at, soonest))

    def _be_due(self, series: _Series, at: float) -> None:
        series.due_at = at
        heapq.heappush(self._due, (at, series.key))

    def _judge_until(self, at: float) -> None:
        while self._due and self._due[0][0] <= at:
            now, key = heapq.heappop(self._due)
            series = self._series[key]
            if series.due_at == now:
                self._judge(series, now)

    def _judge(self, series: _Series, now: float) -> None:
        verdict = judge(self._evidence(series), self._policy, now)
        if verdict.state == Completeness.WAIT:
            assert verdict.until is not None
            self._be_due(series, max(verdict.until, now + 0.05))
            return
        series.due_at = None
        series.closings.append(now)
        if self._learning is not None:
            self._learn(series, self._learning)

    def _evidence(self, series: _Series) -> ArrivalEvidence:
        silence, carriers = silence_of(self._carriers(series)), self._carriers(series)
        ends = {
            Silence.BROKEN: (AssociationEnd.LOST,), Silence.RELEASED: (AssociationEnd.RELEASED,), Silence.OPEN: ()
        }  # fmt: skip
        return ArrivalEvidence(
            instances=len(series.arrivals),
            first_at=series.first_at,
            last_at=series.last_at,
            open_associations=sum(one.ended_at is None for one in carriers),
            ended=() if silence is None else ends[silence],
            positions_mm=(tuple(series.positions_mm),) if series.positions_mm else (),
            moved_on=self._moved_on(series.key[0], series.last_at, float("inf")),
            quiet=None if self._learning is None else self._pace.quiet(self._policy, self._learning),
        )

    def _learn(self, series: _Series, learning: Learning) -> None:
        arrivals = [(at, self._associations[association]) for at, association in series.arrivals]
        found = [
            pause.with_moved_on(self._moved_on(series.key[0], began, began + pause.seconds))
            for began, pause in pauses(arrivals, self._policy.quiet_min_s)
            if began >= series.learned_until
        ]
        longest = longest_pauses(
            found,
            silence_of(self._carriers(series)),
            self._moved_on(series.key[0], series.last_at, float("inf")),
            self._policy.longest_quiet_s,
        )
        self._pace = self._pace.learned(longest, learning)
        series.learned_until = series.last_at

    def _carriers(self, series: _Series) -> list[Carried]:
        return [self._associations[number] for number in dict.fromkeys(number for _, number in series.arrivals)]

    def _moved_on(self, study: int, after: float, before: float) -> bool:
        """Whether the sender sent something else of the study between two times."""
        arrivals = self._study_arrivals[study]
        return bisect_left(arrivals, before) > bisect_right(arrivals, after)


def fixed(events: Sequence[Event], quiet_s: float) -> list[Closed]:
    """The series of one sender, closed after a fixed time without an instance, as the peers do."""
    last: dict[Key, float] = {}
    cut: set[Key] = set()
    for event in events:
        if isinstance(event, Arrived) and not event.late:
            key = (event.study, event.series)
            if event.at - last.get(key, event.at) > quiet_s:
                cut.add(key)
            last[key] = event.at
    return [Closed(key in cut, quiet_s) for key in last]


def _closed(series: _Series) -> Closed:
    after = next(at for at in series.closings if at >= series.last_expected_at)
    return Closed(series.closings[0] < series.last_expected_at, after - series.last_expected_at)
