"""Signs of life of all processes on all machines, and whose work was taken over. Times are the database's clock's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, func, literal_column, select, text
from sqlalchemy.orm import Session

from dicomnode.store.schema import Process, Takeover

_EPOCH: Final = {
    "postgresql": "extract(epoch FROM clock_timestamp())",
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",  # 1970-01-01 as a Julian day
}
_TAKING_OVER: Final = 0x74616B65  # "take"
"""Number of the advisory lock of whoever takes over."""

_REMEMBERED: Final = 200


@dataclass(frozen=True, slots=True)
class Sign:
    """What a process tells of itself.

    role         its name on its machine: `flow`, `receive-1`
    home         which data folder it is on: two machines of one name differ in it
    executor_id  new at each start
    roles        the roles that it has
    """

    role: str
    host: str
    home: str
    pid: int
    executor_id: str
    roles: tuple[str, ...]
    version: str


def clock(session: Session) -> float:
    """The time by the database's clock, the one clock that all machines share; seconds since the epoch."""
    epoch = _EPOCH[session.get_bind().dialect.name]
    return float(session.scalar(select(literal_column(epoch))) or 0.0)


def beat(session: Session, sign: Sign) -> bool:
    """Give a sign of life; False where the process's work was taken over by another, which takes it for dead."""
    now = clock(session)
    row = session.get(Process, (sign.role, sign.host))
    if row is None or row.executor_id != sign.executor_id:  # its former self is gone, else it could not have started
        session.merge(_row(sign, now))
    else:
        row.beat_at = now
    return session.scalar(select(Takeover.id).where(Takeover.executor_id == sign.executor_id)) is None


def leave(session: Session, executor_id: str) -> None:
    """Forget a process that ends in good order: it is not a dead one."""
    session.execute(delete(Process).where(Process.executor_id == executor_id))


def forget_former(session: Session, host: str, roles: Collection[str], *, alone: bool) -> None:
    """Forget the processes of a machine that it has no more: those with other names than these; where it is alone with
    the index, under whatever name, all that there are."""
    former = delete(Process)
    session.execute(former if alone else former.where(Process.host == host, Process.role.not_in(roles)))


def ages(session: Session) -> Mapping[str, float]:
    """How long ago each process gave its last sign of life, in seconds, by executor id."""
    now = clock(session)
    return {row.executor_id: now - row.beat_at for row in session.scalars(select(Process))}


def all_of(session: Session) -> Sequence[Process]:
    """Every process that is remembered, alive or not."""
    return list(session.scalars(select(Process)))


def silent(session: Session, after_s: float) -> Sequence[Process]:
    """The processes that gave no sign of life for so long."""
    return list(session.scalars(select(Process).where(Process.beat_at < clock(session) - after_s)))


def forget_machine(session: Session, host: str) -> int:
    """Forget the processes of a machine, dead or alive; how many they were."""
    return len(session.execute(delete(Process).where(Process.host == host).returning(Process.role)).all())


def has_namesake(session: Session, host: str, home: str, within_s: float) -> bool:
    """Whether a machine of that name, but with another data folder, gave a sign of life lately."""
    lately = clock(session) - within_s
    rows = select(Process.role).where(Process.host == host, Process.home != home, Process.beat_at > lately)
    return session.scalars(rows).first() is not None


def may_take_over(session: Session) -> bool:
    """Whether nobody else takes over now; nobody else may until the transaction ends."""
    if session.get_bind().dialect.name != "postgresql":
        return True
    return bool(session.scalar(text(f"SELECT pg_try_advisory_xact_lock({_TAKING_OVER})")))


def condemned(session: Session, executor_ids: Collection[str]) -> frozenset[str]:
    """Those of the processes whose work was given to others once."""
    return frozenset(session.scalars(select(Takeover.executor_id).where(Takeover.executor_id.in_(executor_ids))))


def record_takeover(session: Session, executor_ids: Collection[str], by: str) -> Sequence[Takeover]:
    """Note whose work is given to others, each process once; those that were not known yet.

    by  the machine that found it dead
    """
    known = condemned(session, executor_ids)
    processes = {row.executor_id: row for row in session.scalars(select(Process))}
    now = clock(session)
    added = []
    for executor_id in sorted(set(executor_ids) - known):
        row = processes.get(executor_id)
        host = row.host if row is not None else executor_id.partition(":")[0]
        added.append(Takeover(executor_id=executor_id, host=host, by_host=by, at=now))
    session.add_all(added)
    session.flush()
    newest = session.scalar(select(func.max(Takeover.id))) or 0
    session.execute(delete(Takeover).where(Takeover.id <= newest - _REMEMBERED))
    return added


def takeovers(session: Session, limit: int) -> list[Takeover]:
    """The last take-overs, the newest first."""
    return list(session.scalars(select(Takeover).order_by(Takeover.id.desc()).limit(limit)))


def _row(sign: Sign, now: float) -> Process:
    return Process(
        role=sign.role,
        host=sign.host,
        home=sign.home,
        pid=sign.pid,
        executor_id=sign.executor_id,
        roles=list(sign.roles),
        version=sign.version,
        started_at=now,
        beat_at=now,
    )
