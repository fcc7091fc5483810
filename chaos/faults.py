"""What goes wrong in one run, when, and for how long: drawn from a seed, the same each time."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

EVERYWHERE: Final = "all machines"
CUT_OFF_S: Final = 20.0


class Kind(StrEnum):
    """What goes wrong."""

    PROCESS_KILLED = "process killed"
    MACHINE_KILLED = "machine killed"
    MACHINE_LOST = "machine lost for good"
    DATABASE_RESTARTED = "database restarted"
    DATABASE_CUT_OFF = "database cut off"
    DESTINATION_DOWN = "destination down"
    DISK_FULL = "disk full"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    at_s    seconds after the first series was sent
    for_s   until it is mended; a lost machine is not
    target  machine or destination; EVERYWHERE is all machines at once
    draw    from 0 to 1, for what else there is to choose: which process is killed, how a connection ends
    """

    kind: Kind
    at_s: float
    for_s: float
    target: str
    draw: float

    def __str__(self) -> str:
        return f"{self.kind} ({self.target})"


@dataclass(frozen=True, slots=True)
class Extent:
    """What there is to break, and for how long.

    span_s     in which all faults begin
    can_mount  whether there is a small disk that can be filled
    """

    machines: Sequence[str]
    destinations: Sequence[str]
    span_s: float
    can_mount: bool


def drawn(seed: int, extent: Extent) -> tuple[Fault, ...]:
    """Every kind of fault at least once, in order of time. One machine stays where it is, so that none is a majority.

    The machine that is lost has no fault after its end; of the others no two are down at once, as a rolling restart
    would have it: that all are down is what the database's faults are for.
    """
    draw = random.Random(seed)
    lost, *others = draw.sample(extent.machines, len(extent.machines))
    lost_at_s = draw.uniform(0.3, 0.7) * extent.span_s
    faults = [Fault(Kind.MACHINE_LOST, lost_at_s, 0.0, lost, draw.random())]
    faults += _machine_kills(draw, others, extent.span_s)
    for _ in range(4):
        at_s = draw.uniform(0.0, extent.span_s)
        alive = extent.machines if at_s < lost_at_s else others
        faults.append(Fault(Kind.PROCESS_KILLED, at_s, 0.0, draw.choice(alive), draw.random()))
    faults += _of_all(draw, extent, others)
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def _machine_kills(draw: random.Random, machines: Sequence[str], span_s: float) -> Iterable[Fault]:
    """Each of them once, one after the other."""
    slot_s = span_s / len(machines)
    for number, machine in enumerate(machines):
        at_s = (number + draw.uniform(0.0, 0.6)) * slot_s
        yield Fault(Kind.MACHINE_KILLED, at_s, draw.uniform(0.5, 0.3 * slot_s), machine, draw.random())


def _of_all(draw: random.Random, extent: Extent, staying: Sequence[str]) -> Iterable[Fault]:
    span_s = extent.span_s
    yield Fault(Kind.DATABASE_RESTARTED, draw.uniform(0.0, span_s), draw.uniform(0.0, 3.0), EVERYWHERE, draw.random())
    cut_off = draw.choice([EVERYWHERE, *staying])
    yield Fault(Kind.DATABASE_CUT_OFF, draw.uniform(0.0, span_s), CUT_OFF_S, cut_off, draw.random())
    down = draw.choice(extent.destinations)
    yield Fault(Kind.DESTINATION_DOWN, draw.uniform(0.0, span_s / 2), draw.uniform(0.2, 0.5) * span_s, down, 0.0)
    if extent.can_mount:
        yield Fault(Kind.DISK_FULL, draw.uniform(0.0, span_s), draw.uniform(3.0, 8.0), EVERYWHERE, 0.0)
