"""Arrival traces: when plausible scanners send which instance of which series, by which association.

Written, with its seeds, before the learner that is judged by it. Rates and pauses are drawn for each scanner from wide
ranges, so that a hospital has quick ones and slow ones; no trace tells a count, only times, associations and positions.

Whoever works on completeness looks at DEVELOPMENT_SEEDS only; HELD_OUT_SEEDS are for the figures in
docs/completeness.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Final

from dicomnode.core.types import AssociationEnd

DEVELOPMENT_SEEDS: Final = (101, 102, 103)
HELD_OUT_SEEDS: Final = (201, 202, 203, 204, 205, 206)
STUDIES: Final = 150
"""Studies that each scanner of a hospital sends."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An association is accepted."""

    at: float
    association: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """One instance is stored. `late` ones are added hours or many minutes after: no quiet time is meant to wait for
    them, and they make nobody's closing premature."""

    at: float
    association: int
    study: int
    series: int
    position_mm: float | None
    late: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """An association ends."""

    at: float
    association: int
    how: AssociationEnd


Event = Opened | Arrived | Ended


@dataclass
class _Pace:
    """How one scanner sends: drawn once for each."""

    gap_s: float
    pause_chance: float
    pause_s: float
    linger_s: float
    between_s: float

    @classmethod
    def drawn(cls, random: Random) -> _Pace:
        return cls(
            gap_s=_between(random, 0.02, 0.3),
            pause_chance=_between(random, 0.002, 0.03),
            pause_s=_between(random, 1.0, 6.0),
            linger_s=random.choice((0.05, 0.2, 5.0, 20.0)),
            between_s=_between(random, 1.0, 20.0),
        )

    def gap(self, random: Random) -> float:
        """Until the next instance: mostly even, now and then a pause (a queue, a disk, a reconstruction)."""
        if random.random() < self.pause_chance:
            return _spread(random, self.pause_s, 0.6)
        return _spread(random, self.gap_s, 0.4)


@dataclass
class _Sending:
    """What a scanner does, one thing after another; `at` is its clock."""

    random: Random
    at: float
    associations: count[int]
    events: list[Event] = field(default_factory=list)

    def open(self) -> int:
        association = next(self.associations)
        self.events.append(Opened(self.at, association))
        return association

    def store(self, association: int, study: int, series: int, position_mm: float | None, late: bool = False) -> None:
        self.events.append(Arrived(self.at, association, study, series, position_mm, late))

    def end(self, association: int, how: AssociationEnd = AssociationEnd.RELEASED) -> None:
        self.events.append(Ended(self.at, association, how))

    def wait(self, seconds: float) -> None:
        self.at += seconds


Behaviour = Callable[[_Sending, _Pace, int], None]
"""Sends one study, from its first to its last association."""


def one_association_a_series(sending: _Sending, pace: _Pace, study: int) -> None:
    """The common case: open, send a series, release at once or after lingering."""
    for series in range(sending.random.randint(1, 4)):
        association = sending.open()
        _send(sending, pace, association, study, series, _positions(sending.random))
        sending.wait(pace.linger_s)
        sending.end(association)
        sending.wait(_spread(sending.random, pace.between_s, 0.5))


def reconstruction_in_batches(sending: _Sending, pace: _Pace, study: int) -> None:
    """One association for the study; images leave as they are reconstructed, a batch at a time."""
    random = sending.random
    association, batch = sending.open(), random.choice((16, 32, 64))
    for series in range(random.randint(1, 4)):
        for number, position_mm in enumerate(_positions(random)):
            sending.wait(_spread(random, pace.pause_s, 0.4) if number and number % batch == 0 else pace.gap(random))
            sending.store(association, study, series, position_mm)
        sending.wait(_spread(random, pace.between_s, 0.5))
    sending.wait(pace.linger_s)
    sending.end(association)


def one_association_an_image(sending: _Sending, pace: _Pace, study: int) -> None:
    """Old senders and some viewers: each image has an association of its own."""
    for series in range(sending.random.randint(1, 3)):
        for position_mm in _positions(sending.random):
            sending.wait(pace.gap(sending.random))
            association = sending.open()
            sending.wait(0.02)
            sending.store(association, study, series, position_mm)
            sending.wait(0.01)
            sending.end(association)
        sending.wait(_spread(sending.random, pace.between_s, 0.5))


def interleaved_series(sending: _Sending, pace: _Pace, study: int) -> None:
    """Several series of a study side by side over one association, as they come out of the reconstruction."""
    random = sending.random
    association = sending.open()
    left = {series: _positions(random) for series in range(random.randint(2, 5))}
    while left:
        series = random.choice(list(left))
        sending.wait(pace.gap(random))
        sending.store(association, study, series, left[series].pop(0))
        if not left[series]:
            del left[series]
    sending.wait(pace.linger_s)
    sending.end(association)


def aborted_and_resumed(sending: _Sending, pace: _Pace, study: int) -> None:
    """A bad network: one series in eight breaks off and goes on later, with the last image once more."""
    random = sending.random
    for series in range(random.randint(1, 3)):
        positions = _positions(random)
        stop = random.randrange(1, len(positions)) if random.random() < 0.125 and len(positions) > 1 else 0
        association = sending.open()
        if stop:
            _send(sending, pace, association, study, series, positions[:stop])
            sending.wait(_spread(random, 0.5, 0.5))
            sending.end(association, random.choice((AssociationEnd.ABORTED, AssociationEnd.LOST)))
            sending.wait(_spread(random, 15.0, 0.5))
            association = sending.open()
        _send(sending, pace, association, study, series, positions[stop:])
        sending.wait(pace.linger_s)
        sending.end(association)
        sending.wait(_spread(random, pace.between_s, 0.5))


def capped_transfers(sending: _Sending, pace: _Pace, study: int) -> None:
    """A scanner that sends so many images by one association, releases it, and goes on by another soon after."""
    random = sending.random
    cap = random.choice((25, 50))
    for series in range(random.randint(1, 3)):
        positions = _positions(random)
        for start in range(0, len(positions), cap):
            association = sending.open()
            _send(sending, pace, association, study, series, positions[start : start + cap])
            sending.wait(0.1)
            sending.end(association)
            sending.wait(_spread(random, pace.pause_s, 0.5))
        sending.wait(_spread(random, pace.between_s, 0.5))


def pushed_by_hand(sending: _Sending, pace: _Pace, study: int) -> None:
    """A person at a workstation who picks images and pushes a few at a time."""
    random = sending.random
    positions = _positions(random)[: random.randint(3, 15)]
    while positions:
        association = sending.open()
        for _ in range(min(len(positions), random.randint(1, 4))):
            sending.wait(pace.gap(random))
            sending.store(association, study, 0, positions.pop(0))
        sending.end(association)
        sending.wait(_spread(random, 6.0, 0.7))


def late_post_processing(sending: _Sending, pace: _Pace, study: int) -> None:
    """A series, minutes later another made from it, and once in thirty studies one more image of the first series."""
    random = sending.random
    for series in range(2):
        association = sending.open()
        _send(sending, pace, association, study, series, _positions(random))
        sending.wait(pace.linger_s)
        sending.end(association)
        sending.wait(random.uniform(120.0, 600.0))
    if random.random() < 1 / 30:
        association = sending.open()
        sending.store(association, study, 0, None, late=True)
        sending.end(association)


BEHAVIOURS: Final[Mapping[str, Behaviour]] = {
    "one association a series": one_association_a_series,
    "reconstruction in batches": reconstruction_in_batches,
    "one association an image": one_association_an_image,
    "interleaved series": interleaved_series,
    "aborted and resumed": aborted_and_resumed,
    "capped transfers": capped_transfers,
    "pushed by hand": pushed_by_hand,
    "late post-processing": late_post_processing,
}


def hospital(seed: int, studies: int = STUDIES) -> dict[str, list[Event]]:
    """The events of each sender, in order. The last is a gateway: three scanners under one AE title, at once."""
    senders = {name: _sender((seed, name), (behaviour,), studies) for name, behaviour in BEHAVIOURS.items()}
    mixed = (one_association_a_series, reconstruction_in_batches, capped_transfers)
    return {**senders, "gateway for three": _sender((seed, "gateway"), mixed, studies)}


def _sender(seed: tuple[int, str], behaviours: Sequence[Behaviour], studies: int) -> list[Event]:
    random = Random(f"{seed[0]}/{seed[1]}")
    associations, numbers = count(), count()
    events: list[Event] = []
    for behaviour in behaviours:
        pace, sending = _Pace.drawn(random), _Sending(random, random.uniform(0.0, 300.0), associations)
        for _ in range(math.ceil(studies / len(behaviours))):
            behaviour(sending, pace, next(numbers))
            sending.wait(30.0 + random.expovariate(1 / 240.0))
        events += sending.events
    return sorted(events, key=lambda event: event.at)


def _send(
    sending: _Sending, pace: _Pace, association: int, study: int, series: int, positions: Sequence[float | None]
) -> None:
    for position_mm in positions:
        sending.wait(pace.gap(sending.random))
        sending.store(association, study, series, position_mm)


def _positions(random: Random) -> list[float | None]:
    """The slices of a series in the order they are sent: by position, every other one first, or without positions."""
    slices = round(_spread(random, 40.0, 0.7)) + 1
    step_mm = random.choice((1.0, 2.5, 5.0))
    order = random.choices(("by position", "every other first", "no positions"), (8, 1, 1))[0]
    if order == "no positions":
        return [None] * slices
    places: list[float | None] = [step_mm * number for number in range(slices)]
    return places[::2] + places[1::2] if order == "every other first" else places


def _between(random: Random, low: float, high: float) -> float:
    """Drawn evenly on a logarithmic scale."""
    return math.exp(random.uniform(math.log(low), math.log(high)))


def _spread(random: Random, median: float, sigma: float) -> float:
    return random.lognormvariate(math.log(median), sigma)
