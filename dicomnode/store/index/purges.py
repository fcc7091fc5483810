"""Deleting files of series, their rows kept: first it is noted, then the files go, then it is noted that they are gone.

A node that is killed in between finishes at its next start. What came after the note is not touched.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, select, update
from sqlalchemy.orm import Session

from dicomnode.core.retention import Holdings
from dicomnode.core.review import RELEASED
from dicomnode.store.index.reviews import has_quarantined
from dicomnode.store.schema import (
    Instance,
    Job,
    JobState,
    NeedState,
    Origin,
    Outbox,
    OutboxState,
    Purge,
    Series,
    SeriesState,
    StudyNeed,
    Withdrawal,
)

DELETED = "deleted by retention"
"""Why a delivery was cancelled whose file is gone."""

_WAITING = [OutboxState.HELD.value, OutboxState.READY.value, OutboxState.WITHHELD.value]


@dataclass(frozen=True, slots=True)
class Noted:
    """A purge whose files are to be removed: their keys, and how many bytes they are."""

    series_row: int
    through: int
    files: tuple[str, ...]
    size_bytes: int


def file_is_gone() -> ColumnElement[bool]:
    """Of an instance, in a statement that names `Instance`."""
    return exists().where(Purge.series_row == Instance.series_row, Purge.through >= Instance.id)


def is_purged(session: Session, series_row: int) -> bool:
    """Whether active instances of a series have no file any more."""
    gone = select(Instance.id).where(Instance.series_row == series_row, Instance.active, file_is_gone())
    return session.scalar(gone.limit(1)) is not None


def are_purged(session: Session, series_instance_uids: Collection[str]) -> bool:
    """Whether active instances of any of the series have no file any more."""
    rows = session.scalars(select(Series.id).where(Series.series_instance_uid.in_(series_instance_uids)))
    return any(is_purged(session, row) for row in rows)


def purged_instances(session: Session, series_row: int) -> int:
    """How many active instances of a series have no file any more."""
    gone = select(func.count()).select_from(Instance)
    return session.scalar(gone.where(Instance.series_row == series_row, Instance.active, file_is_gone())) or 0


def without_file(session: Session, sop_instance_uids: Collection[str]) -> frozenset[int]:
    """Rows of those versions of instances that have no file any more."""
    gone = select(Instance.id).where(Instance.sop_instance_uid.in_(sop_instance_uids), file_is_gone())
    return frozenset(session.scalars(gone))


def purge_of(session: Session, series_row: int) -> Purge | None:
    return session.get(Purge, series_row)


def candidates(session: Session, after: int, before: float, limit: int) -> list[Series]:
    """Series, in the order of their rows from `after` on, that began before a time and have files."""
    any_at_all = exists().where(Instance.series_row == Series.id)
    newer = exists().where(Instance.series_row == Series.id, Instance.id > Purge.through)
    has_files = or_(
        and_(Purge.series_row.is_(None), any_at_all),
        and_(Series.last_at > Purge.at, newer),  # the times spare looking at the instances of all that was deleted
    )
    rows = (
        select(Series)
        .outerjoin(Purge, Purge.series_row == Series.id)
        .where(Series.id > after, Series.first_at < before, has_files)
        .order_by(Series.id)
        .limit(limit)
    )
    return list(session.scalars(rows))


def holdings(session: Session, series: Series) -> Holdings:
    """What speaks for and against deleting a series."""
    waiting, unconfirmed = session.execute(
        select(
            func.coalesce(func.sum(case((Outbox.state.in_(_WAITING), 1), else_=0)), 0),
            func.coalesce(func.sum(case((_is_unproven(), 1), else_=0)), 0),
        )
        .select_from(Outbox)
        .join(Instance, Instance.id == Outbox.instance_row)
        .where(Instance.series_row == series.id)
    ).one()
    arrived = exists().where(
        Outbox.instance_row == Instance.id, Outbox.state.in_([OutboxState.SENT, OutboxState.FAILED])
    )
    unrouted = select(func.count()).select_from(Instance)
    return Holdings(
        is_derived=series.origin == Origin.DERIVED,
        last_at=series.last_at,
        in_progress=waiting > 0 or _is_worked_on(session, series.study_row),
        quarantined=has_quarantined(session, series.id),
        unconfirmed=unconfirmed,
        unrouted=session.scalar(
            unrouted.where(Instance.series_row == series.id, Instance.active, ~_is_withdrawn(), ~arrived)
        )
        or 0,
    )


def note(session: Session, series: Series, reason: str, now: float) -> Noted:
    """Note that the files of a series go. What of it failed to arrive is not tried again."""
    count, through, size_bytes = session.execute(
        select(func.count(), func.max(Instance.id), func.coalesce(func.sum(Instance.size_bytes), 0)).where(
            Instance.series_row == series.id, ~file_is_gone()
        )
    ).one()
    members = select(Instance.id).where(Instance.series_row == series.id)
    session.execute(
        update(Outbox)
        .where(Outbox.instance_row.in_(members), Outbox.state == OutboxState.FAILED)
        .values(state=OutboxState.CANCELLED.value, reason=DELETED)
    )
    session.merge(
        Purge(
            series_row=series.id,
            through=through,
            instances=count,
            size_bytes=int(size_bytes),
            reason=reason,
            at=now,
            removed_at=None,
        )
    )
    session.flush()
    return _noted(session, session.get_one(Purge, series.id))


def unfinished(session: Session, limit: int) -> list[Noted]:
    """Purges that were noted, and whose files may still be there."""
    rows = select(Purge).where(Purge.removed_at.is_(None)).order_by(Purge.series_row).limit(limit)
    return [_noted(session, purge) for purge in session.scalars(rows)]


def finish(session: Session, noted: Noted, now: float) -> None:
    """Note that the files are gone."""
    session.execute(
        update(Purge).where(Purge.series_row == noted.series_row, Purge.through == noted.through).values(removed_at=now)
    )


def _noted(session: Session, purge: Purge) -> Noted:
    files = session.scalars(
        select(Instance.file).where(Instance.series_row == purge.series_row, Instance.id <= purge.through)
    )
    return Noted(purge.series_row, purge.through, tuple(files), purge.size_bytes)


def _is_unproven() -> ColumnElement[bool]:
    """Of a delivery that ended: nothing proves that it arrived. Of older versions, and of what holds no longer, nothing
    has to."""
    sent = and_(Outbox.state == OutboxState.SENT, Outbox.confirmed_at.is_(None))
    return and_(Instance.active, ~_is_withdrawn(), or_(sent, Outbox.state == OutboxState.FAILED))


def _is_withdrawn() -> ColumnElement[bool]:
    """Of a derived instance: another took its place, or its sources were rejected."""
    return exists().where(Withdrawal.instance_row == Instance.id)


def _is_worked_on(session: Session, study_row: int) -> bool:
    """Whether anything of a study arrives, is held, is worked on, or waits for more of it: an engine may read several
    of its series."""
    members = select(Series.id).where(Series.study_row == study_row)
    arriving = members.where(Series.state != SeriesState.CLOSED)
    released = and_(Job.state == JobState.WITHHELD, Job.review == RELEASED)  # and not taken up yet
    working = select(Job.id).where(
        Job.series_row.in_(members), or_(Job.state.in_([JobState.PLANNED.value, JobState.ENHANCED.value]), released)
    )
    needing = select(StudyNeed.id).where(
        StudyNeed.study_row == study_row,
        StudyNeed.state.in_([NeedState.WAITING.value, NeedState.DUE.value, NeedState.HELD.value]),
    )
    return any(session.scalar(rows.limit(1)) is not None for rows in (arriving, working, needing))
