"""Proof of delivery in the index: which series are to be asked about, what was asked, and what the answers confirm.

One row for each series and destination says when it is looked at next: it moves with each instance that is sent.
Whoever looks at it moves it ahead, and so is alone with it for that time, on any number of machines.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from dicomnode import metrics
from dicomnode.core.notification import CommitmentReport
from dicomnode.core.proof import Method, Sent, SeriesProof, Sight, Step, failure_reason, series_proof
from dicomnode.store.index.rejections import holds
from dicomnode.store.schema import Commitment, Instance, Outbox, OutboxState, Proof, Series, Study
from dicomnode.telemetry import event

_FATES = {
    OutboxState.HELD: "waiting",
    OutboxState.READY: "waiting",
    OutboxState.SENT: "sent",
    OutboxState.FAILED: "failed",
}
_PORTION = 1000
_TOLD_TWICE_S = 86400.0
_TOLD_AT_ALL_S = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Unproved:
    """An instance that arrived and is not confirmed."""

    outbox_row: int
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Case:
    """A series at a destination, as it is looked at. It is ours while it is due at `claimed_until`, and no sooner."""

    proof_row: int
    claimed_until: float
    destination: str
    study_instance_uid: str
    series_instance_uid: str
    unproved: tuple[Unproved, ...]
    sight: Sight


@dataclass(frozen=True, slots=True)
class Confirmed:
    """So many instances of a series are proved to be at a destination."""

    destination: str
    series_instance_uid: str
    method: Method
    instances: int


def begin(session: Session, sent: Collection[Outbox], now: float) -> None:
    """Have what arrived at a destination proved; it is asked about together with what follows soon."""
    by_destination: dict[str, list[int]] = {}
    for row in sent:
        by_destination.setdefault(row.destination, []).append(row.instance_row)
    for destination, instances in by_destination.items():
        series = set(session.scalars(select(Instance.series_row).where(Instance.id.in_(instances)).distinct()))
        known = select(Proof).where(Proof.destination == destination, Proof.series_row.in_(series))
        rows = {row.series_row: row for row in session.scalars(known)}
        for series_row in sorted(series):
            _begin(session, rows.get(series_row) or _new(session, series_row, destination, now), now)


def _new(session: Session, series_row: int, destination: str, now: float) -> Proof:
    row = Proof(
        series_row=series_row, destination=destination, due_at=None, began_at=now, method="", asks=0, asked_at=None,
        answered_at=None, failures={}, resends=0, meaning="", hint="",
    )  # fmt: skip
    session.add(row)
    return row


def _begin(session: Session, row: Proof, now: float) -> None:
    if row.due_at is None:
        _ask_anew(row, now)
    row.due_at = now


def _ask_anew(row: Proof, now: float) -> None:
    row.began_at, row.method, row.asks, row.asked_at, row.answered_at = now, "", 0, None, None
    row.failures, row.meaning, row.hint = {}, "", ""


def is_due(session: Session, destination: str, now: float) -> bool:
    due = select(Proof.id).where(Proof.destination == destination, Proof.due_at <= now).limit(1)
    return session.scalar(due) is not None


def claim(session: Session, destination: str, now: float, until: float, limit: int) -> list[Case]:
    """What is due, the longest waiting first. Nobody else looks at it before `until`, or before it was moved."""
    due = (
        select(Proof)
        .where(Proof.destination == destination, Proof.due_at <= now)
        .order_by(Proof.due_at, Proof.id)
        .limit(limit)
    )
    rows = session.scalars(due).all()
    for row in rows:
        row.due_at = until
    return [_case(session, row) for row in rows]


def _case(session: Session, proof: Proof) -> Case:
    series = session.get_one(Series, proof.series_row)
    rows = session.execute(
        select(Outbox.id, Instance.sop_class_uid, Instance.sop_instance_uid, Outbox.finished_at)
        .join(Instance, Instance.id == Outbox.instance_row)
        .where(
            Instance.series_row == proof.series_row,
            Instance.active,
            Outbox.destination == proof.destination,
            Outbox.state == OutboxState.SENT.value,
            Outbox.confirmed_at.is_(None),
            holds(),  # else the destination may well hide it, and must not be sent it again
        )
        .order_by(Outbox.id)
    ).all()
    unproved = tuple(Unproved(row, sop_class, uid) for row, sop_class, uid, _ in rows)
    sight = Sight(
        unproved=tuple(each.sop_instance_uid for each in unproved),
        last_sent_at=max((finished or 0.0 for *_, finished in rows), default=0.0),
        began_at=proof.began_at,
        asked_at=proof.asked_at,
        answered_at=proof.answered_at,
        method=proof.method,
        asks=proof.asks,
        resends=proof.resends,
        failures=proof.failures,
    )
    study = session.get_one(Study, series.study_row).study_instance_uid
    until = proof.due_at or 0.0
    return Case(proof.id, until, proof.destination, study, series.series_instance_uid, unproved, sight)


def put_off(session: Session, case: Case, until: float | None) -> None:
    """Look at it then, None: no more; but sooner where an instance or a report has come since we looked."""
    row = session.get_one(Proof, case.proof_row)
    if row.due_at == case.claimed_until:
        row.due_at = until


def asked(session: Session, case: Case, method: Method, asks: int, now: float) -> None:
    """Note that the question is put."""
    row = session.get_one(Proof, case.proof_row)
    row.method, row.asks, row.asked_at, row.answered_at, row.failures = method.value, asks, now, None, {}


def commitment_asked(session: Session, ask: Commitment) -> None:
    """Note one transaction, before it is asked for: its report may come at once, and to another process."""
    known = session.scalars(select(Commitment).where(Commitment.transaction_uid == ask.transaction_uid)).first()
    if known is None:
        session.add(ask)
    else:
        known.asked_at = ask.asked_at


def not_asked(session: Session, case: Case) -> None:
    """The question may not have arrived: it will be put again as the same."""
    row = session.get_one(Proof, case.proof_row)
    if row.asked_at is not None and (case.sight.asked_at is None or row.asked_at > case.sight.asked_at):
        row.asks, row.asked_at = row.asks - 1, None


def answered(session: Session, case: Case, failures: Mapping[str, int], told: tuple[str, str], now: float) -> None:
    """Note an answer that does not confirm all, what it means and what to do."""
    row = session.get_one(Proof, case.proof_row)
    row.answered_at, row.asked_at, row.failures = now, None, dict(failures)
    row.meaning, row.hint = told


def confirm(session: Session, outbox_rows: Iterable[int], method: Method, now: float) -> int:
    """Confirm what arrived and is not confirmed; how many."""
    count = 0
    for row in _outbox(session, outbox_rows):
        if row.state == OutboxState.SENT and row.confirmed_at is None:
            row.confirmed_at, row.confirmed_by = now, method.value
            count += 1
    return count


def _outbox(session: Session, rows: Iterable[int]) -> Iterator[Outbox]:
    """Rows by their ids, in portions: databases limit the parameters of a statement."""
    ids = list(rows)
    for start in range(0, len(ids), _PORTION):
        yield from session.scalars(select(Outbox).where(Outbox.id.in_(ids[start : start + _PORTION]))).all()


def send_again(session: Session, case: Case, step: Step, now: float) -> int:
    """Have sent again what the destination does not hold; how many. Their patience begins anew."""
    missing = set(step.sop_instance_uids)
    rows = [each.outbox_row for each in case.unproved if each.sop_instance_uid in missing]
    for row in _outbox(session, rows):
        row.state, row.finished_at = OutboxState.READY.value, None
        row.created_at = row.next_attempt_at = now
    proof = session.get_one(Proof, case.proof_row)
    _ask_anew(proof, now)
    proof.resends += 1
    proof.meaning, proof.hint = step.meaning, step.hint
    return len(rows)


def give_up(session: Session, case: Case, step: Step) -> None:
    """Ask no more; what is missing is known by the failures."""
    proof = session.get_one(Proof, case.proof_row)
    proof.meaning, proof.hint, proof.asked_at = step.meaning, step.hint, None
    put_off(session, case, None)


def record_report(session: Session, peer: str, report: CommitmentReport, now: float) -> Confirmed | None:
    """Take in the result of a commitment; None where this peer was not asked so. Taking it in twice changes nothing."""
    ask = session.scalars(select(Commitment).where(Commitment.transaction_uid == report.transaction_uid)).first()
    if ask is None or ask.peer != peer:
        return None
    proof = session.get_one(Proof, ask.proof_row)
    asked_for = dict(zip(ask.sop_instance_uids, ask.outbox_rows, strict=True))
    kept = asked_for.keys() if report.is_whole and not report.committed else asked_for.keys() & report.committed
    count = confirm(session, [asked_for[uid] for uid in kept], Method.COMMITMENT, now)
    session.flush()
    failed = {uid: reason for uid, reason in report.failures.items() if uid in asked_for}
    if ask.answered_at is None and proof.asked_at == ask.asked_at:
        ask.answered_at = now
        session.flush()
        proof.failures = {**proof.failures, **failed}
        if failed:
            told = failure_reason(next(iter(failed.values())))
            proof.meaning, proof.hint = f"{len(failed)} not committed: {told.meaning}", told.hint
        if not _others_unanswered(session, ask):
            proof.asked_at, proof.answered_at, proof.due_at = None, now, now
    ask.answered_at = ask.answered_at or now
    series = session.get_one(Series, proof.series_row).series_instance_uid
    return Confirmed(proof.destination, series, Method.COMMITMENT, count)


def _others_unanswered(session: Session, ask: Commitment) -> bool:
    """Whether another transaction of the same question has no result yet."""
    others = select(Commitment.id).where(
        Commitment.proof_row == ask.proof_row, Commitment.asked_at == ask.asked_at, Commitment.answered_at.is_(None)
    )
    return session.scalar(others.limit(1)) is not None


def forget_commitments(session: Session, now: float) -> None:
    """Forget transactions whose result came a day ago (it may be told twice), or will not come any more."""
    is_over = or_(Commitment.answered_at < now - _TOLD_TWICE_S, Commitment.asked_at < now - _TOLD_AT_ALL_S)
    session.execute(delete(Commitment).where(is_over))


def all_answered(session: Session, transaction_uids: Sequence[str]) -> bool:
    """Whether each of these commitments has its result."""
    waiting = select(Commitment.id).where(
        Commitment.transaction_uid.in_(transaction_uids), Commitment.answered_at.is_(None)
    )
    return session.scalar(waiting.limit(1)) is None


def tell(confirmed: Confirmed) -> None:
    """Say in the log and the metrics what is confirmed."""
    if not confirmed.instances:
        return
    metrics.count(
        "dicomnode_confirmed_total",
        confirmed.instances,
        destination=confirmed.destination,
        proof=confirmed.method.value,
    )
    event(
        "proof_confirmed",
        destination=confirmed.destination,
        series_instance_uid=confirmed.series_instance_uid,
        proof=confirmed.method.value,
        instances=confirmed.instances,
    )


def proofs_of(session: Session, series_row: int) -> list[tuple[SeriesProof, Proof]]:
    """What each destination that has answered for the series holds of it, and what was asked of it."""
    asked = session.scalars(select(Proof).where(Proof.series_row == series_row).order_by(Proof.destination)).all()
    rows = session.execute(
        select(Outbox.destination, Instance.sop_instance_uid, Outbox.state, Outbox.confirmed_by)
        .join(Instance, Instance.id == Outbox.instance_row)
        .where(Instance.series_row == series_row, Instance.active)
        .order_by(Instance.id)
    ).all()
    told = []
    for proof in asked:
        sent = [_sent(*each[1:], proof.failures) for each in rows if each.destination == proof.destination]
        if (judged := series_proof(sent)) is not None:
            told.append((judged, proof))
    return told


def _sent(uid: str, state: str, confirmed_by: str | None, failures: Mapping[str, int]) -> Sent:
    is_missing = confirmed_by is None and uid in failures and failure_reason(failures[uid]).is_missing
    fate = _FATES.get(OutboxState(state), "apart")
    return Sent(uid, fate, None if confirmed_by is None else Method(confirmed_by), is_missing)


def confirmed_counts(session: Session) -> dict[str, int]:
    """Confirmed instances by destination."""
    found = session.execute(select(Outbox.destination, func.count(Outbox.confirmed_at)).group_by(Outbox.destination))
    return {row[0]: row[1] for row in found}


def begin_anew(
    session: Session, destination: str | None, series_instance_uid: str | None, now: float
) -> list[tuple[str, str]]:
    """Ask again about what was given up; (destination, Series Instance UID) of each. None leaves open which."""
    rows = (
        select(Proof, Series.series_instance_uid)
        .join(Series, Series.id == Proof.series_row)
        .where(Proof.due_at.is_(None), Proof.meaning != "")
        .order_by(Proof.id)
    )
    if destination is not None:
        rows = rows.where(Proof.destination == destination)
    if series_instance_uid is not None:
        rows = rows.where(Series.series_instance_uid == series_instance_uid)
    begun = []
    for proof, uid in session.execute(rows).all():
        _ask_anew(proof, now)
        proof.resends, proof.due_at = 0, now
        begun.append((proof.destination, uid))
    return begun


def unproved_series(session: Session, limit: int) -> list[tuple[Proof, Series]]:
    """Series whose proof was given up, the newest first."""
    rows = (
        select(Proof, Series)
        .join(Series, Series.id == Proof.series_row)
        .where(Proof.due_at.is_(None), Proof.meaning != "")
        .order_by(Proof.id.desc())
        .limit(limit)
    )
    return [(proof, series) for proof, series in session.execute(rows)]
