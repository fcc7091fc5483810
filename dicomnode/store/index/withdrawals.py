"""Derived instances that hold no longer though they were delivered: which a destination is to be told of, and when."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, exists, func, select, update
from sqlalchemy.orm import Session

from dicomnode.store.schema import (
    Derivation,
    Instance,
    Job,
    JobState,
    Origin,
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
        .where(~Withdrawal.settled, Outbox.destination == destination, Outbox.state == OutboxState.SENT, ~told)
        .order_by(Withdrawal.id)
    )
    notes: dict[tuple[int, str, int | None], list[Withdrawn]] = {}
    for row in rows:
        one = Withdrawn(*row)
        notes.setdefault((one.series.study_row, one.withdrawal.title, one.withdrawal.job_row), []).append(one)
    return [
        note for (_, _, job_row), note in notes.items() if job_row is None or _arrived(session, job_row, destination)
    ]


def settle(session: Session, destinations: Collection[str], before: float) -> int:
    """Settle withdrawals from before a time of which none of the destinations is to be told any more; how many.

    What is being sent as it is withdrawn may still arrive: hence the time.
    """
    told = exists().where(
        WithdrawalNote.withdrawal_row == Withdrawal.id, WithdrawalNote.destination == Outbox.destination
    )
    to_tell = exists().where(
        Outbox.instance_row == Withdrawal.instance_row,
        Outbox.destination.in_(destinations),
        Outbox.state == OutboxState.SENT,
        ~told,
    )
    settled = session.execute(
        update(Withdrawal)
        .where(~Withdrawal.settled, Withdrawal.at < before, ~to_tell)
        .values(settled=True)
        .returning(Withdrawal.id)
        .execution_options(synchronize_session=False)
    )
    return len(settled.all())


def readable_instances(session: Session, withdrawn: Sequence[Withdrawn]) -> list[Instance]:
    """Instances that may tell of patient and study, best first: what is withdrawn, or the newest of its study, where
    retention has deleted that."""
    study = withdrawn[0].series.study_row
    newest = (
        select(Instance)
        .join(Series, Series.id == Instance.series_row)
        .where(Series.study_row == study, Instance.active)
        .order_by(Instance.id.desc())
        .limit(1)
    )
    return [withdrawn[0].instance, *session.scalars(newest)]


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


def counts(session: Session) -> tuple[int, int, int]:
    """How many instances hold no longer; how many deliveries of them arrived; of how many of these a note tells."""
    arrived = (
        select(func.count())
        .select_from(Withdrawal)
        .join(Outbox, Outbox.instance_row == Withdrawal.instance_row)
        .where(Outbox.state == OutboxState.SENT)
    )
    told = arrived.join(
        WithdrawalNote,
        and_(WithdrawalNote.withdrawal_row == Withdrawal.id, WithdrawalNote.destination == Outbox.destination),
    )
    instances = session.scalar(select(func.count()).select_from(Withdrawal)) or 0
    return instances, session.scalar(arrived) or 0, session.scalar(told) or 0


def reasons_of(session: Session, series_row: int) -> dict[str, list[int]]:
    """Why instances of a derived series hold no longer, with the rows of their withdrawals."""
    rows = session.execute(
        select(Withdrawal.reason, Withdrawal.id)
        .join(Instance, Instance.id == Withdrawal.instance_row)
        .where(Instance.series_row == series_row)
        .order_by(Withdrawal.id)
    )
    found: dict[str, list[int]] = {}
    for reason, row in rows:
        found.setdefault(reason, []).append(row)
    return found


def whereabouts(session: Session, withdrawal_rows: Collection[int]) -> list[tuple[str, int, int]]:
    """Where instances had arrived that hold no longer: destination, how many, of how many of them it was told."""
    told = and_(WithdrawalNote.withdrawal_row == Withdrawal.id, WithdrawalNote.destination == Outbox.destination)
    rows = session.execute(
        select(Outbox.destination, func.count(Outbox.id), func.count(WithdrawalNote.id))
        .join(Withdrawal, Withdrawal.instance_row == Outbox.instance_row)
        .outerjoin(WithdrawalNote, told)
        .where(Withdrawal.id.in_(withdrawal_rows), Outbox.state == OutboxState.SENT)
        .group_by(Outbox.destination)
        .order_by(Outbox.destination)
    )
    return [(destination, held, of_these) for destination, held, of_these in rows]


def told_by(session: Session, series_row: int) -> list[tuple[str, int]]:
    """Of a series of notes of ours: which destinations they tell, and of how many instances."""
    rows = session.execute(
        select(WithdrawalNote.destination, func.count())
        .join(Instance, Instance.id == WithdrawalNote.note_row)
        .where(Instance.series_row == series_row, Instance.origin == Origin.DERIVED)
        .group_by(WithdrawalNote.destination)
        .order_by(WithdrawalNote.destination)
    )
    return [(destination, instances) for destination, instances in rows]


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
