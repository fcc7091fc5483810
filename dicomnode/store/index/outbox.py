"""The outbox: what is to be sent where, who drains it, and what became of each attempt.

A destination is drained by whoever holds its lease. A derived object waits until the originals of its source series
have arrived at that destination, or until its time is up.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, exists, or_, select, update
from sqlalchemy.orm import Session, aliased

from dicomnode.core.types import Outcome
from dicomnode.core.types import Receipt as Answer
from dicomnode.store.schema import Destination, Instance, Origin, Outbox, OutboxState, Receipt


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Back-off doubles from `initial_s` to `maximum_s`, each with up to 10 % jitter; `patience_s` ends it."""

    initial_s: float = 30.0
    maximum_s: float = 1800.0
    patience_s: float = 72 * 3600.0

    def delay_s(self, failures: int) -> float:
        """Pause after the given number of failures in a row (1 or more)."""
        plain: float = min(self.initial_s * 2.0 ** (min(failures, 64) - 1), self.maximum_s)
        return plain * random.uniform(1.0, 1.1)  # noqa: S311  spreads retries, protects nothing


@dataclass(frozen=True, slots=True)
class DerivedOutgoing:
    """Where derived instances go, and which series' originals go first until `hold_until`. `withheld` is why they wait
    for a person or a check (`dicomnode.core.withholding`), or None."""

    destination: str
    rules: tuple[str, ...]
    calling_ae: str
    priority: int
    after_series: int
    hold_until: float
    withheld: str | None = None


def enqueue_derived(session: Session, instances: Sequence[Instance], to: DerivedOutgoing, now: float) -> None:
    """Add outbox rows for derived instances; those that are there already stay as they are."""
    known = set(
        session.scalars(
            select(Outbox.instance_row).where(
                Outbox.destination == to.destination, Outbox.instance_row.in_([row.id for row in instances])
            )
        )
    )
    session.add_all(
        Outbox(
            destination=to.destination,
            instance_row=instance.id,
            origin=Origin.DERIVED.value,
            rules=list(to.rules),
            calling_ae=to.calling_ae,
            priority=to.priority,
            state=(OutboxState.READY if to.withheld is None else OutboxState.WITHHELD).value,
            reason=to.withheld,
            after_series=to.after_series,
            hold_until=to.hold_until,
            attempts=0,
            next_attempt_at=now,
            created_at=now,
            finished_at=None,
            confirmed_at=None,
            confirmed_by=None,
        )
        for instance in instances
        if instance.id not in known
    )


def lease(session: Session, name: str, owner: str, now: float, until: float) -> Destination | None:
    """Take or renew the lease of a destination; None where another owner holds it."""
    row = session.get(Destination, name)
    if row is None:
        row = Destination(
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
        session.add(row)
    if row.lease_owner not in (None, owner) and (row.lease_until or 0.0) > now:
        return None
    row.lease_owner, row.lease_until = owner, until
    return row


def break_leases(session: Session) -> None:
    """Take every lease from its owner, for who knows that none of them lives."""
    session.execute(update(Destination).values(lease_owner=None, lease_until=None))


def release_leases(session: Session, owner: str) -> None:
    """Give up every lease of an owner that stops."""
    session.execute(
        update(Destination).where(Destination.lease_owner == owner).values(lease_owner=None, lease_until=None)
    )


def ready(
    session: Session, destination: str, now: float, limit: int, refused: Collection[str] = ()
) -> list[tuple[Outbox, Instance]]:
    """Rows to be sent now, most urgent and oldest first, all with the calling AE title of the first.

    refused  calling AE titles that the destination does not take now: their rows are passed over
    """
    passed = Outbox.calling_ae.not_in(refused)
    rows = session.execute(_ready(destination, now).where(passed).limit(limit)).all()
    return [(row, instance) for row, instance in rows if row.calling_ae == rows[0][0].calling_ae]


def record_answers(
    session: Session, answers: Sequence[Answer], retry: RetryPolicy, now: float
) -> tuple[OutboxState, ...]:
    """Store receipts and what follows from them; each row's new state. Cheaper than one by one."""
    rows = session.scalars(select(Outbox).where(Outbox.id.in_([answer.outbox_id for answer in answers])))
    held = rows.all()  # in the session from here on: none is looked up again by itself
    assert len(held) == len(answers)
    with session.no_autoflush:
        return tuple(record_answer(session, answer, retry, now) for answer in answers)


def record_answer(session: Session, answer: Answer, retry: RetryPolicy, now: float) -> OutboxState:
    """Store a receipt and what follows from it; the row's new state."""
    session.add(
        Receipt(
            outbox_row=answer.outbox_id,
            at=now,
            outcome=answer.outcome.value,
            status=answer.status,
            meaning=answer.meaning,
            hint=answer.hint,
        )
    )
    row = session.get_one(Outbox, answer.outbox_id)
    row.attempts += 1
    state = _state_after(answer, row, retry, now)
    row.state = state.value
    if state == OutboxState.READY:
        row.next_attempt_at = now + retry.delay_s(row.attempts)
    else:
        row.finished_at = now
    return state


def destination_failed(session: Session, name: str, error: tuple[str, str], retry: RetryPolicy, now: float) -> float:
    """Park a destination after it failed as a whole; until when. `error` is what and what to do."""
    row = session.get_one(Destination, name)
    row.failures += 1
    row.down_until = now + retry.delay_s(row.failures)
    row.last_error, row.last_hint = error
    return row.down_until


def destination_refuses(session: Session, name: str, error: tuple[str, str]) -> None:
    """Note that a destination rejects a calling AE title; it is not parked, for others may be welcome."""
    row = session.get_one(Destination, name)
    row.failures += 1
    row.last_error, row.last_hint = error


def destination_works(session: Session, name: str) -> None:
    row = session.get_one(Destination, name)
    row.failures, row.down_until, row.last_error, row.last_hint = 0, None, None, None


def give_up(session: Session, destination: str, retry: RetryPolicy, now: float) -> int:
    """Fail what the destination has not taken within its patience; how many rows."""
    late = (
        select(Outbox.id)
        .where(
            Outbox.destination == destination,
            Outbox.state == OutboxState.READY,
            Outbox.created_at < now - retry.patience_s,
        )
        .order_by(Outbox.id)
    )
    rows = list(session.scalars(late))
    for row in rows:
        answer = Answer(row, Outcome.FAILED, None, "not taken within the destination's patience", "see status", False)
        record_answer(session, answer, retry, now)
    return len(rows)


def _state_after(answer: Answer, row: Outbox, retry: RetryPolicy, now: float) -> OutboxState:
    if answer.outcome.arrived:
        return OutboxState.SENT
    if answer.outcome is Outcome.EXCLUDED:
        return OutboxState.EXCLUDED
    if answer.transient and now - row.created_at < retry.patience_s:
        return OutboxState.READY
    return OutboxState.FAILED


def _ready(destination: str, now: float) -> Select[Outbox, Instance]:
    sources_first = or_(Outbox.after_series.is_(None), Outbox.hold_until <= now, ~_originals_waiting())
    return (
        select(Outbox, Instance)
        .join(Instance, Instance.id == Outbox.instance_row)
        .where(
            Outbox.destination == destination,
            Outbox.state == OutboxState.READY,
            Outbox.next_attempt_at <= now,
            sources_first,
        )
        .order_by(Outbox.priority, Outbox.id)
    )


def _originals_waiting() -> ColumnElement[bool]:
    other, member = aliased(Outbox), aliased(Instance)
    return exists(
        select(other.id)
        .join(member, member.id == other.instance_row)
        .where(
            and_(
                other.destination == Outbox.destination,
                other.origin == Origin.RECEIVED.value,
                other.state.in_([OutboxState.HELD, OutboxState.READY]),
                member.series_row == Outbox.after_series,
            )
        )
    )
