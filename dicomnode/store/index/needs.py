"""Rules that need several series of a study: one row per study and rule, whose due time moves with each closing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.core.rules.needs import Fulfilled, missing
from dicomnode.core.types import OnDeadline
from dicomnode.store.index import jobs as job_index
from dicomnode.store.index.series import incompleteness
from dicomnode.store.schema import Job, JobState, NeedState, Series, StudyNeed

_ROUTED_WITHIN_S: Final = 600.0
"""A routing that has not come within this time was lost on its way, and is asked for again."""


@dataclass(frozen=True, slots=True)
class Closing:
    """A closing of a series, with the instance rows of each of its stacks."""

    series: Series
    generation: int
    members: Mapping[str, list[int]]


def note_closing(session: Session, closing: Closing, found: Sequence[Fulfilled], now: float) -> list[dict[str, Any]]:
    """Enter what a closed series fulfils; for each rule, in words for the plan, what is met and what is missing."""
    told = []
    for fulfilled in found:
        row = _row(session, closing.series, fulfilled)
        news = {
            need: _input(closing, stack_key)
            for need, stack_key in fulfilled.stacks.items()
            if need not in row.met or row.met[need]["series_row"] == closing.series.id
        }
        if any(row.met.get(need) != one for need, one in news.items()):
            row.met = {**row.met, **news}
            row.state, row.due_at = NeedState.WAITING.value, now + closing.series.deadline_s
            row.on_deadline = OnDeadline(row.on_deadline).tightened(OnDeadline(closing.series.on_deadline)).value
            if fulfilled.needs[0] in news:
                row.content = asdict(fulfilled.job)
            if not missing(row.needs, row.met):
                row.state = NeedState.DUE.value
        told.append(
            {
                "rule": row.rule,
                "met": {need: one["series_instance_uid"] for need, one in row.met.items()},
                "missing": list(missing(row.needs, row.met)),
            }
        )
    session.flush()
    return told


def fire(session: Session, study_row: int, now: float) -> list[Job]:
    """Make the jobs of the study's rules that wait for nothing more; each gets all inputs in its content.

    Returns them, with those that were made before and have not begun: a routing that is repeated hands them on again.
    """
    of_study = select(StudyNeed).where(StudyNeed.study_row == study_row).order_by(StudyNeed.id)
    rows = session.scalars(of_study).all()
    for row in rows:
        if row.state == NeedState.DUE:
            _fire(session, row, now)
    made = [row.job_row for row in rows if row.job_row is not None]
    planned = select(Job).where(Job.id.in_(made), Job.state == JobState.PLANNED)
    return list(session.scalars(planned.order_by(Job.id)))


def due_needs(session: Session, now: float) -> list[StudyNeed]:
    """Rules that have waited for other series of a study until their deadline, and those whose routing was lost."""
    open_states = (NeedState.WAITING, NeedState.DUE)
    due = select(StudyNeed).where(StudyNeed.state.in_(open_states), StudyNeed.due_at <= now)
    return list(session.scalars(due.order_by(StudyNeed.due_at)))


def end_waiting(session: Session, need: StudyNeed, now: float) -> NeedState | None:
    """End the waiting of a rule at its deadline; what it is then, or None where another closing came in between."""
    row = session.get_one(StudyNeed, need.id)
    if row.state != need.state or row.due_at != need.due_at:
        return None
    if row.state == NeedState.DUE:
        row.due_at = now + _ROUTED_WITHIN_S
        return NeedState.DUE
    state = NeedState.HELD if row.on_deadline == OnDeadline.HOLD else NeedState.DUE
    if row.needs[0] not in row.met:
        state = NeedState.ENDED
    row.state, row.due_at = state.value, now + _ROUTED_WITHIN_S if state == NeedState.DUE else None
    return state


def give_up(session: Session, series_row: int) -> None:
    """End the rules whose input is a series that cannot be routed."""
    study_row = session.get_one(Series, series_row).study_row
    for row in needs_of(session, study_row):
        main = row.met.get(row.needs[0])
        if row.state == NeedState.DUE and main is not None and main["series_row"] == series_row:
            row.state, row.due_at = NeedState.ENDED.value, None


def forget_rejected(session: Session, study_rows: Collection[int], rejected: Collection[int], now: float) -> set[int]:
    """Take rejected instances out of what fulfils rules; the series that did, to be planned again without them."""
    series_rows: set[int] = set()
    for row in session.scalars(select(StudyNeed).where(StudyNeed.study_row.in_(study_rows)).order_by(StudyNeed.id)):
        gone = {need: one for need, one in row.met.items() if not set(rejected).isdisjoint(one["instance_rows"])}
        if not gone:
            continue
        row.met = {need: one for need, one in row.met.items() if need not in gone}
        if row.state in (NeedState.DUE, NeedState.HELD):
            row.state, row.due_at = NeedState.WAITING.value, now if row.due_at is None else row.due_at
        series_rows |= {one["series_row"] for one in gone.values()}
    session.flush()
    return series_rows


def go_on(session: Session, study_row: int, now: float) -> list[StudyNeed]:
    """Wait no longer for other series of a study, as a person says: its rules go on with what there is."""
    waiting = (NeedState.WAITING, NeedState.HELD)
    rows = select(StudyNeed).where(StudyNeed.study_row == study_row, StudyNeed.state.in_(waiting))
    found = list(session.scalars(rows))
    for row in found:
        row.state, row.due_at = NeedState.WAITING.value, now
        row.on_deadline = OnDeadline.FLAG.value
    return found


def needs_of(session: Session, study_row: int) -> list[StudyNeed]:
    return list(session.scalars(select(StudyNeed).where(StudyNeed.study_row == study_row).order_by(StudyNeed.id)))


def held_needs(session: Session, limit: int) -> list[StudyNeed]:
    """Rules that wait for a person, the oldest first."""
    held = select(StudyNeed).where(StudyNeed.state == NeedState.HELD)
    return list(session.scalars(held.order_by(StudyNeed.id).limit(limit)))


def _row(session: Session, series: Series, fulfilled: Fulfilled) -> StudyNeed:
    found = session.scalars(
        select(StudyNeed).where(StudyNeed.study_row == series.study_row, StudyNeed.rule == fulfilled.rule)
    ).first()
    if found is None:
        found = StudyNeed(
            study_row=series.study_row, rule=fulfilled.rule, needs=[], met={}, content=None,
            on_deadline=series.on_deadline, state=NeedState.WAITING.value, due_at=None, job_row=None,
        )  # fmt: skip
        session.add(found)
    if found.needs != list(fulfilled.needs):  # the rule was changed: what its new needs are, is not known of old series
        found.needs, found.met, found.content, found.job_row = list(fulfilled.needs), {}, None, None
    return found


def _input(closing: Closing, stack_key: str) -> dict[str, Any]:
    return {
        "series_row": closing.series.id,
        "generation": closing.generation,
        "series_instance_uid": closing.series.series_instance_uid,
        "stack_key": stack_key,
        "instance_rows": closing.members[stack_key],
        "incomplete": incompleteness(closing.series),
    }


def _fire(session: Session, row: StudyNeed, now: float) -> None:
    main = row.met[row.needs[0]]
    lacking = [f"no series fulfils {need!r}" for need in missing(row.needs, row.met)]
    incomplete = [f"{need}: {reason}" for need, one in row.met.items() for reason in one["incomplete"]]
    content = {**(row.content or {}), "inputs": row.met, "source_incomplete": [*lacking, *incomplete]}
    job = job_index.add_job(session, (main["series_row"], main["generation"]), content, main["instance_rows"], now)
    row.state, row.due_at, row.job_row = NeedState.FIRED.value, None, job.id
