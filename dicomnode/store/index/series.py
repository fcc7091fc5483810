"""Series: which are due to be judged, what speaks for their completeness, and closing them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session

from dicomnode.core.types import ArrivalEvidence, AssociationEnd, CompletenessPolicy, Verdict
from dicomnode.store.schema import Association, Instance, Outbox, OutboxState, Series, SeriesState


def due_series(session: Session, now: float, limit: int = 50) -> list[Series]:
    """Series whose completeness is to be judged now, the longest due first."""
    due = select(Series).where(Series.state == SeriesState.RECEIVING, Series.due_at <= now)
    return list(session.scalars(due.order_by(Series.due_at).limit(limit)))


def evidence(session: Session, series: Series) -> ArrivalEvidence:
    """What is known of the arrival of a series."""
    carriers = select(Instance.association_row).where(Instance.series_row == series.id).distinct()
    ends = session.scalars(select(Association.ended).where(Association.id.in_(carriers))).all()
    return ArrivalEvidence(
        instances=session.scalar(select(func.count()).select_from(Instance).where(_active_in(series))) or 0,
        first_at=series.first_at,
        last_at=series.last_at,
        open_associations=sum(end is None for end in ends),
        ended=tuple(AssociationEnd(end) for end in ends if end is not None),
        expected=series.expected,
        expected_source=series.expected_source,
        positions_mm=_positions(session, series),
    )


def policy(series: Series) -> CompletenessPolicy:
    return CompletenessPolicy(series.quiet_s, series.released_quiet_s, series.deadline_s)


def postpone(session: Session, series: Series, until: float) -> None:
    """Judge again at `until`, unless an instance has moved the time since."""
    session.execute(
        update(Series)
        .where(Series.id == series.id, Series.due_at == series.due_at, Series.state == SeriesState.RECEIVING)
        .values(due_at=until)
    )


def close(session: Session, series: Series, verdict: Verdict, now: float) -> int | None:
    """Close a series and let what waited for it go; its generation, or None if an instance came in between."""
    closed = session.execute(
        update(Series)
        .where(Series.id == series.id, Series.state == SeriesState.RECEIVING, Series.last_at == series.last_at)
        .values(
            state=SeriesState.CLOSED.value,
            generation=Series.generation + 1,
            due_at=None,
            closed_at=now,
            verdict=asdict(verdict),
        )
        .returning(Series.generation)
    ).scalar()
    if closed is not None:
        release_held(session, series.id, now)
    return closed


def release_held(session: Session, series_row: int, now: float) -> None:
    """Make the held outbox rows of a series ready."""
    members = select(Instance.id).where(Instance.series_row == series_row)
    session.execute(
        update(Outbox)
        .where(Outbox.instance_row.in_(members), Outbox.state == OutboxState.HELD)
        .values(state=OutboxState.READY.value, next_attempt_at=now)
    )


def active_instances(session: Session, series_row: int) -> list[Instance]:
    """The newest version of each instance of a series, in order of arrival."""
    rows = select(Instance).where(Instance.series_row == series_row, Instance.active).order_by(Instance.id)
    return list(session.scalars(rows))


def _active_in(series: Series) -> ColumnElement[bool]:
    return and_(Instance.series_row == series.id, Instance.active)


def _positions(session: Session, series: Series) -> tuple[tuple[float, ...], ...]:
    placed = select(Instance.orientation, Instance.position_mm).where(_active_in(series))
    groups: dict[str, list[float]] = defaultdict(list)
    for orientation, position_mm in session.execute(placed):
        if orientation is not None and position_mm is not None:
            groups[orientation].append(position_mm)
    return tuple(tuple(sorted(group)) for _, group in sorted(groups.items()))
