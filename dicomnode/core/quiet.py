"""How long one sender's pauses are, learned from its past series, and how long its silence is therefore waited out.

C-STORE has no "that was all" (PS3.4 B), so silence must do, and how much of it is enough differs from sender to sender:
one sends 300 slices without a pause, another one image a minute. Of each series the longest pause is learned, for each
kind of silence by itself; what is waited for is a pause as long as hardly any series had, with a margin.

A sketch is a histogram on a logarithmic scale whose counts decay: its size is bounded, and a sender that is replaced is
learned anew. Longer times are believed at once, shorter ones slowly: what is configured counts for less with each
series, and one pause that cost us a premature closing lengthens the wait from the next series on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from dicomnode.core.types import AssociationEnd, CompletenessPolicy, Quiet

LEAST_S: Final = 0.25
"""Pauses shorter than this are no pauses."""

_BINS_PER_OCTAVE: Final = 8
_BINS: Final = 96
"""Up to 0.25 s * 2 ** (96 / 8) = 17 minutes."""


class Silence(StrEnum):
    """What a silence is, which tells how much it says. MOVED_ON goes together with OPEN and RELEASED.

    OPEN      an association that carried the series is open
    RELEASED  all associations that carried it are released
    BROKEN    one was aborted or lost, and none was opened since: its sender may try again
    MOVED_ON  the sender has since sent another series of the study
    """

    OPEN = "open"
    RELEASED = "released"
    BROKEN = "broken"
    MOVED_ON = "moved on"


@dataclass(frozen=True, slots=True)
class Learning:
    """How the learner learns; docs/completeness.md shows what other values would do.

    remembered   series after which a pause counts for a third (1 / e) of what it did
    above        share of the series whose longest pause may lie above what is waited for
    margin       how much longer than that pause is waited
    configured   series whose weight the configured time has
    """

    remembered: float = 2000.0
    above: float = 0.0004
    margin: float = 2.0
    configured: float = 20.0


LEARNING: Final = Learning()


@dataclass(frozen=True, slots=True)
class Sketch:
    """The longest pauses of past series: `weights` by the bin they are in, 0 for those that had none."""

    weights: Mapping[int, float] = field(default_factory=dict)

    @property
    def series(self) -> float:
        """How many series it speaks of; old ones count for less."""
        return math.fsum(self.weights.values())

    def with_pause(self, pause_s: float, remembered: float) -> Sketch:
        """A sketch that knows of one more series."""
        decay = math.exp(-1 / remembered)
        weights = {number: weight * decay for number, weight in self.weights.items()}
        number = _bin(pause_s)
        weights[number] = weights.get(number, 0.0) + 1.0
        return Sketch({number: weight for number, weight in weights.items() if weight > 1e-6})

    def longest_s(self, above: float) -> float:
        """A pause that no more than a share `above` of the series exceeded; 0 where they had none."""
        allowed, over = above * self.series, 0.0
        for number in sorted(self.weights, reverse=True):
            over += self.weights[number]
            if over > allowed:
                return _upper_s(number)
        return 0.0


@dataclass(frozen=True, slots=True)
class Pace:
    """What is known of one sender: a sketch for each kind of silence that its series have had."""

    sketches: Mapping[Silence, Sketch] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Pace:
        return cls(
            {
                Silence(kind): Sketch({int(number): float(weight) for number, weight in weights.items()})
                for kind, weights in content.items()
            }
        )

    def to_json(self) -> dict[str, Any]:
        return {
            kind.value: {str(number): round(weight, 6) for number, weight in sketch.weights.items()}
            for kind, sketch in self.sketches.items()
        }

    def learned(self, pauses: Mapping[Silence, float], learning: Learning = LEARNING) -> Pace:
        """What is known after one more series, with its longest pause of each kind of silence that it had."""
        return replace(
            self,
            sketches={
                **self.sketches,
                **{
                    kind: self.sketches.get(kind, Sketch()).with_pause(pause_s, learning.remembered)
                    for kind, pause_s in pauses.items()
                },
            },
        )

    def series(self, kind: Silence) -> float:
        sketch = self.sketches.get(kind)
        return 0.0 if sketch is None else sketch.series

    def quiet(self, policy: CompletenessPolicy, learning: Learning = LEARNING) -> Quiet:
        """How long each kind of silence is waited out, between the policy's bounds."""
        open_s = self._quiet_s(Silence.OPEN, policy.quiet_s, policy, learning)
        released_s = self._quiet_s(Silence.RELEASED, policy.shortest_quiet_s, policy, learning)
        return Quiet(
            open_s=open_s,
            released_s=released_s,
            broken_s=self._quiet_s(Silence.BROKEN, policy.quiet_s, policy, learning),
            moved_on_s=self._quiet_s(Silence.MOVED_ON, policy.quiet_s, policy, learning),
            series=math.floor(self.series(Silence.OPEN) + 0.5),
        )

    def _quiet_s(self, kind: Silence, configured_s: float, policy: CompletenessPolicy, learning: Learning) -> float:
        series = self.series(kind)
        if not policy.longest_quiet_s or not series:
            return configured_s
        longest_s = self.sketches[kind].longest_s(learning.above)
        unlearned_s = max(configured_s * min(1.0, learning.configured / series), policy.quiet_min_s)
        return max(min(longest_s * learning.margin, policy.longest_quiet_s), min(configured_s, unlearned_s))


def configured_quiet(policy: CompletenessPolicy) -> Quiet:
    """What is waited for where nothing is learned."""
    return Pace().quiet(policy)


@dataclass(frozen=True, slots=True)
class Carried:
    """One association that carried a series. `ended_at` and `how` are None while it is open."""

    opened_at: float
    ended_at: float | None
    how: AssociationEnd | None


@dataclass(frozen=True, slots=True)
class Pause:
    """A silence between two instances of a series.

    seconds     from the one to the other
    open_s      how much of it an association that carried the series was open
    is_broken   one had broken off before the second came, and none was opened between
    moved_on    the sender sent another series of the study meanwhile
    """

    seconds: float
    open_s: float
    is_broken: bool
    moved_on: bool = False

    def with_moved_on(self, moved_on: bool) -> Pause:
        return replace(self, moved_on=moved_on)


def silence_of(carriers: Iterable[Carried]) -> Silence | None:
    """What the silence is after which nothing has come yet; None where no association is known."""
    known = list(carriers)
    if not known:
        return None
    if any(one.ended_at is None for one in known):
        return Silence.OPEN
    return Silence.BROKEN if next(unresumed(known), None) is not None else Silence.RELEASED


def unresumed(carriers: Iterable[Carried]) -> Iterator[Carried]:
    """Those that broke off and after which none was opened."""
    known = list(carriers)
    last_opened_at = max((one.opened_at for one in known), default=-math.inf)
    for one in known:
        if one.ended_at is not None and one.how is not AssociationEnd.RELEASED and last_opened_at <= one.ended_at:
            yield one


def pauses(arrivals: Sequence[tuple[float, Carried | None]], least_s: float) -> list[tuple[float, Pause]]:
    """The silences of at least `least_s` in a series, each with the time at which it began.

    arrivals  when each instance came, and by which association, in order of time
    """
    found: list[tuple[float, Pause]] = []
    opened_at = open_until = -math.inf
    broken: list[float] = []
    before = math.inf
    seen: set[int] = set()
    for at, carried in arrivals:
        if at - before >= least_s:
            found.append((before, _pause(before, at, open_until, any(opened_at <= ended < at for ended in broken))))
        before = at
        if carried is None or id(carried) in seen:
            continue
        seen.add(id(carried))
        opened_at = max(opened_at, carried.opened_at)
        open_until = max(open_until, math.inf if carried.ended_at is None else carried.ended_at)
        if carried.ended_at is not None and carried.how is not AssociationEnd.RELEASED:
            broken.append(carried.ended_at)
    return found


def longest_pauses(
    found: Iterable[Pause], ended: Silence | None, moved_on: bool, most_s: float
) -> dict[Silence, float]:
    """What a series teaches: its longest pause of each kind of silence that it was in, 0 where none was a pause.

    ended     the kind of its last silence, the one after which nothing came; None where it has no association
    moved_on  whether the sender went on to another series of the study in that last silence
    most_s    longer ones are no pauses: what comes after them is late, and no quiet time could wait for it
    """
    longest = {Silence.OPEN: 0.0}
    if ended is not None:
        longest[ended] = 0.0
    if moved_on:
        longest[Silence.MOVED_ON] = 0.0
    for pause in found:
        for kind, seconds in _exposed(pause).items():
            if seconds <= most_s:
                longest[kind] = max(longest.get(kind, 0.0), seconds)
    return longest


def _exposed(pause: Pause) -> dict[Silence, float]:
    """For each kind, the least quiet time by which this pause is no end."""
    exposed = {Silence.OPEN: min(pause.open_s, pause.seconds)}
    if pause.is_broken:
        return {**exposed, Silence.BROKEN: pause.seconds}
    if pause.open_s < pause.seconds:
        exposed[Silence.RELEASED] = pause.seconds
    if pause.moved_on:
        exposed[Silence.MOVED_ON] = pause.seconds
    return exposed


def _pause(before: float, at: float, open_until: float, is_broken: bool) -> Pause:
    return Pause(at - before, min(max(open_until - before, 0.0), at - before), is_broken)


def _bin(pause_s: float) -> int:
    """0 for no pause, 1 up to LEAST_S, and so on; the last holds whatever is longer."""
    if not pause_s > 0:
        return 0
    return min(max(1 + math.ceil(_BINS_PER_OCTAVE * math.log2(pause_s / LEAST_S)), 1), _BINS + 1)


def _upper_s(number: int) -> float:
    """The upper end of a bin."""
    return 0.0 if number == 0 else float(LEAST_S * 2.0 ** ((number - 1) / _BINS_PER_OCTAVE))
