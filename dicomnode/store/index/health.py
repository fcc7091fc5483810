"""Destinations: whether they answer, whether a person paused them, and whether anything waits for them."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import ColumnElement, exists, or_, select, update
from sqlalchemy.orm import Session

from dicomnode.core.patience import Pause as Paused
from dicomnode.core.routing import PRIORITIES
from dicomnode.store.index.actions import user
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.schema import Destination, Outbox, OutboxState, Pause


class Situation(NamedTuple):
    """What is so at one destination. `urgent` and `normal`: whether something of that priority is to be sent now."""

    name: str
    lease_owner: str | None
    lease_until: float | None
    failures: int
    down_until: float | None
    paused: bool
    urgent: bool
    normal: bool

    def is_parked(self, now: float) -> bool:
        """Whether it is left alone for a while after a failure."""
        return self.down_until is not None and self.down_until > now

    def is_anothers(self, owner: str, at: float) -> bool:
        """Whether another owner holds its lease, at a time by the database's clock."""
        return self.lease_owner not in (None, owner) and (self.lease_until or 0.0) > at


def situations(session: Session, names: Collection[str], now: float) -> dict[str, Situation]:
    """The situations of destinations: one question, whose cost does not grow with what waits."""
    rows = select(
        Destination.name,
        Destination.lease_owner,
        Destination.lease_until,
        Destination.failures,
        Destination.down_until,
        exists(select(Pause.id).where(Pause.destination == Destination.name, Pause.resumed_at.is_(None))),
        _due(PRIORITIES["urgent"], now),
        _due(PRIORITIES["normal"], now),
    ).where(Destination.name.in_(names))
    return {row[0]: Situation(*row) for row in session.execute(rows)}


def failed(session: Session, name: str, error: tuple[str, str], retry: RetryPolicy, now: float) -> Destination:
    """Park a destination after it failed as a whole; its row. `error` is what and what to do."""
    row = refuses(session, name, error, now)
    row.down_until = now + retry.probe_delay_s(row.failures)
    return row


def refuses(session: Session, name: str, error: tuple[str, str], now: float) -> Destination:
    """Note that a destination rejects a calling AE title; it is not parked, for others may be welcome."""
    row = session.get_one(Destination, name)
    row.failures += 1
    row.down_since = now if row.down_since is None else row.down_since
    row.last_error, row.last_hint = error
    return row


def works(session: Session, name: str, now: float) -> float | None:
    """Note that a destination answers; how long it was down, None where it was not."""
    row = session.get_one(Destination, name)
    if row.down_since is None:
        return None
    down_s = max(0.0, now - row.down_since)
    row.failures, row.down_since, row.down_until, row.held_told_at = 0, None, None, None
    row.last_error = row.last_hint = None
    return down_s


def answers(session: Session, name: str) -> None:
    """Note that a destination is there, though it may not work for all that we call it with."""
    session.get_one(Destination, name).down_until = None


def pause(session: Session, name: str, reason: str, now: float) -> bool:
    """Send nothing to a destination until it is resumed; False where that is so already."""
    if paused(session, name) is not None:
        return False
    session.add(Pause(destination=name, paused_at=now, resumed_at=None, who=user(), reason=reason))
    return True


def resume(session: Session, name: str, now: float) -> bool:
    """Send to it again; False where it was not paused."""
    ended = session.execute(
        update(Pause)
        .where(Pause.destination == name, Pause.resumed_at.is_(None))
        .values(resumed_at=now)
        .returning(Pause.id)
    )
    return ended.first() is not None


def paused(session: Session, name: str) -> Pause | None:
    """The pause that a destination is in."""
    return session.scalars(select(Pause).where(Pause.destination == name, Pause.resumed_at.is_(None))).first()


def pauses_since(session: Session, name: str, since: float) -> list[Paused]:
    """From when until when a destination was paused after a time, and is."""
    rows = select(Pause.paused_at, Pause.resumed_at).where(
        Pause.destination == name, or_(Pause.resumed_at.is_(None), Pause.resumed_at > since)
    )
    return [(began, ended) for began, ended in session.execute(rows.order_by(Pause.id))]


def _due(priority: int, now: float) -> ColumnElement[bool]:
    return exists(
        select(Outbox.id).where(
            Outbox.destination == Destination.name,
            Outbox.state == OutboxState.READY,
            Outbox.priority == priority,
            Outbox.next_attempt_at <= now,
        )
    )
