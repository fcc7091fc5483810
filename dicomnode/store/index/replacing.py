"""What replaces what: jobs on one stack after another, and derived instances that hold no longer.

A slice that comes late or changes makes a new job. What that derives anew takes the place of what the job before it
derived of the same sources; what both derived stays. Nothing is deleted: what holds no longer is not sent any more, and
where it was sent a rejection note may follow (`dicomnode.flow.withdrawing`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from dicomnode.core.rules import Leaving, leaving_of
from dicomnode.core.withholding import DISCARDED, NEVER, NOT_CHECKED
from dicomnode.store.index import jobs as job_index
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

UNFINISHED: Final = (JobState.PLANNED, JobState.ENHANCED)
REPLACED: Final = "113001"
"""Rejected for Quality Reasons (PS3.16 CID 7010): what IHE RAD IOCM has for what is not to be used any more."""

_UNSENT: Final = (
    OutboxState.HELD, OutboxState.READY, OutboxState.WITHHELD, OutboxState.FAILED, OutboxState.EXCLUDED,
)  # fmt: skip
"""What may still be sent: a person may have the last two tried again."""

_TOLD_OF: Final = "a rejection note told of it there, and it holds again"
_ROWS_A_STATEMENT: Final = 500

_Key = TypeVar("_Key", int, str)


@dataclass(frozen=True, slots=True)
class Why:
    """Why derived instances hold no longer: columns of a `Withdrawal`. `job_row` is None where they were rejected."""

    title: str
    job_row: int | None
    reason: str
    at: float


class Revived(NamedTuple):
    """Derived instances that hold, and the rows of those of them that did not before."""

    instances: list[Instance]
    again: set[int]


def supersede_unfinished(session: Session, jobs: Iterable[Job], now: float) -> list[str]:
    """End what new jobs make pointless: earlier ones of the same chain on the same sources that have not derived yet.

    Returns the results at rest that nobody will ask for any more.
    """
    pointless = []
    for job in jobs:
        for earlier in _earlier(session, job, (*UNFINISHED, JobState.WITHHELD)):
            if earlier.state == JobState.WITHHELD and earlier.result is not None:
                pointless.append(earlier.result)
            job_index.end_job(
                session, earlier.id, JobState.SUPERSEDED, [f"other slices came: job {job.id} takes its place"], now
            )
            earlier.superseded_by, job.supersedes = job.id, earlier.id
    return pointless


def formers(session: Session, job: Job) -> list[Job]:
    """Earlier jobs that derived from the same stack by the same chain and are not superseded, the newest first."""
    return [earlier for earlier in _earlier(session, job, (JobState.DERIVED,)) if earlier.superseded_by is None]


def replaced_series(session: Session, job: Job, leaving: Leaving) -> list[str]:
    """The Series Instance UIDs that an output of a job will take the place of, if it has others."""
    found = (series_of_output(former, leaving) for former in formers(session, job))
    return list(dict.fromkeys(uid for uid in found if uid is not None))


def record_derivations(session: Session, job: Job, made: Sequence[tuple[Instance, int]], *, by_volume: bool) -> None:
    """Note what a job derived: (derived instance, row of the source slice at its place)."""
    known = set(session.scalars(select(Derivation.instance_row).where(Derivation.job_row == job.id)))
    session.add_all(
        Derivation(job_row=job.id, instance_row=instance.id, source_row=source_row, by_volume=by_volume)
        for instance, source_row in made
        if instance.id not in known
    )
    session.flush()


def repeat(session: Session, job: Job, former: Job, now: float) -> list[list[Instance]]:
    """End a job whose sources, engines and settings are those of a former one: what that derived is its own too.

    Returns the derived instances of each of its outputs.
    """
    derivations = session.scalars(select(Derivation).where(Derivation.job_row == former.id).order_by(Derivation.id))
    session.add_all(
        Derivation(job_row=job.id, instance_row=one.instance_row, source_row=one.source_row, by_volume=one.by_volume)
        for one in derivations.all()
    )
    job.stages, job.derived_series = list(former.stages), list(former.derived_series)
    job.review, job.result = former.review, f"{job.id}-{(former.result or '').partition('-')[2]}"
    job_index.end_job(
        session, job.id, JobState.DERIVED, [f"what an engine reads is as it was for job {former.id}"], now
    )
    session.flush()
    supersede(session, job, now)
    return [_members(session, job, uid) for uid in job.derived_series]


def supersede(session: Session, job: Job, now: float) -> int:
    """Withdraw what earlier jobs derived where this one derived other; how many instances. It has derived."""
    own = _derived_rows(session, job)
    replaced = 0
    for earlier in formers(session, job):
        before = {
            row
            for output in job.content["outputs"]
            if (uid := series_of_output(earlier, leaving_of(output))) is not None
            for row in _derived_rows(session, earlier, uid)
        }
        gone = before - own
        reason = f"replaced by what job {job.id} derived, after a slice came late or changed"
        withdraw(session, gone, Why(title=REPLACED, job_row=job.id, reason=reason, at=now))
        earlier.superseded_by, job.supersedes = job.id, earlier.id
        if gone and gone == before:
            earlier.state = JobState.SUPERSEDED.value
            earlier.updated_at = now
        replaced += len(gone)
    for earlier in _earlier(session, job, (JobState.FAILED, JobState.REFUSED)):
        said = [*earlier.reasons, f"job {job.id} could do it, after a slice came late or changed"]
        job_index.end_job(session, earlier.id, JobState.SUPERSEDED, said, now)
        earlier.superseded_by = job.id
    return replaced


def withdraw(session: Session, instance_rows: Collection[int], why: Why) -> None:
    """Mark derived instances as no longer valid, and do not send them any more. A rejection outdoes a replacement."""
    for rows in in_chunks(instance_rows):
        known = {
            row.instance_row: row
            for row in session.scalars(select(Withdrawal).where(Withdrawal.instance_row.in_(rows)))
        }
        for row in rows:
            if row not in known:
                session.add(Withdrawal(instance_row=row, settled=False, **asdict(why)))
            elif why.job_row is None:
                known[row].title, known[row].job_row, known[row].reason = why.title, None, why.reason
                known[row].settled = False
    session.flush()
    cancel_unsent(session, instance_rows, why.reason, why.at)


def cancel_unsent(session: Session, instance_rows: Collection[int], reason: str, now: float) -> int:
    """Keep instances from being sent where they have not arrived yet; how many deliveries."""
    cancelled = 0
    for rows in in_chunks(instance_rows):
        done = session.execute(
            update(Outbox)
            .where(Outbox.instance_row.in_(rows), Outbox.state.in_(_UNSENT))
            .values(state=OutboxState.CANCELLED.value, reason=reason, finished_at=now)
            .returning(Outbox.id)
            .execution_options(synchronize_session=False)
        )
        cancelled += len(done.all())
    return cancelled


def revive(session: Session, instances: Sequence[Instance]) -> Revived:
    """Let derived instances hold again that another job had replaced: what they were made of came back.

    Where a rejection note has told of them they have to be sent again: `resume`. What was rejected does not hold.
    """
    rejected: set[int] = set()
    revived: set[int] = set()
    for rows in in_chunks([instance.id for instance in instances]):
        for withdrawal in session.scalars(select(Withdrawal).where(Withdrawal.instance_row.in_(rows))).all():
            if withdrawal.job_row is None:
                rejected.add(withdrawal.instance_row)
                continue
            revived.add(withdrawal.instance_row)
            told = session.scalars(
                delete(WithdrawalNote)
                .where(WithdrawalNote.withdrawal_row == withdrawal.id)
                .returning(WithdrawalNote.destination)
            ).all()
            _forget_arrival(session, withdrawal.instance_row, told)
            session.delete(withdrawal)
    session.flush()
    return Revived([instance for instance in instances if instance.id not in rejected], revived)


def resume(session: Session, revived: Revived, destination: str, withheld: str | None, now: float) -> None:
    """Send what holds again to a destination for which it had been cancelled, unless a person discarded it. It waits
    from now on, as what is new does."""
    state = OutboxState.READY if withheld is None else OutboxState.WITHHELD
    for rows in in_chunks(revived.again):
        session.execute(
            update(Outbox)
            .where(
                Outbox.instance_row.in_(rows),
                Outbox.destination == destination,
                Outbox.state == OutboxState.CANCELLED,
                or_(Outbox.reason.is_(None), Outbox.reason != DISCARDED),
            )
            .values(
                state=state.value,
                reason=withheld,
                finished_at=None,
                created_at=now,
                next_attempt_at=NEVER if withheld not in (None, NOT_CHECKED) else now,
            )
            .execution_options(synchronize_session=False)
        )


def _forget_arrival(session: Session, instance_row: int, destinations: Sequence[str]) -> None:
    """A destination that was told that an instance holds no longer may have hidden it: it is as if it was not sent."""
    session.execute(
        update(Outbox)
        .where(
            Outbox.instance_row == instance_row,
            Outbox.destination.in_(destinations),
            Outbox.state == OutboxState.SENT,
        )
        .values(state=OutboxState.CANCELLED.value, reason=_TOLD_OF, confirmed_at=None, confirmed_by=None)
        .execution_options(synchronize_session=False)
    )


def _earlier(session: Session, job: Job, states: Sequence[JobState]) -> list[Job]:
    """Jobs before this one by the same chain, on the same stack or on one that shares a source with it (a corrected
    attribute may have moved its slices to another stack); the newest first."""
    rows = session.scalars(
        select(Job)
        .where(Job.series_row == job.series_row, Job.generation <= job.generation, Job.state.in_(states))
        .order_by(Job.id.desc())
    ).all()
    before = [one for one in rows if one.generation < job.generation or _is_made_again(one, job)]
    alike = [earlier for earlier in before if _chain(earlier.content) == _chain(job.content)]
    if not alike:
        return []
    own = _source_uids(session, job)
    return [
        earlier
        for earlier in alike
        if earlier.content["stack_key"] == job.content["stack_key"] or own & _source_uids(session, earlier)
    ]


def _is_made_again(earlier: Job, job: Job) -> bool:
    """Whether a job was made beside an earlier one as another series that its rule needs was closed again."""
    of_needs = "inputs" in earlier.content and "inputs" in job.content
    return of_needs and earlier.id < job.id and earlier.content["rules"] == job.content["rules"]


def _chain(content: dict[str, Any]) -> tuple[Any, ...]:
    """What a job does: one that only tries a version out takes the place of none that delivers."""
    return content["engines"], content["settings"], content.get("kind", "job")


def _source_uids(session: Session, job: Job) -> set[str]:
    return {instance.sop_instance_uid for instance in job_index.job_instances(session, job)}


def series_of_output(job: Job, leaving: Leaving) -> str | None:
    """The Series Instance UID of what an engine of a job's chain made, where that leaves."""
    outputs = [leaving_of(output) for output in job.content["outputs"]]
    return job.derived_series[outputs.index(leaving)] if leaving in outputs and job.derived_series else None


def _derived_rows(session: Session, job: Job, series_instance_uid: str | None = None) -> set[int]:
    rows = select(Derivation.instance_row).where(Derivation.job_row == job.id)
    if series_instance_uid is not None:
        rows = (
            rows.join(Instance, Instance.id == Derivation.instance_row)
            .join(Series, Series.id == Instance.series_row)
            .where(Series.series_instance_uid == series_instance_uid)
        )
    return set(session.scalars(rows))


def _members(session: Session, job: Job, series_instance_uid: str) -> list[Instance]:
    rows = (
        select(Instance)
        .join(Derivation, Derivation.instance_row == Instance.id)
        .join(Series, Series.id == Instance.series_row)
        .where(Derivation.job_row == job.id, Series.series_instance_uid == series_instance_uid)
        .order_by(Derivation.id)
    )
    return list(session.scalars(rows))


def in_chunks(keys: Collection[_Key]) -> Iterator[list[_Key]]:
    """Row ids or UIDs in order, as many at a time as any database takes in one statement."""
    ordered = sorted(keys)
    for start in range(0, len(ordered), _ROWS_A_STATEMENT):
        yield ordered[start : start + _ROWS_A_STATEMENT]
