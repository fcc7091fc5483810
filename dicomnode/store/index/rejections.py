"""Rejection notes that came (IHE RAD IOCM): which are unread, what they reject, and what follows from that."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from dicomnode.core.rejections import TITLES, RejectionNote
from dicomnode.core.types import RejectsPolicy
from dicomnode.store.index import jobs as job_index
from dicomnode.store.index import needs, purges
from dicomnode.store.index.replacing import UNFINISHED, Why, cancel_unsent, in_chunks, withdraw
from dicomnode.store.schema import (
    Derivation,
    Instance,
    Job,
    JobState,
    Origin,
    Outbox,
    OutboxState,
    RejectedInstance,
    Rejection,
    Series,
    SeriesState,
    Withdrawal,
    WithdrawalNote,
)

UNREAD, APPLIED, NOTED, IGNORED = "unread", "applied", "noted", "ignored"
"""States of a note: not read yet; or it cancelled something, it cancels nothing by its kind, nothing of it counts."""


@dataclass(frozen=True, slots=True)
class Authority:
    """What the sender of a note may reject; `destinations` are those that lead to it."""

    policy: RejectsPolicy
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a note: its state, of how many of the instances that it rejects, and the series they are of."""

    state: str
    reason: str
    instances: int
    deliveries: int
    jobs: int


def unread_notes(session: Session, limit: int = 20) -> list[tuple[Rejection, Instance]]:
    """Key Object Selection Documents that nobody has read yet, the oldest first."""
    rows = (
        select(Rejection, Instance)
        .join(Instance, Instance.id == Rejection.instance_row)
        .where(Rejection.state == UNREAD)
        .order_by(Rejection.id)
        .limit(limit)
    )
    return [(row, instance) for row, instance in session.execute(rows)]


def forget_note(session: Session, rejection_row: int) -> None:
    """Forget a document that was read and is no rejection note."""
    session.execute(delete(Rejection).where(Rejection.id == rejection_row, Rejection.state == UNREAD))


def not_rejected(session: Session, instances: Sequence[Instance]) -> list[Instance]:
    """Those of the instances that no note rejects that we act on."""
    rejected = _rejected_uids(session, {instance.sop_instance_uid for instance in instances})
    return [instance for instance in instances if instance.sop_instance_uid not in rejected]


def ignore_note(session: Session, rejection_row: int, title: str, reason: str, now: float) -> None:
    """Note that a note could not be read, or rejects nothing that its sender may reject."""
    session.execute(
        update(Rejection)
        .where(Rejection.id == rejection_row, Rejection.state == UNREAD)
        .values(state=IGNORED, title=title, reason=reason, read_at=now)
    )


def apply_note(
    session: Session, rejection_row: int, note: RejectionNote, authority: Authority, now: float
) -> Applied | None:
    """Act on a rejection note, once; None where that was done already.

    Deliveries that wait are cancelled, of the rejected instances and of what was derived of them; jobs on them end as
    cancelled; a series of which something is left is judged and planned again without them.
    """
    row = session.get(Rejection, rejection_row)
    if row is None or row.state != UNREAD:
        return None
    sender = session.get_one(Instance, row.instance_row).peer
    known = _versions(session, note.sop_instance_uids)
    allowed = _allowed(session, known, sender, authority)
    rejected = [one for one in known if one.sop_instance_uid in allowed]
    row.title, row.read_at = note.title, now
    row.state = IGNORED if not allowed else APPLIED if note.cancels else NOTED
    row.reason = _reason(note, {one.sop_instance_uid for one in known}, allowed, authority)
    session.add_all(RejectedInstance(rejection_row=row.id, sop_instance_uid=uid) for uid in sorted(allowed))
    session.flush()
    if row.state != APPLIED:
        return Applied(row.state, row.reason, len(allowed), 0, 0)
    why = Why(note.title, None, f"rejected by its sender or holder: {TITLES[note.title]}", now)
    deliveries = cancel_unsent(session, {one.id for one in rejected}, why.reason, now)
    _withdraw_derived(session, rejected, why, (row.instance_row, authority))
    jobs = _cancel_jobs(session, {one.id for one in rejected}, {one.series_row for one in rejected}, why)
    return Applied(row.state, row.reason, len(allowed), deliveries, jobs)


def _versions(session: Session, sop_instance_uids: Collection[str]) -> list[Instance]:
    found: list[Instance] = []
    for uids in in_chunks(sop_instance_uids):
        found.extend(session.scalars(select(Instance).where(Instance.sop_instance_uid.in_(uids)).order_by(Instance.id)))
    return found


def _allowed(session: Session, known: Sequence[Instance], sender: str, authority: Authority) -> set[str]:
    """The SOP Instance UIDs that the sender of a note may reject: of all that it names, what it sent first, and what
    was delivered to it."""
    if authority.policy is RejectsPolicy.NONE or not sender:
        return set()
    if authority.policy is RejectsPolicy.ANY:
        return {one.sop_instance_uid for one in known}
    sent = {
        one.sop_instance_uid
        for one in known
        if one.version == 0 and one.origin == Origin.RECEIVED and one.peer == sender
    }
    held: set[int] = set()
    for rows in in_chunks([one.id for one in known]):
        delivered = select(Outbox.instance_row).where(
            Outbox.instance_row.in_(rows),
            Outbox.destination.in_(authority.destinations),
            Outbox.state == OutboxState.SENT,
        )
        held.update(session.scalars(delivered))
    return sent | {one.sop_instance_uid for one in known if one.id in held}


def _reason(note: RejectionNote, known: set[str], allowed: set[str], authority: Authority) -> str:
    parts = [f"{TITLES[note.title]}: {len(allowed)} of {len(note.sop_instance_uids)} instances"]
    if unknown := len(set(note.sop_instance_uids) - known):
        parts.append(f"{unknown} are not known here")
    if others := len(known - allowed):
        parts.append(f'{others} are not its sender\'s to reject (rejects = "{authority.policy.value}")')
    if allowed and not note.cancels:
        parts.append("they were right, so nothing is cancelled")
    return "; ".join(parts)


def _withdraw_derived(session: Session, rejected: Sequence[Instance], why: Why, note: tuple[int, Authority]) -> None:
    """Where the note rejects what we derived, it holds no longer; its sender needs not be told."""
    derived = {one.id for one in rejected if one.origin == Origin.DERIVED}
    withdraw(session, derived, why)
    note_row, authority = note
    for rows in in_chunks(derived):
        withdrawals = session.scalars(select(Withdrawal.id).where(Withdrawal.instance_row.in_(rows))).all()
        session.add_all(
            WithdrawalNote(withdrawal_row=row, destination=name, note_row=note_row, at=why.at)
            for row in withdrawals
            for name in authority.destinations
            if not session.scalar(
                select(exists().where(WithdrawalNote.withdrawal_row == row, WithdrawalNote.destination == name))
            )
        )
    session.flush()


def _cancel_jobs(session: Session, rejected: set[int], series_rows: Collection[int], why: Why) -> int:
    """End the jobs on rejected instances, those that wait for other series too, and withdraw what they derived; how
    many jobs."""
    studies = set(session.scalars(select(Series.study_row).where(Series.id.in_(series_rows))))
    jobs = session.scalars(
        select(Job).join(Series, Series.id == Job.series_row).where(Series.study_row.in_(studies)).order_by(Job.id)
    ).all()
    touched = [(job, hit) for job in jobs if (hit := _hit(job, rejected))]
    cancelled = sum(_cancel(session, job, hit, why) for job, hit in touched)
    waiting = needs.forget_rejected(session, studies, rejected, why.at)
    for series_row in sorted({job.series_row for job, _ in touched} | waiting):
        _judge_again(session, series_row, why.at)
    return cancelled


def _hit(job: Job, rejected: set[int]) -> set[int]:
    """The rows of a job's slices that are rejected, or where one of another series is that its engines took."""
    others = job_index.other_inputs(job).values()
    beside = {
        own
        for other in others
        for own, row in zip(job.instance_rows, other["instance_rows"], strict=False)
        if row in rejected
    }
    return beside | rejected.intersection(job.instance_rows)


def _cancel(session: Session, job: Job, rejected: set[int], why: Why) -> bool:
    """Cancel a job that has not derived; withdraw what it has derived from the rejected ones, and cancel it where
    nothing is left of that. Whether it ended as cancelled."""
    if job.state in (*UNFINISHED, JobState.WITHHELD):
        job_index.end_job(session, job.id, JobState.CANCELLED, [why.reason], why.at)
        return True
    derived = session.scalars(select(Derivation).where(Derivation.job_row == job.id)).all()
    gone = {one.instance_row for one in derived if one.by_volume or one.source_row in rejected}
    withdraw(session, gone, why)
    if job.state != JobState.DERIVED or any(one.instance_row not in gone for one in derived):
        return False
    job_index.end_job(session, job.id, JobState.CANCELLED, [why.reason], why.at)
    return True


def _judge_again(session: Session, series_row: int, now: float) -> None:
    """Judge and plan a closed series again where something is left of it."""
    active = select(Instance).where(Instance.series_row == series_row, Instance.active)
    left = not_rejected(session, session.scalars(active).all())
    if left and purges.purge_of(session, series_row) is None:  # else its files are deleted
        session.execute(
            update(Series)
            .where(Series.id == series_row, Series.state == SeriesState.CLOSED)
            .values(state=SeriesState.RECEIVING.value, due_at=now)
            .execution_options(synchronize_session=False)
        )


def rejections_of(session: Session, series_row: int) -> list[tuple[Rejection, Instance, int]]:
    """The notes that reject instances of a series, with the document and how many of them, the oldest first."""
    members = select(Instance.sop_instance_uid).where(Instance.series_row == series_row)
    count = func.count(RejectedInstance.id)
    rows = (
        select(Rejection, Instance, count)
        .join(RejectedInstance, RejectedInstance.rejection_row == Rejection.id)
        .join(Instance, Instance.id == Rejection.instance_row)
        .where(RejectedInstance.sop_instance_uid.in_(members))
        .group_by(Rejection.id, Instance.id)
        .order_by(Rejection.id)
    )
    return [(row, instance, instances) for row, instance, instances in session.execute(rows)]


def arrived(session: Session, rejection_row: int, series_row: int) -> list[tuple[str, int]]:
    """Where instances of a series that a note rejects had arrived, and how many."""
    rows = session.execute(
        select(Outbox.destination, func.count())
        .join(Instance, Instance.id == Outbox.instance_row)
        .join(RejectedInstance, RejectedInstance.sop_instance_uid == Instance.sop_instance_uid)
        .where(
            RejectedInstance.rejection_row == rejection_row,
            Instance.series_row == series_row,
            Outbox.state == OutboxState.SENT,
        )
        .group_by(Outbox.destination)
        .order_by(Outbox.destination)
    )
    return [(destination, instances) for destination, instances in rows]


def notes_in(session: Session, series_row: int) -> list[Rejection]:
    """The notes among the instances of a series."""
    rows = select(Rejection).join(Instance, Instance.id == Rejection.instance_row)
    return list(session.scalars(rows.where(Instance.series_row == series_row).order_by(Rejection.id)))


def ignored_notes(session: Session, limit: int) -> list[tuple[Rejection, Instance]]:
    """The newest notes of which nothing counts."""
    rows = (
        select(Rejection, Instance)
        .join(Instance, Instance.id == Rejection.instance_row)
        .where(Rejection.state == IGNORED)
        .order_by(Rejection.id.desc())
        .limit(limit)
    )
    return [(row, instance) for row, instance in session.execute(rows)]


def holds() -> ColumnElement[bool]:
    """Of an Instance in a query: nobody has rejected it, and nothing has taken its place."""
    rejected = (
        exists()
        .where(RejectedInstance.sop_instance_uid == Instance.sop_instance_uid)
        .where(Rejection.id == RejectedInstance.rejection_row, Rejection.state == APPLIED)
    )
    return ~or_(exists().where(Withdrawal.instance_row == Instance.id), rejected)


def _rejected_uids(session: Session, sop_instance_uids: Collection[str]) -> set[str]:
    found: set[str] = set()
    for uids in in_chunks(sop_instance_uids):
        rows = (
            select(RejectedInstance.sop_instance_uid)
            .join(Rejection, Rejection.id == RejectedInstance.rejection_row)
            .where(RejectedInstance.sop_instance_uid.in_(uids), Rejection.state == APPLIED)
        )
        found.update(session.scalars(rows))
    return found
