"""Taking over the workflows of processes that died: every process that runs workflows looks for them, none leads.

Who is dead is told by signs of life in the database, by the database's clock. What a dead process had begun goes back
to its queue, and the next process that serves it goes on from the last recorded step.

A process that was only slow, or cut off, may wake up again: it finds that its work was given away and ends itself; what
it did meanwhile was done twice at worst, which every step bears, and the engine takes the result of one only.

A process that lives may lose a workflow too, where the database fails between claiming it and beginning it. So each
compares what is recorded as begun by it with what it runs, and gives back what has been missing for as long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy.orm import Session

from dicomnode.flow.repeating import Repeating
from dicomnode.store.database import Database
from dicomnode.store.index import associations, processes
from dicomnode.telemetry import event

_LONGEST_BEAT_S: Final = 5.0
_BEATS_A_LIFE: Final = 5


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often signs of life come, and after how long a silence a process is taken for dead."""

    beat_s: float
    dead_after_s: float

    @classmethod
    def of(cls, dead_after_s: float) -> Cadence:
        return cls(min(_LONGEST_BEAT_S, dead_after_s / _BEATS_A_LIFE), dead_after_s)


class Unfinished(Protocol):
    """The workflows that were begun (`dicomnode.flow.port.Workflows`)."""

    def owners(self) -> frozenset[str]:
        """The executor ids of those that are running, or were when their process died."""
        ...

    def recover(self, executor_ids: Collection[str]) -> int:
        """Put what these had begun back into its queues; how many workflows. Again, it does nothing."""
        ...

    def dropped(self) -> frozenset[str]:
        """The ids of those that this process has begun, as far as is recorded, and that do not run in it."""
        ...

    def give_back(self, ids: Collection[str]) -> None:
        """Put these back into their queues."""
        ...


class Pulse(Protocol):
    """How this process itself is (`dicomnode.serve.heart.Heart`)."""

    @property
    def executor_id(self) -> str: ...

    @property
    def steady_s(self) -> float:
        """For how long it has given signs of life without a gap."""
        ...


def dead(owners: Collection[str], ages: Mapping[str, float], dead_after_s: float, steady_s: float) -> frozenset[str]:
    """Those of the executors that are dead.

    One without any sign has left or was replaced by its next life: there is nothing to wait for. One that fell silent
    is dead after a while, if the judge has been there all the time: after an outage of the database everybody's last
    sign is old, and all get the same time to give a new one.
    """
    gone = {owner for owner in owners if owner not in ages}
    silent = {owner for owner in owners if ages.get(owner, 0.0) > dead_after_s}
    return frozenset(gone | silent if steady_s >= dead_after_s else gone)


class Successor(Repeating):
    """Looks for work of dead processes once in each beat, and gives it back to its queues."""

    def __init__(self, database: Database, unfinished: Unfinished, pulse: Pulse, host: str, cadence: Cadence) -> None:
        super().__init__("take over", cadence.beat_s, self.take_over)
        self._database = database
        self._unfinished = unfinished
        self._pulse = pulse
        self._host = host
        self._dead_after_s = cadence.dead_after_s
        self._dropped: dict[str, float] = {}

    def take_over(self, now: float) -> int:
        """Give back the work of all who are dead now, and what we let fall ourselves; how many workflows."""
        return self._pick_up(now) + self._take_from_the_dead(now)

    def _pick_up(self, now: float) -> int:
        """Give back what was ours all the time and ran in none of our threads."""
        self._dropped = {each: self._dropped.get(each, now) for each in self._unfinished.dropped()}
        lost = sorted(each for each, since in self._dropped.items() if now - since > self._dead_after_s)
        if lost:
            self._unfinished.give_back(lost)
        for each in lost:
            event("work_resumed", workflow=each)
        return len(lost)

    def _take_from_the_dead(self, now: float) -> int:
        with self._database.read() as session:
            if not processes.may_take_over(session):
                return 0
            if self._database.is_shared and self._pulse.steady_s >= self._dead_after_s:
                self._end_receptions(session, now)
            owners = self._unfinished.owners() - {self._pulse.executor_id}
            if not owners:
                return 0
            ages = processes.ages(session)
            found = dead(owners, ages, self._dead_after_s, self._pulse.steady_s) | processes.condemned(session, owners)
            return self._succeed(found) if found else 0

    def _end_receptions(self, session: Session, now: float) -> None:
        """What was open at a receiver that died was broken off: its series need not wait for the end."""
        silent = {f"{row.host}/{row.role}": row for row in processes.silent(session, self._dead_after_s)}
        for owner in sorted(associations.with_open_associations(session, silent)):
            with self._database.write() as writing:
                associations.lose_open_associations(writing, owner, now)
            event("reception_lost", machine=silent[owner].host, role=silent[owner].role)

    def _succeed(self, found: Collection[str]) -> int:
        """Condemn them first: should one wake up in between, it must not go on."""
        with self._database.write(alone=False) as session:
            condemned = processes.record_takeover(session, found, self._host)
        recovered = self._unfinished.recover(found)
        for each in condemned:
            event("work_taken_over", machine=each.host, executor=each.executor_id, workflows=recovered)
        return recovered
