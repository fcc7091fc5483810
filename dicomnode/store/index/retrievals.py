"""Studies and series to be fetched: asked for, leased, counted, ended.

One at a time of each peer, over all machines: the lease of a row keeps the peer's others waiting, by the database's
clock (`dicomnode.store.index.leases`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, String, and_, cast, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from dicomnode.core.retrieving import RetrievalState, RetrieveMethod, SeriesAtPeer, SeriesCount
from dicomnode.store.index.purges import file_is_gone
from dicomnode.store.schema import Instance, Retrieval, RetrievalSeries, Series, Study

_MOST_ASKED_AT_ONCE: Final = 500
_ALL_SERIES: Final = "[]"
_MOST_NAMED: Final = 2000
"""SOP Instance UIDs that a row names as missing: it is read by people."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a person wants from a peer: a study by its UID, or what belongs to an accession number."""

    peer: str
    study_instance_uid: str = ""
    accession_number: str = ""
    series_instance_uids: tuple[str, ...] = ()
    method: RetrieveMethod = RetrieveMethod.AUTO
    requested_by: str = ""


def request(session: Session, wanted: Request, now: float) -> Retrieval:
    """Add a retrieval; the `retrieve` role takes it from here."""
    row = Retrieval(
        peer=wanted.peer,
        study_instance_uid=wanted.study_instance_uid,
        accession_number=wanted.accession_number,
        series_instance_uids=list(wanted.series_instance_uids),
        method=wanted.method.value,
        requested_by=wanted.requested_by,
        requested_at=now,
        state=RetrievalState.READY.value,
        attempts=0,
        next_attempt_at=now,
        used="",
        missing=[],
        sub_operations={},
        reason="",
        hint="",
    )
    session.add(row)
    session.flush()
    return row


def next_due(session: Session, now: float) -> Retrieval | None:
    """The one that waits longest of a peer that is asked for nothing else; None where there is none."""
    busy = select(Retrieval.peer).where(_is_ready(), Retrieval.lease_until > now)
    return session.scalars(
        select(Retrieval)
        .where(_is_ready(), Retrieval.next_attempt_at <= now, Retrieval.peer.not_in(busy))
        .order_by(Retrieval.next_attempt_at, Retrieval.id)
        .limit(1)
    ).first()


def lease_next(session: Session, owner: str, now: float, until: float) -> Retrieval | None:
    """Take what is due next. The session is one of `Database.write`."""
    row = next_due(session, now)
    if row is not None:
        row.lease_owner, row.lease_until = owner, until
        row.attempts += 1
    return row


def renew(session: Session, owner: str, rows: Collection[int], until: float) -> int:
    """Keep what an owner has in hand; how many."""
    kept = session.execute(
        update(Retrieval)
        .where(_is_ready(), Retrieval.lease_owner == owner, Retrieval.id.in_(rows))
        .values(lease_until=until)
        .returning(Retrieval.id)
    )
    return len(kept.all())


def release(session: Session, owner: str) -> None:
    """Give up what an owner has, as if it had not been tried: it was stopped."""
    session.execute(
        update(Retrieval)
        .where(_is_ready(), Retrieval.lease_owner == owner)
        .values(lease_owner=None, lease_until=None, attempts=Retrieval.attempts - 1)
    )


def left_by(session: Session, owner: str) -> list[Retrieval]:
    """What an owner had when it was killed."""
    return list(session.scalars(select(Retrieval).where(_is_ready(), Retrieval.lease_owner == owner)))


def note_listed(session: Session, row: int, listed: Sequence[SeriesAtPeer]) -> tuple[SeriesAtPeer, ...]:
    """Record what the peer lists beside what it listed before; all of it."""
    known = {one.series_instance_uid: one for one in _series(session, row)}
    for series in listed:
        one = known.get(series.series_instance_uid)
        if one is None:
            one = RetrievalSeries(
                retrieval_row=row, series_instance_uid=series.series_instance_uid, sop_class_uids=[], held=0
            )
            known[series.series_instance_uid] = one
            session.add(one)
        one.study_instance_uid = series.study_instance_uid
        _add_listed(one, series)
    session.flush()
    patients = {series.study_instance_uid: series.patient_id for series in listed if series.patient_id}
    return tuple(_as_listed(one, patients.get(one.study_instance_uid, "")) for one in known.values())


def note_progress(session: Session, row: int, used: str, sub_operations: dict[str, Any]) -> None:
    """Record how it goes on."""
    values = {"used": used, "sub_operations": sub_operations}
    session.execute(update(Retrieval).where(Retrieval.id == row).values(**values))


def held(session: Session, series: SeriesAtPeer) -> frozenset[str]:
    """SOP Instance UIDs that we hold: of those that the peer lists or, where it lists none, of the series. What
    retention has deleted we hold no longer."""
    if series.sop_instance_uids is None:
        rows = (
            select(Instance.sop_instance_uid)
            .join(Series, Instance.series_row == Series.id)
            .join(Study, Series.study_row == Study.id)
            .where(
                Series.series_instance_uid == series.series_instance_uid,
                Study.study_instance_uid == series.study_instance_uid,
                ~file_is_gone(),
            )
        )
        return frozenset(session.scalars(rows))
    return frozenset(_held_of(session, series.sop_instance_uids))


def _held_of(session: Session, uids: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(uids), _MOST_ASKED_AT_ONCE):
        some = uids[start : start + _MOST_ASKED_AT_ONCE]
        here = select(Instance.sop_instance_uid).where(Instance.sop_instance_uid.in_(some), ~file_is_gone())
        yield from session.scalars(here)


def note_counts(session: Session, row: int, counts: Sequence[SeriesCount]) -> None:
    """Record what of it we hold."""
    by_uid = {one.series.series_instance_uid: one for one in counts}
    for series in _series(session, row):
        if series.series_instance_uid in by_uid:
            series.held = by_uid[series.series_instance_uid].held
    retrieval = session.get_one(Retrieval, row)
    retrieval.expected = sum(one.series.instances or 0 for one in counts)
    retrieval.held = sum(one.held for one in counts)
    retrieval.missing = [uid for one in counts for uid in one.missing][:_MOST_NAMED]


def finish(session: Session, row: int, owner: str, end: tuple[RetrievalState, str, str], now: float) -> bool:
    """End it as (state, reason, hint) says; False where somebody else has it by now."""
    retrieval = session.get_one(Retrieval, row)
    if retrieval.lease_owner != owner:
        return False
    retrieval.state, retrieval.reason, retrieval.hint = end[0].value, end[1], end[2]
    retrieval.finished_at = now
    retrieval.lease_owner = retrieval.lease_until = None
    return True


def postpone(session: Session, row: int, owner: str, why: tuple[str, str], until: float) -> bool:
    """Try it again later: `why` is (reason, hint); False where somebody else has it by now."""
    retrieval = session.get_one(Retrieval, row)
    if retrieval.lease_owner != owner:
        return False
    retrieval.reason, retrieval.hint = why
    retrieval.next_attempt_at = until
    retrieval.lease_owner = retrieval.lease_until = None
    return True


def of_series(
    session: Session, study_instance_uid: str, series_instance_uid: str
) -> list[tuple[Retrieval, int | None, int]]:
    """The retrievals that had a series, the oldest first: with how many instances the peer listed, how many we had."""
    rows = (
        select(Retrieval, RetrievalSeries.instances, RetrievalSeries.held)
        .join(RetrievalSeries, RetrievalSeries.retrieval_row == Retrieval.id)
        .where(
            RetrievalSeries.series_instance_uid == series_instance_uid,
            RetrievalSeries.study_instance_uid == study_instance_uid,
        )
        .order_by(Retrieval.id)
    )
    return [(row, instances, count) for row, instances, count in session.execute(rows)]


def waiting(session: Session) -> list[Retrieval]:
    """Those that have not ended, the oldest first."""
    return list(session.scalars(select(Retrieval).where(_is_ready()).order_by(Retrieval.id)))


def ended_since(session: Session, since: float) -> dict[str, int]:
    """How many ended in which state since a time."""
    rows = select(Retrieval.state, func.count()).where(Retrieval.finished_at >= since).group_by(Retrieval.state)
    return {state: int(count) for state, count in session.execute(rows)}


def incomplete(session: Session, since: float, unknown_since: float, limit: int) -> list[Retrieval]:
    """Those that ended partial or failed since a time, the newest first; not what was fetched whole afterwards. Those
    of which the peer listed nothing: since a time of their own."""
    later = aliased(Retrieval)
    series, later_series = cast(Retrieval.series_instance_uids, String), cast(later.series_instance_uids, String)
    mended = exists().where(
        later.id > Retrieval.id,
        later.peer == Retrieval.peer,
        later.study_instance_uid == Retrieval.study_instance_uid,
        later.accession_number == Retrieval.accession_number,
        or_(later_series == series, later_series == _ALL_SERIES),
        later.state == RetrievalState.COMPLETE.value,
    )
    ends = (RetrievalState.PARTIAL.value, RetrievalState.FAILED.value)
    unasked, listed = Retrieval.expected.is_(None), exists().where(RetrievalSeries.retrieval_row == Retrieval.id)
    lately = and_(Retrieval.finished_at >= since, or_(unasked, listed, Retrieval.finished_at >= unknown_since))
    rows = select(Retrieval).where(Retrieval.state.in_(ends), lately, ~mended)
    return list(session.scalars(rows.order_by(Retrieval.id.desc()).limit(limit)))


def _is_ready() -> ColumnElement[bool]:
    return Retrieval.state == RetrievalState.READY.value


def _series(session: Session, row: int) -> list[RetrievalSeries]:
    rows = select(RetrievalSeries).where(RetrievalSeries.retrieval_row == row).order_by(RetrievalSeries.id)
    return list(session.scalars(rows))


def _add_listed(one: RetrievalSeries, series: SeriesAtPeer) -> None:
    """What was listed once stays so: an instance that the peer has lost meanwhile is missing."""
    one.sop_class_uids = sorted({*one.sop_class_uids, *series.sop_class_uids})
    if one.sop_instance_uids is not None or series.sop_instance_uids is not None:
        listed = dict.fromkeys([*(one.sop_instance_uids or ()), *(series.sop_instance_uids or ())])
        one.sop_instance_uids = list(listed)
        one.instances = len(listed)
    elif series.instances is not None:
        one.instances = max(series.instances, one.instances or 0)


def _as_listed(one: RetrievalSeries, patient_id: str) -> SeriesAtPeer:
    uids = one.sop_instance_uids
    return SeriesAtPeer(
        one.study_instance_uid,
        one.series_instance_uid,
        one.instances,
        None if uids is None else tuple(uids),
        frozenset(one.sop_class_uids),
        patient_id,
    )
