"""Series: which are due to be judged, what speaks for their completeness, and closing them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session

from dicomnode.core.quiet import Carried, unresumed
from dicomnode.core.types import (
    ArrivalEvidence,
    AssociationEnd,
    Completeness,
    CompletenessPolicy,
    Expected,
    OnDeadline,
    Verdict,
)
from dicomnode.store.index import pace
from dicomnode.store.index.arrivals import waiting_policy
from dicomnode.store.index.expectations import expectations_of
from dicomnode.store.schema import (
    Association,
    ExpectationRow,
    Instance,
    Outbox,
    OutboxState,
    Series,
    SeriesState,
    Study,
)


def due_series(session: Session, now: float, limit: int = 50) -> list[Series]:
    """Series whose completeness is to be judged now, the longest due first."""
    due = select(Series).where(Series.state == SeriesState.RECEIVING, Series.due_at <= now)
    return list(session.scalars(due.order_by(Series.due_at).limit(limit)))


def evidence(session: Session, series: Series) -> ArrivalEvidence:
    """What is known of the arrival of a series."""
    known = list(pace.carriers(session, series.id).values())
    resumed = _resumed(known)
    sender = pace.last_sender(session, series.id)
    return ArrivalEvidence(
        instances=session.scalar(select(func.count()).select_from(Instance).where(_active_in(series))) or 0,
        first_at=series.first_at,
        last_at=series.last_at,
        open_associations=sum(one.how is None for one in known),
        ended=tuple(one.how for one in known if one.how is not None and one not in resumed),
        expected=series.expected,
        expected_source=series.expected_source,
        positions_mm=_positions(session, series),
        opened_at=series.opened_at,
        expectations=_expectations(session, series),
        resumed=len(resumed),
        senders=_senders(session, series),
        moved_on=sender is not None and pace.moved_on(session, series, sender),
        siblings_arriving=_siblings_arriving(session, series),
        quiet=None if sender is None else pace.pace_of(session, sender).quiet(policy(series)),
    )


def policy(series: Series) -> CompletenessPolicy:
    return waiting_policy(series)


def incompleteness(series: Series) -> list[str]:
    """What is missing of a closed series, where what follows from it is to say so; else nothing."""
    verdict = series.verdict
    if verdict is None or verdict["state"] != Completeness.INCOMPLETE or series.on_deadline == OnDeadline.PROCEED:
        return []
    return list(verdict["reasons"])


def held_series(session: Session, limit: int) -> list[Series]:
    """Series that wait for a person, the longest first."""
    held = select(Series).where(Series.state == SeriesState.HELD)
    return list(session.scalars(held.order_by(Series.last_at, Series.id).limit(limit)))


def postpone(session: Session, series: Series, verdict: Verdict, until: float) -> None:
    """Judge again at `until`, unless something has moved the time since; keep what it waits for."""
    session.execute(
        update(Series)
        .where(Series.id == series.id, Series.due_at == series.due_at, Series.state == SeriesState.RECEIVING)
        .values(due_at=until, verdict=asdict(verdict))
    )


def close(session: Session, series: Series, verdict: Verdict, now: float) -> int | None:
    """Close a series and let what waited for it go; its generation, or None if an instance came in between.

    What it teaches of its sender's pauses is learned.
    """
    closed = session.execute(
        update(Series)
        .where(_as_judged(series))
        .values(
            state=SeriesState.CLOSED.value,
            generation=Series.generation + 1,
            due_at=None,
            closed_at=now,
            close_by=None,
            verdict=asdict(verdict),
        )
        .returning(Series.generation)
        .execution_options(synchronize_session=False)
    ).scalar()
    if closed is not None:
        pace.learn(session, series, policy(series), now)
        release_held(session, series.id, now)
    return closed


def hold(session: Session, series: Series, verdict: Verdict) -> bool:
    """Keep an incomplete series until a person closes it; False if an instance came, or a person did, in between."""
    held = session.execute(
        update(Series)
        .where(_as_judged(series), Series.close_by.is_(None))
        .values(state=SeriesState.HELD.value, due_at=None, verdict=asdict(verdict))
        .returning(Series.id)
        .execution_options(synchronize_session=False)
    ).scalar()
    return held is not None


def ask_to_close(session: Session, series: Series, who: str, now: float) -> bool:
    """Have a series closed at once, whatever is missing; False where it is closed. The node does it when it runs."""
    asked = session.execute(
        update(Series)
        .where(Series.id == series.id, Series.state != SeriesState.CLOSED)
        .values(state=SeriesState.RECEIVING.value, close_by=who, due_at=now)
        .returning(Series.id)
        .execution_options(synchronize_session=False)
    ).scalar()
    return asked is not None


def release_held(session: Session, series_row: int, now: float) -> None:
    """Make the held outbox rows of a series ready. What they waited for it took none of a destination's patience."""
    members = select(Instance.id).where(Instance.series_row == series_row)
    session.execute(
        update(Outbox)
        .where(Outbox.instance_row.in_(members), Outbox.state == OutboxState.HELD)
        .values(state=OutboxState.READY.value, next_attempt_at=now, created_at=now)
    )


def active_instances(session: Session, series_row: int) -> list[Instance]:
    """The newest version of each instance of a series, in order of arrival."""
    rows = select(Instance).where(Instance.series_row == series_row, Instance.active).order_by(Instance.id)
    return list(session.scalars(rows))


def _as_judged(series: Series) -> ColumnElement[bool]:
    return and_(Series.id == series.id, Series.state == SeriesState.RECEIVING.value, Series.last_at == series.last_at)


def _active_in(series: Series) -> ColumnElement[bool]:
    return and_(Instance.series_row == series.id, Instance.active)


def _resumed(carriers: Sequence[Carried]) -> list[Carried]:
    """Those that broke off, but the sender has opened another since."""
    open_ends = list(unresumed(carriers))
    broken = [one for one in carriers if one.how not in (None, AssociationEnd.RELEASED)]
    return [one for one in broken if one not in open_ends]


def _senders(session: Session, series: Series) -> tuple[str, ...]:
    carrying = select(Instance.association_row).where(Instance.series_row == series.id).distinct()
    titles = select(Association.calling_ae).where(Association.id.in_(carrying)).distinct()
    return tuple(session.scalars(titles.order_by(Association.calling_ae)))


def _siblings_arriving(session: Session, series: Series) -> int:
    beside = select(func.count()).where(
        Series.study_row == series.study_row, Series.id != series.id, Series.state == SeriesState.RECEIVING
    )
    return session.scalar(beside) or 0


def _expectations(session: Session, series: Series) -> tuple[Expected, ...]:
    study = session.get_one(Study, series.study_row).study_instance_uid
    told = expectations_of(session, study, series.series_instance_uid)
    listed = any(row.sop_instance_uids for row in told)
    here = set(session.scalars(select(Instance.sop_instance_uid).where(_active_in(series)))) if listed else set()
    return tuple(_expected(row, here) for row in told)


def _expected(row: ExpectationRow, here: set[str]) -> Expected:
    uids = list(dict.fromkeys(row.sop_instance_uids or ()))
    instances = len(uids) if row.instances is None else row.instances
    return Expected(row.source, row.peer, instances, tuple(uid for uid in uids if uid not in here))


def _positions(session: Session, series: Series) -> tuple[tuple[float, ...], ...]:
    placed = select(Instance.orientation, Instance.position_mm).where(_active_in(series))
    groups: dict[str, list[float]] = defaultdict(list)
    for orientation, position_mm in session.execute(placed):
        if orientation is not None and position_mm is not None:
            groups[orientation].append(position_mm)
    return tuple(tuple(sorted(group)) for _, group in sorted(groups.items()))
