"""Questions about the whole index, for `status` and `why`. Nothing here changes a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, literal, or_, select
from sqlalchemy.orm import Session

from dicomnode.store.schema import (
    Association,
    Derivation,
    Destination,
    Instance,
    Job,
    JobState,
    Origin,
    Outbox,
    OutboxState,
    Plan,
    Process,
    Receipt,
    Series,
    SeriesState,
    Study,
)


def counts(session: Session) -> dict[str, int]:
    """How much of what there is."""

    def count(kind: type[Study | Series | Instance], *where: object) -> int:
        return session.scalar(select(func.count()).select_from(kind).where(*where)) or 0  # type: ignore[arg-type]

    return {
        "studies": count(Study),
        "series_received": count(Series, Series.origin == Origin.RECEIVED),
        "series_derived": count(Series, Series.origin == Origin.DERIVED),
        "series_arriving": count(Series, Series.state == SeriesState.RECEIVING),
        "instances_received": count(Instance, Instance.origin == Origin.RECEIVED),
        "instances_derived": count(Instance, Instance.origin == Origin.DERIVED),
        "bytes": int(session.scalar(select(func.coalesce(func.sum(Instance.size_bytes), 0))) or 0),
    }


def job_counts(session: Session) -> dict[str, int]:
    """Jobs by state, every state named."""
    found = session.execute(select(Job.state, func.count()).group_by(Job.state)).all()
    return {state.value: 0 for state in JobState} | dict(found)


def outbox_counts(session: Session) -> dict[str, dict[str, int]]:
    """Outbox rows by destination and state, every state named."""
    found = session.execute(
        select(Outbox.destination, Outbox.state, func.count()).group_by(Outbox.destination, Outbox.state)
    )
    by_destination: dict[str, dict[str, int]] = {}
    for destination, state, count in found:
        by_destination.setdefault(destination, {each.value: 0 for each in OutboxState})[state] = count
    return by_destination


def destinations(session: Session) -> list[Destination]:
    return list(session.scalars(select(Destination).order_by(Destination.name)))


def processes(session: Session) -> list[Process]:
    return list(session.scalars(select(Process).order_by(Process.role)))


def open_associations(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Association).where(Association.ended_at.is_(None))) or 0


def unrouted_series(session: Session, limit: int) -> list[Series]:
    """Received series of which no rule wanted any instance, nor any stack; the newest first."""
    forwarded = select(Instance.id).where(Instance.series_row == Series.id, Instance.matched)
    planned = select(Job.id).where(Job.series_row == Series.id)
    rows = (
        select(Series)
        .where(
            Series.origin == Origin.RECEIVED,
            Series.state == SeriesState.CLOSED,
            Series.generation > 0,  # else it holds only what a destination sent back
            ~forwarded.exists(),
            ~planned.exists(),
        )
        .order_by(Series.id.desc())
        .limit(limit)
    )
    return list(session.scalars(rows))


def failed_plans(session: Session, limit: int) -> list[tuple[Series, str]]:
    """Series whose last closing could not be planned, and nobody has decided on, the newest first; why."""
    reason = Plan.content["failed"].as_string()
    rows = (
        select(Series, reason)
        .join(Plan, and_(Plan.series_row == Series.id, Plan.generation == Series.generation))
        .where(reason.is_not(None), Plan.review == "")
        .order_by(Series.id.desc())
        .limit(limit)
    )
    return [(series, text) for series, text in session.execute(rows)]


def failed_deliveries(session: Session, limit: int) -> list[tuple[Outbox, Instance, Receipt | None]]:
    """Outbox rows that were given up, the newest first, each with its last receipt."""
    rows = session.execute(
        select(Outbox, Instance)
        .join(Instance, Instance.id == Outbox.instance_row)
        .where(Outbox.state == OutboxState.FAILED)
        .order_by(Outbox.id.desc())
        .limit(limit)
    )
    return [(row, instance, _last_receipt(session, row)) for row, instance in rows]


def series_about(session: Session, subject: str) -> list[Series]:
    """Series that a UID (of a study, series or SOP instance) or an accession number names, oldest first."""
    of_instance = select(Instance.series_row).where(Instance.sop_instance_uid == subject)
    of_study = select(Study.id).where(_names_study(subject))
    rows = select(Series).where(
        or_(Series.series_instance_uid == subject, Series.id.in_(of_instance), Series.study_row.in_(of_study))
    )
    return list(session.scalars(rows.order_by(Series.id)))


def studies_named(session: Session, subject: str) -> list[Study]:
    """Studies that a UID or an accession number names, oldest first."""
    return list(session.scalars(select(Study).where(_names_study(subject)).order_by(Study.id)))


def _names_study(subject: str) -> ColumnElement[bool]:
    named = or_(Study.study_instance_uid == subject, Study.accession_number == subject)
    return and_(named, literal(subject != ""))  # many studies have no accession number


def instances_of(session: Session, series_row: int) -> list[Instance]:
    return list(session.scalars(select(Instance).where(Instance.series_row == series_row).order_by(Instance.id)))


def plans_of(session: Session, series_row: int) -> list[Plan]:
    return list(session.scalars(select(Plan).where(Plan.series_row == series_row).order_by(Plan.generation)))


def jobs_of(session: Session, series_row: int) -> list[Job]:
    return list(session.scalars(select(Job).where(Job.series_row == series_row).order_by(Job.id)))


def jobs_that_derived(session: Session, series_instance_uid: str) -> list[Job]:
    """The jobs that made a derived series, or added to it, the oldest first."""
    made = select(Series.id).where(Series.series_instance_uid == series_instance_uid, Series.origin == Origin.DERIVED)
    jobs = (
        select(Derivation.job_row)
        .join(Instance, Instance.id == Derivation.instance_row)
        .where(Instance.series_row.in_(made))
    )
    return list(session.scalars(select(Job).where(Job.id.in_(jobs)).order_by(Job.id)))


def active_instance(session: Session, sop_instance_uid: str) -> Instance | None:
    """The newest version of an instance."""
    rows = select(Instance).where(Instance.sop_instance_uid == sop_instance_uid, Instance.active)
    return session.scalars(rows).first()


def all_instances(session: Session) -> list[Instance]:
    return list(session.scalars(select(Instance).order_by(Instance.id)))


def job_of(session: Session, job_row: int) -> Job:
    return session.get_one(Job, job_row)


def series_in_row(session: Session, series_row: int) -> Series:
    return session.get_one(Series, series_row)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a series at one destination.

    `waiting` is held or ready; `excluded` is what our configuration keeps from there; `troubles` are distinct answers.
    """

    destination: str
    rules: tuple[str, ...]
    sent: int
    waiting: int
    failed: int
    excluded: int
    attempts: int
    troubles: tuple[str, ...]


def deliveries_of(session: Session, series_row: int, sop_instance_uid: str | None = None) -> list[Delivery]:
    """The deliveries of a series, or of one of its instances."""
    members = select(Instance.id).where(Instance.series_row == series_row)
    if sop_instance_uid is not None:
        members = members.where(Instance.sop_instance_uid == sop_instance_uid)
    rows = session.scalars(select(Outbox).where(Outbox.instance_row.in_(members)).order_by(Outbox.id)).all()
    return [
        _delivery(session, destination, [row for row in rows if row.destination == destination])
        for destination in dict.fromkeys(row.destination for row in rows)
    ]


def _delivery(session: Session, destination: str, rows: Sequence[Outbox]) -> Delivery:
    receipts = session.scalars(
        select(Receipt)
        .where(Receipt.outbox_row.in_([row.id for row in rows]), Receipt.outcome != "sent")
        .order_by(Receipt.id)
    )
    waiting = sum(row.state in (OutboxState.HELD, OutboxState.READY) for row in rows)
    health = session.get(Destination, destination)
    down = (f"down: {health.last_error}",) if waiting and health is not None and health.failures else ()
    return Delivery(
        destination=destination,
        rules=tuple(dict.fromkeys(rule for row in rows for rule in row.rules)),
        sent=sum(row.state == OutboxState.SENT for row in rows),
        waiting=waiting,
        failed=sum(row.state == OutboxState.FAILED for row in rows),
        excluded=sum(row.state == OutboxState.EXCLUDED for row in rows),
        attempts=sum(row.attempts for row in rows),
        troubles=(*dict.fromkeys(_answer(receipt) for receipt in receipts), *down),
    )


def _answer(receipt: Receipt) -> str:
    status = "no answer" if receipt.status is None else f"0x{receipt.status:04X}"
    return f"{receipt.outcome} ({status}): {receipt.meaning}" + (f"; {receipt.hint}" if receipt.hint else "")


def _last_receipt(session: Session, row: Outbox) -> Receipt | None:
    return session.scalars(
        select(Receipt).where(Receipt.outbox_row == row.id).order_by(Receipt.id.desc()).limit(1)
    ).first()
