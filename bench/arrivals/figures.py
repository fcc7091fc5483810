"""What settings of the learner, and fixed quiet times, cost and cut: points of a curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import mean, median
from typing import Final

from bench.arrivals.simulate import Closed, Judgement, fixed
from bench.arrivals.traces import Event, hospital
from dicomnode.core.quiet import LEARNING, Learning
from dicomnode.core.types import CompletenessPolicy

FIXED_S: Final = (2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 60.0)
LEARNT: Final = 50
"""Series of a sender after which it is called known."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How boldly series are closed: the learner's margin, the silence that is enough after a release while nothing is
    learned, and for how many series that counts."""

    margin: float
    released_quiet_s: float
    configured: float

    def __str__(self) -> str:
        return f"margin {self.margin:g}, {self.released_quiet_s:g} s until learned ({self.configured:g})"


SETTINGS: Final = (
    Setting(0.18, 1.5, 5.0),
    Setting(0.5, 5.0, 5.0),
    Setting(0.75, 5.0, 20.0),
    Setting(1.0, 5.0, 20.0),
    Setting(1.5, 5.0, 20.0),
    Setting(LEARNING.margin, 5.0, LEARNING.configured),
    Setting(2.0, 20.0, 20.0),
    Setting(3.0, 60.0, 20.0),
    Setting(4.0, 60.0, 20.0),
)
"""From the boldest on; the sixth is the default."""


@dataclass(frozen=True, slots=True)
class Point:
    """What one way of closing did with all series.

    kind       "fixed", "learned", or "configured" (associations count, nothing is learned)
    setting    the quiet time or the learner's settings, in words
    premature  series that were closed though more came
    known      the same, of `known_series` series after the first 50 of each sender
    """

    kind: str
    setting: str
    series: int
    premature: int
    known_series: int
    known: int
    median_s: float
    mean_s: float
    longest_tenth_s: float

    @property
    def share(self) -> float:
        return self.premature / self.series

    @property
    def known_share(self) -> float:
        return self.known / self.known_series

    def is_no_worse_than(self, other: Point) -> bool:
        return self.premature <= other.premature and self.median_s <= other.median_s


def traces(seeds: Sequence[int]) -> list[list[Event]]:
    """The events of each sender of each hospital."""
    return [events for seed in seeds for events in hospital(seed).values()]


def fixed_point(senders: Sequence[Sequence[Event]], quiet_s: float) -> Point:
    return _point("fixed", f"{quiet_s:g} s", [fixed(events, quiet_s) for events in senders])


def learned_point(senders: Sequence[Sequence[Event]], setting: Setting) -> Point:
    policy = CompletenessPolicy(released_quiet_s=setting.released_quiet_s)
    learning = replace(LEARNING, margin=setting.margin, configured=setting.configured)
    return _point("learned", str(setting), _judged(senders, policy, learning))


def configured_point(senders: Sequence[Sequence[Event]]) -> Point:
    return _point("configured", "as configured", _judged(senders, CompletenessPolicy(), None))


def _judged(
    senders: Sequence[Sequence[Event]], policy: CompletenessPolicy, learning: Learning | None
) -> list[list[Closed]]:
    return [Judgement(policy, learning).run(events) for events in senders]


def _point(kind: str, setting: str, closed: Sequence[Sequence[Closed]]) -> Point:
    every = list(chain.from_iterable(closed))
    known = list(chain.from_iterable(of_sender[LEARNT:] for of_sender in closed))
    delays = sorted(one.delay_s for one in every)
    return Point(
        kind=kind,
        setting=setting,
        series=len(every),
        premature=sum(one.premature for one in every),
        known_series=len(known),
        known=sum(one.premature for one in known),
        median_s=median(delays),
        mean_s=mean(delays),
        longest_tenth_s=delays[len(delays) * 9 // 10],
    )
