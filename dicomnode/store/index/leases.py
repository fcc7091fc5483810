"""Leases: which process drains which destination, among all machines that share the index.

A lease is a row's owner and the time until which it is good. It is taken and renewed by one statement that names what
must be so, and by the clock of the database: machines' clocks may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from sqlalchemy import ColumnElement, func, literal, or_, select, update
from sqlalchemy.orm import Session

from dicomnode.store.schema import Destination, Process

Clock = Callable[[Session], float]
"""The time by the database's clock (`dicomnode.store.index.processes.clock`)."""

_DELIVER: Final = "deliver"
_ALIVE_S: Final = 30.0


def know(session: Session, names: Collection[str]) -> None:
    """Have a row for each destination."""
    known = set(session.scalars(select(Destination.name).where(Destination.name.in_(names))))
    session.add_all(
        Destination(
            name=name,
            lease_owner=None,
            lease_until=None,
            failures=0,
            down_since=None,
            down_until=None,
            held_told_at=None,
            last_error=None,
            last_hint=None,
        )
        for name in names
        if name not in known
    )


def take(session: Session, name: str, owner: str, now: float, until: float) -> bool:
    """Take or renew the lease of a destination; False where another owner holds it. `now` is the database's."""
    free = or_(Destination.lease_owner.is_(None), Destination.lease_owner == owner, Destination.lease_until <= now)
    taken = session.execute(
        update(Destination)
        .where(Destination.name == name, free)
        .values(lease_owner=owner, lease_until=until)
        .returning(Destination.name)
    )
    return taken.first() is not None


def renew(session: Session, owner: str, now: float, until: float) -> frozenset[str]:
    """Renew every lease that an owner still holds; the names of their destinations."""
    kept = session.execute(
        update(Destination)
        .where(Destination.lease_owner == owner, Destination.lease_until > now)
        .values(lease_until=until)
        .returning(Destination.name)
    )
    return frozenset(name for (name,) in kept)


def holders(session: Session, now: float) -> dict[str, str]:
    """Who holds the leases that are good, by destination."""
    rows = select(Destination.name, Destination.lease_owner).where(Destination.lease_until > now)
    return {name: owner for name, owner in session.execute(rows) if owner is not None}


def machines(session: Session, now: float) -> int:
    """How many machines deliver, by their signs of life."""
    rows = select(func.count(Process.host.distinct())).where(Process.role == _DELIVER, Process.beat_at > now - _ALIVE_S)
    return session.scalar(rows) or 0


def release(session: Session, owner: str, names: Collection[str] | None = None) -> None:
    """Give up an owner's leases: those of `names`, or all."""
    which = Destination.lease_owner == owner
    _free(session, which if names is None else which & Destination.name.in_(names))


def release_of_machine(session: Session, machine: str) -> None:
    """Give up the leases of a machine's former processes, for who knows that none of them lives (`owner_on`)."""
    _free(session, Destination.lease_owner.startswith(owner_on(machine, ""), autoescape=True))


def break_all(session: Session) -> None:
    """Take every lease from its owner, for who knows that none of them lives."""
    _free(session, literal(True))


def owner_on(machine: str, unique: str) -> str:
    """The name of an owner of leases; no machine's name holds a slash."""
    return f"{machine}/{unique}"


def _free(session: Session, which: ColumnElement[bool]) -> None:
    session.execute(update(Destination).where(which).values(lease_owner=None, lease_until=None))
