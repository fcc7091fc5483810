"""What waits for each role, from our own tables: how much, and since when."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from dicomnode.store.schema import (
    UNPLANNED,
    Destination,
    Job,
    JobState,
    Outbox,
    OutboxState,
    Retrieval,
    Series,
    SeriesState,
)

_Time = InstrumentedAttribute[float] | InstrumentedAttribute[float | None]


@dataclass(frozen=True, slots=True)
class Waiting:
    """`oldest_at` is when the oldest came; None where nothing waits."""

    role: str
    waiting: int
    oldest_at: float | None


@dataclass(frozen=True, slots=True)
class Lease:
    """A destination, or a retrieval, that one process works on. `until` is by the database's clock."""

    kind: str
    name: str
    owner: str
    until: float


def waiting(session: Session) -> tuple[Waiting, ...]:
    """What waits for each role: what it works on at the moment is counted too."""
    return (
        _count(session, "route", Series.closed_at, UNPLANNED, Series.state == SeriesState.CLOSED),
        _count(session, "enhance", Job.created_at, Job.state == JobState.PLANNED),
        _count(session, "derive", Job.updated_at, Job.state == JobState.ENHANCED),
        _count(session, "deliver", Outbox.created_at, Outbox.state == OutboxState.READY),
        _count(session, "retrieve", Retrieval.requested_at, Retrieval.finished_at.is_(None)),
    )


def leases(session: Session, now: float) -> tuple[Lease, ...]:
    """What is leased at `now`, the database's time."""
    destinations = select(Destination.name, Destination.lease_owner, Destination.lease_until)
    retrievals = select(Retrieval.id, Retrieval.lease_owner, Retrieval.lease_until)
    found = [
        *(("destination", *row) for row in session.execute(destinations.where(Destination.lease_until > now))),
        *(("retrieval", *row) for row in session.execute(retrievals.where(Retrieval.lease_until > now))),
    ]
    return tuple(Lease(kind, str(name), owner or "", until or now) for kind, name, owner, until in found)


def _count(session: Session, role: str, since: _Time, *conditions: ColumnElement[bool]) -> Waiting:
    count, oldest = session.execute(select(func.count(), func.min(since)).where(*conditions)).one()
    return Waiting(role, count, oldest)
