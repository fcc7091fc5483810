"""Deliveries as a person means them: those of a destination, a study, a series or an instance, in some states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import Session

from dicomnode.store.schema import Destination, Instance, Outbox, OutboxState, Receipt, Series, Study


@dataclass(frozen=True, slots=True)
class Which:
    """Deliveries that a person means; None leaves open."""

    states: tuple[OutboxState, ...]
    destination: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Deliveries of one series to one destination that are in one state for one reason; `since` when they wait or
    ended, the earliest; `last_outbox_id` is one of them."""

    destination: str
    state: str
    series_instance_uid: str
    reason: str | None
    instances: int
    since: float
    last_outbox_id: int


def groups(session: Session, which: Which, limit: int) -> list[Group]:
    """The deliveries in groups, the latest first."""
    newest = func.max(Outbox.id)
    rows = session.execute(
        select(
            Outbox.destination,
            Outbox.state,
            Series.series_instance_uid,
            Outbox.reason,
            func.count(),
            func.min(func.coalesce(Outbox.finished_at, Outbox.created_at)),
            newest,
        )
        .join(Instance, Instance.id == Outbox.instance_row)
        .join(Series, Series.id == Instance.series_row)
        .where(*_meant(which))
        .group_by(Outbox.destination, Outbox.state, Series.series_instance_uid, Outbox.reason)
        .order_by(newest.desc())
        .limit(limit)
    )
    return [Group(*row) for row in rows]


def counts(session: Session, which: Which) -> dict[str, int]:
    """How many there are, by destination."""
    rows = select(Outbox.destination, func.count()).where(*_meant(which)).group_by(Outbox.destination)
    return {destination: count for destination, count in session.execute(rows)}  # noqa: C416  a Row is no tuple to mypy


def last_receipt(session: Session, outbox_row: int) -> Receipt | None:
    """The answer to the last attempt at a delivery."""
    return session.scalars(
        select(Receipt).where(Receipt.outbox_row == outbox_row).order_by(Receipt.id.desc()).limit(1)
    ).first()


def send_again(session: Session, which: Which, now: float, limit: int) -> int:
    """Have deliveries made, from the start: at most `limit` of them; how many. Their receipts stay.

    Back-off and patience begin anew. What our configuration kept from a destination is judged by it again. A
    destination that is parked is tried at once.
    """
    return _changed(
        session,
        which,
        limit,
        state=OutboxState.READY.value,
        attempts=0,
        created_at=now,
        next_attempt_at=now,
        finished_at=None,
        confirmed_at=None,
        confirmed_by=None,
    )


def try_now(session: Session, destination: str, now: float) -> None:
    """End the back-off of a destination that is parked."""
    session.execute(
        update(Destination).where(Destination.name == destination, Destination.down_until > now).values(down_until=now)
    )


def cancel(session: Session, which: Which, reason: str, now: float, limit: int) -> int:
    """Have deliveries not made, at most `limit` of them; how many."""
    return _changed(session, which, limit, state=OutboxState.CANCELLED.value, reason=reason, finished_at=now)


def _changed(session: Session, which: Which, limit: int, **values: Any) -> int:
    rows = list(session.scalars(_rows(which).order_by(Outbox.id).limit(limit)))
    if rows:
        session.execute(update(Outbox).where(Outbox.id.in_(rows)).values(**values))
    return len(rows)


def _rows(which: Which) -> Select[int]:
    return select(Outbox.id).where(*_meant(which))


def _meant(which: Which) -> list[ColumnElement[bool]]:
    meant: list[ColumnElement[bool]] = [Outbox.state.in_(which.states)]
    if which.destination is not None:
        meant.append(Outbox.destination == which.destination)
    members = select(Instance.id).join(Series, Series.id == Instance.series_row)
    narrowed = members
    if which.study_instance_uid is not None:
        narrowed = narrowed.join(Study, Study.id == Series.study_row).where(
            Study.study_instance_uid == which.study_instance_uid
        )
    if which.series_instance_uid is not None:
        narrowed = narrowed.where(Series.series_instance_uid == which.series_instance_uid)
    if which.sop_instance_uid is not None:
        narrowed = narrowed.where(Instance.sop_instance_uid == which.sop_instance_uid)
    return meant if narrowed is members else [*meant, Outbox.instance_row.in_(narrowed)]
