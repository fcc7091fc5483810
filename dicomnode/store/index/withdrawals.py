"""Derived instances that hold no longer though they were delivered: which a destination is to be told of, and when."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from dicomnode.store.schema import (
    Derivation,
    Instance,
    Job,
    JobState,
    Outbox,
    OutboxState,
    Series,
    Withdrawal,
    WithdrawalNote,
)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """One instance that a destination holds and that holds no longer; `delivery` is how it came there."""

    withdrawal: Withdrawal
    instance: Instance
    series: Series
    delivery: Outbox


def due_withdrawals(session: Session, destination: str) -> list[list[Withdrawn]]:
    """What a destination is to be told of now, each list by one note: of one study, for one reason.

    What was replaced waits until all that takes its place has arrived there; what was rejected does not wait.
    """
    told = exists().where(WithdrawalNote.withdrawal_row == Withdrawal.id, WithdrawalNote.destination == destination)
    rows = session.execute(
        select(Withdrawal, Instance, Series, Outbox)
        .join(Instance, Instance.id == Withdrawal.instance_row)
        .join(Series, Series.id == Instance.series_row)
        .join(Outbox, Outbox.instance_row == Instance.id)
        .where(Outbox.destination == destination, Outbox.state == OutboxState.SENT, ~told)
        .order_by(Withdrawal.id)
    )
    notes: dict[tuple[int, str, int | None], list[Withdrawn]] = {}
    for row in rows:
        one = Withdrawn(*row)
        notes.setdefault((one.series.study_row, one.withdrawal.title, one.withdrawal.job_row), []).append(one)
    return [
        note for (_, _, job_row), note in notes.items() if job_row is None or _arrived(session, job_row, destination)
    ]


def record_note(session: Session, withdrawn: Sequence[Withdrawn], destination: str, note_row: int, now: float) -> None:
    """Note which document tells a destination of what."""
    session.add_all(
        WithdrawalNote(withdrawal_row=one.withdrawal.id, destination=destination, note_row=note_row, at=now)
        for one in withdrawn
    )


def still_due(session: Session, withdrawn: Sequence[Withdrawn], destination: str) -> bool:
    """Whether nobody has told the destination meanwhile, and nothing of it holds again."""
    rows = [one.withdrawal.id for one in withdrawn]
    there = session.scalars(select(Withdrawal.id).where(Withdrawal.id.in_(rows))).all()
    told = select(WithdrawalNote.id).where(
        WithdrawalNote.withdrawal_row.in_(rows), WithdrawalNote.destination == destination
    )
    return len(there) == len(rows) and session.scalar(told.limit(1)) is None


def withdrawals_of(session: Session, series_row: int) -> list[tuple[Withdrawal, Instance]]:
    """Instances of a derived series that hold no longer."""
    rows = (
        select(Withdrawal, Instance)
        .join(Instance, Instance.id == Withdrawal.instance_row)
        .where(Instance.series_row == series_row)
        .order_by(Withdrawal.id)
    )
    return [(withdrawal, instance) for withdrawal, instance in session.execute(rows)]


def notes_on(session: Session, withdrawal_rows: Collection[int]) -> list[WithdrawalNote]:
    """Which destinations are told of withdrawals, and by which document."""
    rows = select(WithdrawalNote).where(WithdrawalNote.withdrawal_row.in_(withdrawal_rows))
    return list(session.scalars(rows.order_by(WithdrawalNote.id)))


def _arrived(session: Session, job_row: int, destination: str) -> bool:
    """Whether all that takes the place of what was replaced has arrived; none of it may be there to come."""
    job = session.get_one(Job, job_row)
    while job.superseded_by is not None:
        job = session.get_one(Job, job.superseded_by)
    if job.state == JobState.CANCELLED:  # its sources were rejected: nothing will take the place any more
        return True
    made = select(Derivation.instance_row).where(Derivation.job_row == job.id)
    states = session.scalars(
        select(Outbox.state).where(Outbox.instance_row.in_(made), Outbox.destination == destination)
    ).all()
    return bool(states) and all(state == OutboxState.SENT for state in states)
