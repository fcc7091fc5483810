"""What waits for a person, and what a person decides: release, discard, requeue, dismiss.

Quarantine is a view over plans and jobs: what is to be looked at belongs to the last closing of its series. A series
that is requeued is closed again, and what was to be looked at is then of an earlier closing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, and_, func, not_, or_, select, update
from sqlalchemy.orm import Session

from dicomnode.core.review import DISMISSED
from dicomnode.core.withholding import COMMISSIONING, DISCARDED, NEVER, NOT_CHECKED, RELEASED
from dicomnode.store.schema import (
    Destination,
    Instance,
    Job,
    JobState,
    Origin,
    Outbox,
    OutboxState,
    Plan,
    Series,
    SeriesState,
)

QUARANTINED: Final = (JobState.FAILED, JobState.REFUSED, JobState.WITHHELD)
"""How a job ends that somebody should look at."""

_PLANS: Final = and_(
    Series.id == Plan.series_row,
    Series.generation == Plan.generation,
    Series.state == SeriesState.CLOSED,
    Plan.trouble != "",
    Plan.review == "",
)
_JOBS: Final = and_(
    Series.id == Job.series_row,
    Series.generation == Job.generation,
    Series.state == SeriesState.CLOSED,
    Job.state.in_([state.value for state in QUARANTINED]),
    Job.review == "",
)


@dataclass(frozen=True, slots=True)
class Withheld:
    """Deliveries that wait at one destination for one reason."""

    destination: str
    reason: str
    instances: int
    series: int


def plans_in_quarantine(session: Session, limit: int | None = None) -> list[tuple[Plan, Series]]:
    """Plans that could not be made or that left instances out, the newest first."""
    return list(session.execute(select(Plan, Series).where(_PLANS).order_by(Plan.id.desc()).limit(limit)))


def jobs_in_quarantine(session: Session, limit: int | None = None) -> list[tuple[Job, Series]]:
    """Jobs that failed, were refused or withheld, the newest first."""
    return list(session.execute(select(Job, Series).where(_JOBS).order_by(Job.id.desc()).limit(limit)))


def quarantine_counts(session: Session) -> dict[str, int]:
    """How much is in quarantine, by what it is: `failed plan`, `unreadable`, and the states of jobs."""
    plans = session.execute(select(Plan.trouble, func.count()).where(_PLANS).group_by(Plan.trouble)).all()
    jobs = session.execute(select(Job.state, func.count()).where(_JOBS).group_by(Job.state)).all()
    found = {"failed plan" if trouble == "failed" else trouble: count for trouble, count in plans}
    return found | {state: count for state, count in jobs}  # noqa: C416  a Row is no tuple to mypy


def withheld_deliveries(session: Session, destinations: Collection[str] = ()) -> list[Withheld]:
    """What waits for a person or a check, by destination and reason: of all that were ever sent to, and of these.

    Each is asked for by itself: there is an index by destination and state, and none by state.
    """
    names = sorted({*destinations, *session.scalars(select(Destination.name))})
    return [one for name in names for one in _withheld_from(session, name)]


def _withheld_from(session: Session, destination: str) -> list[Withheld]:
    rows = session.execute(
        select(Outbox.reason, func.count(), func.count(func.distinct(Instance.series_row)))
        .join(Instance, Instance.id == Outbox.instance_row)
        .where(Outbox.destination == destination, Outbox.state == OutboxState.WITHHELD)
        .group_by(Outbox.reason)
        .order_by(Outbox.reason)
    )
    return [Withheld(destination, reason or "", count, series) for reason, count, series in rows]


def reopen(session: Session, series: Series, now: float) -> bool:
    """Have a closed series judged and routed again; False where that is under way already."""
    if series.state != SeriesState.CLOSED:
        return False
    series.state = SeriesState.RECEIVING.value
    series.due_at = now
    return True


def has_quarantined(session: Session, series_row: int) -> bool:
    """Whether something of a series is in quarantine."""
    plan = select(Plan.id).where(_PLANS, Series.id == series_row)
    job = select(Job.id).where(_JOBS, Series.id == series_row)
    return session.scalar(plan.limit(1)) is not None or session.scalar(job.limit(1)) is not None


def dismiss(found: Plan | Job) -> None:
    """Let something need nobody's attention any more."""
    found.review = DISMISSED


def jobs_to_release(session: Session, series_row: int) -> list[Job]:
    """Jobs of a series' last closing whose results a gate withheld, and nobody has decided on."""
    rows = select(Job).where(_JOBS, Series.id == series_row, Job.state == JobState.WITHHELD)
    return list(session.scalars(rows.order_by(Job.id)))


def released_jobs(session: Session, review: str, limit: int = 50) -> list[Job]:
    """Withheld jobs that a person has decided to release, and that were not taken up yet."""
    rows = select(Job).where(Job.state == JobState.WITHHELD, Job.review == review)
    return list(session.scalars(rows.order_by(Job.id).limit(limit)))


def take_up(session: Session, job_row: int, now: float) -> bool:
    """Let a released job go on to its derived objects; False where another process has seen to it."""
    taken = session.execute(
        update(Job)
        .where(Job.id == job_row, Job.state == JobState.WITHHELD)
        .values(state=JobState.ENHANCED.value, updated_at=now)
        .returning(Job.id)
    ).scalar()
    return taken is not None


def results_withheld_before(session: Session, before: float, limit: int = 50) -> list[Job]:
    """Withheld jobs that ended so long ago that their results are not kept any more."""
    rows = select(Job).where(Job.state == JobState.WITHHELD, Job.result.is_not(None), Job.updated_at < before)
    return list(session.scalars(rows.order_by(Job.id).limit(limit)))


def forget_results(session: Session, job_rows: Collection[int]) -> None:
    """Note that results of withheld jobs are not kept any more."""
    session.execute(update(Job).where(Job.id.in_(job_rows), Job.state == JobState.WITHHELD).values(result=None))


def of_series(series_row: int) -> ColumnElement[bool]:
    """Withheld deliveries of a series itself, and of what was derived from it."""
    jobs = select(Job.id).where(Job.series_row == series_row)
    derived = select(Series.id).where(Series.job_row.in_(jobs))
    members = select(Instance.id).where(or_(Instance.series_row == series_row, Instance.series_row.in_(derived)))
    return Outbox.instance_row.in_(members)


def in_commissioning(since: float) -> ColumnElement[bool]:
    """Deliveries that commissioning keeps back, made at `since` or later."""
    return and_(Outbox.reason == COMMISSIONING, Outbox.created_at >= since)


def release(session: Session, which: ColumnElement[bool], checked: Collection[str], now: float) -> int:
    """Let withheld deliveries leave; how many.

    checked  destinations that are asked about the patient first: what commissioning kept from them waits for that
    """
    waiting = and_(Outbox.state == OutboxState.WITHHELD, which)
    to_check = and_(Outbox.reason == COMMISSIONING, Outbox.destination.in_(checked))
    leaving = session.execute(
        update(Outbox)
        .where(waiting, not_(to_check))
        .values(state=OutboxState.READY.value, reason=RELEASED, next_attempt_at=now, created_at=now)
        .returning(Outbox.id)
    ).all()
    first = session.execute(
        update(Outbox)
        .where(waiting, to_check)
        .values(reason=NOT_CHECKED, next_attempt_at=now, created_at=now)
        .returning(Outbox.id)
    ).all()
    return len(first) + len(leaving)


def discard(session: Session, which: ColumnElement[bool], now: float) -> int:
    """Let withheld deliveries never leave; how many."""
    ended = session.execute(
        update(Outbox)
        .where(Outbox.state == OutboxState.WITHHELD, which)
        .values(state=OutboxState.CANCELLED.value, reason=DISCARDED, finished_at=now)
        .returning(Outbox.id)
    ).all()
    return len(ended)


def skip_checks(session: Session, asked: Collection[str], now: float) -> int:
    """Let leave what waits to be compared with destinations that are not asked; how many."""
    leaving = session.execute(
        update(Outbox)
        .where(
            Outbox.state == OutboxState.WITHHELD, Outbox.reason == NOT_CHECKED, Outbox.destination.not_in(list(asked))
        )
        .values(state=OutboxState.READY.value, reason=None, next_attempt_at=now, created_at=now)
        .returning(Outbox.id)
    ).all()
    return len(leaving)


def withhold_derived(session: Session, rules: Collection[str] | None) -> int:
    """Keep back what is derived and has not left yet, as commissioning has begun; how many. What was released leaves.

    rules  those that are being tried out; None is the whole node
    """
    rows = select(Outbox).where(
        Outbox.state == OutboxState.READY, Outbox.origin == Origin.DERIVED, Outbox.reason.is_(None)
    )
    kept = [row for row in session.scalars(rows) if rules is None or set(row.rules) <= set(rules)]
    for row in kept:
        row.state, row.reason, row.next_attempt_at = OutboxState.WITHHELD.value, COMMISSIONING, NEVER
    return len(kept)
