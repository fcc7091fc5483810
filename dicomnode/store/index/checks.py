"""Derived objects that wait until their destination was asked about patient and study, and what it answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from dicomnode.core.patients import Difference
from dicomnode.core.routing import PRIORITIES
from dicomnode.core.withholding import NEVER, NOT_CHECKED
from dicomnode.store.schema import Instance, Origin, Outbox, OutboxState, PatientCheck, Series, Study

DIFFERS: Final = "patient or study differs there"
"""How the reason begins of what is kept back because of a difference; the keywords follow."""


@dataclass(frozen=True, slots=True)
class ToCheck:
    """Derived instances of one series that wait for one destination.

    file        of one of them, for all say the same of patient and study
    waiting_since  when the oldest of them began to wait, or the last of their originals arrived there
    """

    destination: str
    study_row: int
    study_instance_uid: str
    series_row: int
    series_instance_uid: str
    file: str
    waiting_since: float


def claim(session: Session, destination: str, now: float, until: float, limit: int) -> list[ToCheck]:
    """Series whose derived instances are to be checked now; nobody else looks at them until `until`.

    Their originals have arrived there, or were waited for long enough: a destination may know the study by them only.
    """
    rows = session.execute(_due(destination, now).limit(limit)).all()
    found: dict[int, ToCheck] = {}
    for outbox, instance, series, study in rows:
        found.setdefault(
            series.id,
            ToCheck(
                destination,
                study.id,
                study.study_instance_uid,
                series.id,
                series.series_instance_uid,
                instance.file,
                max(outbox.created_at, _originals_arrived_at(session, outbox)),
            ),
        )
    for one in found.values():
        put_off(session, one, until)
    return list(found.values())


def is_due(session: Session, destination: str, now: float) -> bool:
    return session.execute(_due(destination, now).limit(1)).first() is not None


def put_off(session: Session, check: ToCheck, until: float) -> None:
    """Look at it again at `until`."""
    session.execute(update(Outbox).where(_waiting(check)).values(next_attempt_at=until))


def passed(session: Session, check: ToCheck, now: float) -> int:
    """Let the instances leave; how many."""
    leaving = update(Outbox).where(_waiting(check))
    values = {"state": OutboxState.READY.value, "reason": None, "next_attempt_at": now, "created_at": now}
    return len(session.execute(leaving.values(values).returning(Outbox.id)).all())


def failed(session: Session, check: ToCheck, found: Sequence[Difference]) -> int:
    """Keep the instances back, as something differs; how many."""
    reason = f"{DIFFERS}: {', '.join(one.keyword for one in found)}"
    kept = update(Outbox).where(_waiting(check)).values(reason=reason, next_attempt_at=NEVER)
    return len(session.execute(kept.returning(Outbox.id)).all())


def record(session: Session, check: ToCheck, outcome: str, found: Sequence[Difference], now: float) -> None:
    """Store what a destination said of a study, in place of what it said before."""
    known = session.scalars(
        select(PatientCheck).where(
            PatientCheck.study_row == check.study_row, PatientCheck.destination == check.destination
        )
    ).first()
    if known is None:
        known = PatientCheck(study_row=check.study_row, destination=check.destination)
        session.add(known)
    known.at, known.outcome, known.differences = now, outcome, [asdict(one) for one in found]


def checks_of(session: Session, study_row: int) -> list[PatientCheck]:
    """What destinations said of a study last."""
    rows = select(PatientCheck).where(PatientCheck.study_row == study_row).order_by(PatientCheck.destination)
    return list(session.scalars(rows))


def _originals_arrived_at(session: Session, derived: Outbox) -> float:
    """When the last original of the source arrived where a derived instance goes; 0 where none did."""
    arrived = (
        select(func.max(Outbox.finished_at))
        .join(Instance, Instance.id == Outbox.instance_row)
        .where(
            Instance.series_row == derived.after_series,
            Outbox.destination == derived.destination,
            Outbox.origin == Origin.RECEIVED.value,
            Outbox.state == OutboxState.SENT.value,
        )
    )
    return session.scalar(arrived) or 0.0


def _waiting(check: ToCheck) -> ColumnElement[bool]:
    members = select(Instance.id).where(Instance.series_row == check.series_row)
    return and_(
        Outbox.destination == check.destination,
        Outbox.state == OutboxState.WITHHELD,
        Outbox.reason == NOT_CHECKED,
        Outbox.instance_row.in_(members),
    )


def _due(destination: str, now: float) -> Select[Outbox, Instance, Series, Study]:
    original, member = aliased(Outbox), aliased(Instance)
    originals_waiting = exists(
        select(original.id)
        .join(member, member.id == original.instance_row)
        .where(
            original.destination == Outbox.destination,
            original.origin == Origin.RECEIVED.value,
            original.state.in_([OutboxState.HELD.value, OutboxState.READY.value]),
            member.series_row == Outbox.after_series,
        )
    )
    return (
        select(Outbox, Instance, Series, Study)
        .join(Instance, Instance.id == Outbox.instance_row)
        .join(Series, Series.id == Instance.series_row)
        .join(Study, Study.id == Series.study_row)
        .where(
            Outbox.destination == destination,
            Outbox.state == OutboxState.WITHHELD,
            Outbox.reason == NOT_CHECKED,
            Outbox.priority.in_(PRIORITIES.values()),  # else an index by it and the time is of no use
            Outbox.next_attempt_at <= now,
            or_(Outbox.after_series.is_(None), Outbox.hold_until <= now, ~originals_waiting),
        )
        .order_by(Outbox.next_attempt_at, Outbox.id)
    )
