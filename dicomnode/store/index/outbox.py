"""The outbox: what is to be sent where, what goes next, and what became of each attempt.

A derived object waits until the originals of its source series have arrived at that destination, or until its time is
up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from dicomnode.core.fairness import Waiting, next_batch
from dicomnode.core.routing import PRIORITIES
from dicomnode.core.types import Outcome
from dicomnode.core.types import Receipt as Answer
from dicomnode.core.withholding import NEVER, NOT_CHECKED
from dicomnode.store.index import proofs
from dicomnode.store.index.purges import file_is_gone
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.schema import Destination, Instance, Origin, Outbox, OutboxState, Receipt, Series, Study

MOST_ABORTS: Final = 8
"""So often a destination that works may abort at an instance before it is the instance's fault."""

_OTHER_BYTES: Final = "the destination keeps another version of this SOP Instance UID"
_OTHER_BYTES_HINT: Final = "have the older one deleted or replaced there, then: dicomnode jobs retry --failed"
_NO_PATIENCE_LEFT: Final = "not taken within the destination's patience"


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
            next_attempt_at=NEVER if to.withheld not in (None, NOT_CHECKED) else now,
            created_at=now,
            finished_at=None,
            confirmed_at=None,
            confirmed_by=None,
        )
        for instance in instances
        if instance.id not in known
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a batch may hold.

    limit        how many
    refused      calling AE titles that the destination does not take now: their rows are passed over
    urgent_only  whether nothing else may go now
    owed         what is owed to normal ones (`dicomnode.core.fairness`)
    """

    limit: int
    refused: Collection[str] = ()
    urgent_only: bool = False
    owed: int = 0


def ready(session: Session, destination: str, now: float, wanted: Wanted) -> tuple[list[tuple[Outbox, Instance]], int]:
    """The next rows to be sent, in order, all with one calling AE title; and what is owed after them."""
    chosen, owed = next_batch(_waiting(session, destination, now, wanted), wanted.limit, wanted.owed)
    if not chosen:
        return [], owed
    order = {each.outbox_id: place for place, each in enumerate(chosen)}
    rows = session.execute(
        select(Outbox, Instance).join(Instance, Instance.id == Outbox.instance_row).where(Outbox.id.in_(order))
    )
    return sorted(((row, instance) for row, instance in rows), key=lambda found: order[found[0].id]), owed


def derived_series(session: Session, instances: Sequence[Instance]) -> dict[int, tuple[str, str]]:
    """Study and Series Instance UID by the row of the series, of those of these instances that we derived."""
    rows = {instance.series_row for instance in instances if instance.origin == Origin.DERIVED}
    if not rows:
        return {}
    found = session.execute(
        select(Series.id, Study.study_instance_uid, Series.series_instance_uid)
        .join(Study, Study.id == Series.study_row)
        .where(Series.id.in_(rows))
    )
    return {row: (study, series) for row, study, series in found}


def record_answers(
    session: Session, answers: Sequence[Answer], retry: RetryPolicy, now: float
) -> tuple[OutboxState, ...]:
    """Store receipts and what follows from them; each row's new state. Cheaper than one by one."""
    rows = session.scalars(select(Outbox).where(Outbox.id.in_([answer.outbox_id for answer in answers])))
    held = rows.all()  # in the session from here on: none is looked up again by itself
    assert len(held) == len(answers)
    with session.no_autoflush:
        states = tuple(record_answer(session, answer, retry, now) for answer in answers)
        proofs.begin(session, [row for row in held if row.state == OutboxState.SENT], now)
        return states


def record_answer(session: Session, answer: Answer, retry: RetryPolicy, now: float) -> OutboxState:
    """Store a receipt and what follows from it; the row's new state.

    What came to an end meanwhile, by a person or by another machine, stays there, unless it has arrived.
    """
    row = session.get_one(Outbox, answer.outbox_id)
    if answer.outcome is Outcome.DUPLICATE and _holds_another_version(session, row):
        answer = replace(answer, outcome=Outcome.REFUSED, meaning=_OTHER_BYTES, hint=_OTHER_BYTES_HINT)
    session.add(_receipt(answer, now))
    row.attempts += 1
    if row.state not in (OutboxState.HELD, OutboxState.READY) and not answer.outcome.arrived:
        return OutboxState(row.state)
    state = _state_after(session, answer, row, retry, now)
    row.state = state.value
    if state == OutboxState.READY:
        row.next_attempt_at = now + retry.delay_s(row.attempts)
    else:
        row.finished_at = now
    return state


def oldest_ready(session: Session, destination: str) -> float | None:
    """Since when that waits which waits longest for a destination."""
    return session.scalar(select(func.min(Outbox.created_at)).where(*_is_ready(destination)))


def give_up(session: Session, destination: str, waiting_since: float, now: float, limit: int) -> int:
    """Fail what waits since a time or longer, at most `limit` rows; how many. What was never tried at a destination
    that works is not its fault: we were down, or have much to send."""
    failing = exists().where(Destination.name == destination, Destination.failures > 0)
    late = list(
        session.scalars(
            select(Outbox.id)
            .where(*_is_ready(destination), Outbox.created_at <= waiting_since, or_(Outbox.attempts > 0, failing))
            .order_by(Outbox.id)
            .limit(limit)
        )
    )
    if late:
        session.execute(
            insert(Receipt),
            [
                {
                    "outbox_row": row, "at": now, "outcome": Outcome.FAILED.value, "status": None,
                    "meaning": _NO_PATIENCE_LEFT, "hint": "dicomnode jobs retry, once it is up again",
                }
                for row in late
            ],
        )  # fmt: skip
        session.execute(
            update(Outbox).where(Outbox.id.in_(late)).values(state=OutboxState.FAILED.value, finished_at=now)
        )
    return len(late)


def is_to_be_told(session: Session, destination: str, retry: RetryPolicy, now: float) -> bool:
    """Whether it is to be said that something was not taken in time, and note that it is: once in each outage, and for
    a destination that answers and refuses, once in the time of its patience."""
    row = session.get_one(Destination, destination)
    if row.held_told_at is not None:
        quiet_since = now - retry.patience_s if row.down_since is None else row.down_since
        if row.held_told_at > quiet_since:
            return False
    row.held_told_at = now
    return True


def _receipt(answer: Answer, now: float) -> Receipt:
    return Receipt(
        outbox_row=answer.outbox_id,
        at=now,
        outcome=answer.outcome.value,
        status=answer.status,
        meaning=answer.meaning,
        hint=answer.hint,
    )


def _holds_another_version(session: Session, row: Outbox) -> bool:
    """Whether other bytes under the same SOP Instance UID have arrived there: "duplicate" then means that they stay."""
    uid = select(Instance.sop_instance_uid).where(Instance.id == row.instance_row).scalar_subquery()
    there = (
        select(Outbox.id)
        .join(Instance, Instance.id == Outbox.instance_row)
        .where(
            Instance.sop_instance_uid == uid,
            Instance.id != row.instance_row,
            ~file_is_gone(),  # else nobody knows whether they are others
            Outbox.destination == row.destination,
            Outbox.state == OutboxState.SENT,
        )
    )
    return session.scalar(there.limit(1)) is not None


def _state_after(session: Session, answer: Answer, row: Outbox, retry: RetryPolicy, now: float) -> OutboxState:
    if answer.outcome.arrived:
        return OutboxState.SENT
    if answer.outcome is Outcome.EXCLUDED:
        return OutboxState.EXCLUDED
    if answer.outcome is Outcome.ABORTED and _is_at_fault(session, row):
        return OutboxState.FAILED
    return OutboxState.READY if answer.transient else OutboxState.FAILED


def _is_at_fault(session: Session, row: Outbox) -> bool:
    """Whether a destination that takes others has aborted at it often enough, counting the last time; what was before a
    person had it sent again does not count."""
    destination = session.get(Destination, row.destination)
    if destination is not None and destination.failures:
        return False
    aborts = select(func.count()).where(
        Receipt.outbox_row == row.id, Receipt.outcome == Outcome.ABORTED, Receipt.at >= row.created_at
    )
    session.flush()  # the last receipt is among them
    return (session.scalar(aborts) or 0) >= MOST_ABORTS


def _waiting(session: Session, destination: str, now: float, wanted: Wanted) -> list[Waiting]:
    """More than fits a batch of what may go now, of each kind those that wait longest first."""
    kinds = ("urgent",) if wanted.urgent_only else ("urgent", "normal")
    return [each for kind in kinds for each in _waiting_of(session, destination, now, wanted, kind)]


def _waiting_of(session: Session, destination: str, now: float, wanted: Wanted, kind: str) -> list[Waiting]:
    """Those that wait longest, and, where there are many, the newest too: a study of just now must not wait until all
    is sent that an outage has left. Both are read in the order of an index."""
    blocked: set[int] = set()
    free: set[int] = set()
    while True:
        rows = _window(session, _due(destination, now, PRIORITIES[kind], wanted.refused, blocked), wanted.limit)
        sources = {row.after_series for row in rows if row.after_series is not None and row.hold_until > now} - free
        newly = _with_originals_waiting(session, destination, sources) if sources else set()
        if not newly:
            return [Waiting(row.id, kind == "urgent", row.calling_ae, row.series_row) for row in rows]
        blocked |= newly
        free |= sources - newly


def _window(session: Session, due: Select[*tuple[Any, ...]], limit: int) -> list[Any]:
    rows = session.execute(due.order_by(Outbox.next_attempt_at, Outbox.id).limit(2 * limit)).all()
    if len(rows) < 2 * limit:
        return list(rows)
    newest = session.execute(due.order_by(Outbox.next_attempt_at.desc(), Outbox.id.desc()).limit(limit // 2)).all()
    known = {row.id for row in rows}
    return [*rows, *(row for row in reversed(newest) if row.id not in known)]


def _due(
    destination: str, now: float, priority: int, refused: Collection[str], blocked: Collection[int]
) -> Select[*tuple[Any, ...]]:
    due = (
        select(Outbox.id, Outbox.calling_ae, Outbox.after_series, Outbox.hold_until, Instance.series_row)
        .join(Instance, Instance.id == Outbox.instance_row)
        .where(*_is_ready(destination), Outbox.priority == priority, Outbox.next_attempt_at <= now)
    )
    if refused:
        due = due.where(Outbox.calling_ae.not_in(refused))
    if blocked:
        due = due.where(
            or_(Outbox.after_series.is_(None), Outbox.hold_until <= now, Outbox.after_series.not_in(blocked))
        )
    return due


def _is_ready(destination: str) -> tuple[ColumnElement[bool], ...]:
    return Outbox.destination == destination, Outbox.state == OutboxState.READY


def _with_originals_waiting(session: Session, destination: str, series: Collection[int]) -> set[int]:
    """Those of the series of which originals are still to go to a destination."""
    rows = (
        select(Instance.series_row)
        .join(Outbox, Outbox.instance_row == Instance.id)
        .where(
            Instance.series_row.in_(series),
            Outbox.destination == destination,
            Outbox.origin == Origin.RECEIVED.value,
            Outbox.state.in_([OutboxState.HELD, OutboxState.READY]),
        )
        .distinct()
    )
    return set(session.scalars(rows))
