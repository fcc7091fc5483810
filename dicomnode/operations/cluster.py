"""`dicomnode cluster`: the machines that share an index, what each does, and what waits for whom."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Final

from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.errors import NotFoundError, UsageError
from dicomnode.operations.index import reading, writing
from dicomnode.operations.terminal import printable_lines
from dicomnode.operations.wording import counted
from dicomnode.store.index import processes, queues
from dicomnode.store.index.actions import record_action
from dicomnode.store.schema import Process

_TAKEOVERS_TOLD: Final = 10


@dataclass(frozen=True)
class MachineProcess:
    """`role` is the process's name, `roles` are those that it has; `beat_s` is how long ago it gave its last sign."""

    role: str
    roles: tuple[str, ...]
    version: str
    pid: int
    alive: bool
    up_s: float
    beat_s: float


@dataclass(frozen=True)
class Machine:
    name: str
    processes: tuple[MachineProcess, ...]

    @property
    def is_alive(self) -> bool:
        return any(process.alive for process in self.processes)

    @property
    def versions(self) -> tuple[str, ...]:
        return tuple(sorted({process.version for process in self.processes}))


@dataclass(frozen=True)
class QueueStatus:
    """What waits for a role; `oldest_s` is how long the oldest has waited, `machines` how many that live have it."""

    role: str
    waiting: int
    oldest_s: float | None
    machines: int


@dataclass(frozen=True)
class LeaseStatus:
    kind: str
    name: str
    machine: str
    left_s: float


@dataclass(frozen=True)
class TakeoverStatus:
    machine: str
    by: str
    ago_s: float


@dataclass(frozen=True)
class ClusterStatus:
    """All that `cluster status` tells; no patient data."""

    machines: tuple[Machine, ...]
    queues: tuple[QueueStatus, ...]
    leases: tuple[LeaseStatus, ...]
    takeovers: tuple[TakeoverStatus, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        return printable_lines(
            (*_machine_lines(self), *_queue_lines(self), *_lease_lines(self), *_takeover_lines(self))
        )


def cluster_status(config: Config) -> ClusterStatus:
    """Ask the index; raises NotFoundError where there is none yet."""
    with reading(config) as session:
        now = processes.clock(session)
        machines = tuple(_machines(session, now, config.cluster.dead_after_s))
        return ClusterStatus(
            machines=machines,
            queues=tuple(_queue(each, machines, now) for each in queues.waiting(session)),
            leases=tuple(
                LeaseStatus(lease.kind, lease.name, lease.owner.partition("/")[0], lease.until - now)
                for lease in queues.leases(session, now)
            ),
            takeovers=tuple(
                TakeoverStatus(row.host, row.by_host, now - row.at)
                for row in processes.takeovers(session, _TAKEOVERS_TOLD)
            ),
        )


@dataclass(frozen=True)
class Forgotten:
    machine: str
    processes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        return printable_lines((f"{self.machine} is forgotten, with {_processes(self.processes)}",))


def forget(config: Config, machine: str) -> Forgotten:
    """Forget a machine that will not come back; should it, it is known again. Raises NotFoundError for one that is not
    known, and UsageError for one that runs."""
    with writing(config) as session:
        known = next((one for one in _machines(session, processes.clock(session), config.cluster.dead_after_s)
                      if one.name == machine), None)  # fmt: skip
        if known is None:
            raise NotFoundError(f"no machine is called {machine!r}", "see: dicomnode cluster status")
        if known.is_alive:
            raise UsageError(f"{machine} runs", "stop it first")
        record_action(session, "cluster forget", machine, "", time.time())
        return Forgotten(machine, processes.forget_machine(session, machine))


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


def _machines(session: Session, now: float, dead_after_s: float) -> Iterator[Machine]:
    rows = sorted(processes.all_of(session), key=lambda row: (row.host, row.role))
    for host, group in groupby(rows, key=lambda row: row.host):
        yield Machine(host, tuple(_process(row, now, dead_after_s) for row in group))


def _process(row: Process, now: float, dead_after_s: float) -> MachineProcess:
    beat_s = now - row.beat_at
    return MachineProcess(
        row.role, tuple(row.roles), row.version, row.pid, beat_s < dead_after_s, now - row.started_at, beat_s
    )


def _queue(waiting: queues.Waiting, machines: Sequence[Machine], now: float) -> QueueStatus:
    having = sum(
        any(process.alive and waiting.role in process.roles for process in machine.processes) for machine in machines
    )
    oldest_s = None if waiting.oldest_at is None else max(0.0, now - waiting.oldest_at)
    return QueueStatus(waiting.role, waiting.waiting, oldest_s, having)


def _machine_lines(status: ClusterStatus) -> Iterator[str]:
    if not status.machines:
        yield "no machine runs  (start one with: dicomnode serve)"
    for machine in status.machines:
        state = "" if machine.is_alive else "  DEAD"
        yield f"machine {machine.name}  version {' and '.join(machine.versions)}{state}"
        for process in machine.processes:
            roles = f" ({', '.join(process.roles)})" if process.roles not in ((), (process.role,)) else ""
            life = "" if process.alive else "  DEAD"
            yield f"  {process.role}{roles}  pid {process.pid}, last sign {process.beat_s:.0f} s ago{life}"
    versions = sorted({version for machine in status.machines for version in machine.versions})
    if len(versions) > 1:
        yield f"versions {' and '.join(versions)} run side by side: bring all to the newest"


def _queue_lines(status: ClusterStatus) -> Iterator[str]:
    for queue in status.queues:
        oldest = "" if queue.oldest_s is None else f", the oldest since {queue.oldest_s:.0f} s"
        nobody = "; no machine that runs has this role" if queue.waiting and not queue.machines else ""
        yield f"{queue.role:<9} {queue.waiting} waiting{oldest}; {counted(queue.machines, 'machine')}{nobody}"


def _lease_lines(status: ClusterStatus) -> Iterator[str]:
    for lease in status.leases:
        yield f"{lease.kind} {lease.name}: {lease.machine}, for another {lease.left_s:.0f} s unless it renews that"


def _takeover_lines(status: ClusterStatus) -> Iterator[str]:
    for takeover in status.takeovers:
        yield f"{takeover.ago_s:.0f} s ago {takeover.by} took over what {takeover.machine} had begun"
