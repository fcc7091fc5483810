"""Which slabs an engine process computes next: a pure decision over the jobs that are admitted.

A job is given out a slab at a time, so every slab's end is a point at which another job may overtake it. The order:

1. who has waited longer than PATIENCE_S for a slab, the longest waiting first: nobody starves, however many urgent jobs
   come, and urgent ones lose to it no more than one slab of each waiting job in that time;
2. the more urgent priority;
3. an engine that this process has open already: opening one costs as much as many slabs;
4. who was admitted first.

Slabs of several jobs are computed as one batch where engine, settings and shape of a slice agree (`Waiting.batch`). A
slab whose process died is computed alone from then on, so that it takes nobody else's down, and on a process that has
not died of it if there is one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

PATIENCE_S: Final = 60.0
"""How long a job waits for its next slab before it goes first whatever its priority."""

ATTEMPTS: Final = 3
"""How many processes one slab may take down, or lose, before its job fails, and all that was computed of it is lost.
Where others use up the machine's memory, it loses two in a row through no fault of its own."""


@dataclass(frozen=True, slots=True)
class Slab:
    """Slices `begin` to `end` (exclusive) of one job; `lost_on`: the processes that died at it, in turn."""

    begin: int
    end: int
    lost_on: tuple[int, ...] = ()

    @property
    def slices(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    slices   how many it has
    halo     how many slices on each side of a slab its engine looks at; None: it needs all slices at once
    arrived  the first so many slices can be read
    begun    the first so many were given out
    running  slabs that are being computed
    again    slabs that were given out and lost
    """

    slices: int
    halo: int | None = 0
    arrived: int = 0
    begun: int = 0
    running: frozenset[Slab] = frozenset()
    again: tuple[Slab, ...] = ()

    @property
    def is_done(self) -> bool:
        return self.begun == self.slices and not self.running and not self.again

    @property
    def done_to(self) -> int:
        """The first so many slices are computed."""
        return min([self.begun, *(slab.begin for slab in (*self.running, *self.again))])

    def next_slab(self, most: int) -> Slab | None:
        """What may be given out now, of at most so many slices (an engine that needs all of them gets all)."""
        if self.again:
            return self.again[0]
        reach = self.slices if self.halo is None else self.halo
        ready = self.slices if self.arrived == self.slices else self.arrived - reach
        end = ready if self.halo is None else min(ready, self.begun + most)
        return Slab(self.begun, end) if end > self.begun else None

    def arrived_to(self, arrived: int) -> Progress:
        return replace(self, arrived=max(self.arrived, min(arrived, self.slices)))

    def given_out(self, slab: Slab) -> Progress:
        """`slab` is one that `next_slab` gave."""
        again = tuple(one for one in self.again if one != slab)
        return replace(self, begun=max(self.begun, slab.end), running=self.running | {slab}, again=again)

    def finished(self, slab: Slab) -> Progress:
        return replace(self, running=self.running - {slab})

    def lost(self, slab: Slab, process: int) -> Progress:
        """`process` died at `slab`: it is given out again."""
        once_more = replace(slab, lost_on=(*slab.lost_on, process))
        return replace(self, running=self.running - {slab}, again=(*self.again, once_more))

    def given_back(self, slab: Slab) -> Progress:
        """`slab` was not computed through no fault of anybody."""
        return replace(self, running=self.running - {slab}, again=(*self.again, slab))


@dataclass(frozen=True, slots=True)
class Waiting:
    """One admitted job, as the order sees it.

    job        its number; jobs are admitted in the order of their numbers
    priority   the lower the sooner (`core.routing.PRIORITIES`)
    since_s    when it was admitted or last given a slab, on a clock that only goes on
    engine     the engine that computes it, with its version
    batch      jobs of the same one can be computed together; "": with nobody
    most       slices of one slab
    """

    job: int
    priority: int
    since_s: float
    engine: str
    batch: str
    most: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Process:
    """An idle engine process; `warm` are the engines that it has open, `others` how many other processes there are."""

    number: int
    warm: Collection[str] = ()
    others: int = 0


Given = tuple[Waiting, Slab]


def choose(waiting: Sequence[Waiting], process: Process, now_s: float) -> tuple[Given, ...]:
    """The slabs that `process` is to compute together now, the first one's job leading; empty: there is nothing."""
    offered = sorted(_offered(waiting, process), key=lambda given: _rank(given[0], process, now_s))
    if not offered:
        return ()
    leader, slab = offered[0]
    batch = [(leader, slab)]
    room = leader.most - slab.slices
    if not leader.batch or slab.lost_on:
        return tuple(batch)
    for one, _ in offered[1:]:
        more = one.progress.next_slab(room) if one.batch == leader.batch and room > 0 else None
        if more is not None and not more.lost_on and more.slices <= room:
            batch.append((one, more))
            room -= more.slices
    return tuple(batch)


def _offered(waiting: Sequence[Waiting], process: Process) -> list[Given]:
    """The next slab of each job that has one for this process."""
    found = []
    for one in waiting:
        slab = one.progress.next_slab(one.most)
        if slab is not None and (process.number not in slab.lost_on or len({*slab.lost_on}) > process.others):
            found.append((one, slab))
    return found


def _rank(one: Waiting, process: Process, now_s: float) -> tuple[float, int, bool, int]:
    impatient = now_s - one.since_s >= PATIENCE_S
    return one.since_s if impatient else float("inf"), one.priority, one.engine not in process.warm, one.job
