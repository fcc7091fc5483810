"""Routing plans and jobs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from dicomnode.store.schema import UNPLANNED, Instance, Job, JobState, Plan, Series, SeriesState


def _new_job(place: tuple[int, int, int], content: dict[str, Any], instance_rows: list[int], now: float) -> Job:
    series_row, generation, ordinal = place
    return Job(
        series_row=series_row,
        generation=generation,
        ordinal=ordinal,
        content=content,
        instance_rows=instance_rows,
        state=JobState.PLANNED.value,
        reasons=[],
        stages=[],
        derived_series=[],
        result=None,
        review="",
        supersedes=None,
        superseded_by=None,
        created_at=now,
        updated_at=now,
    )


def add_job(
    session: Session, closing: tuple[int, int], content: dict[str, Any], instance_rows: list[int], now: float
) -> Job:
    """One more job for a closing (series row, generation) that has a plan: a rule that waited for other series."""
    series_row, generation = closing
    last = session.scalar(
        select(func.max(Job.ordinal)).where(Job.series_row == series_row, Job.generation == generation)
    )
    job = _new_job((series_row, generation, 0 if last is None else last + 1), content, instance_rows, now)
    session.add(job)
    session.flush()
    return job


def record_plan(
    session: Session,
    series_row: int,
    generation: int,
    content: dict[str, Any],
    jobs: Sequence[tuple[dict[str, Any], list[int]]],
    now: float,
) -> list[Job]:
    """Store the plan of one closing with its jobs (planned job, instance rows); the jobs.

    A plan that is there already stays, with its jobs: the first decision holds.
    """
    known = session.scalars(select(Plan).where(Plan.series_row == series_row, Plan.generation == generation)).first()
    if known is None:
        session.add(
            Plan(
                series_row=series_row,
                generation=generation,
                created_at=now,
                content=content,
                trouble="failed" if "failed" in content else "unreadable" if content.get("unreadable") else "",
                review="",
            )
        )
        session.add_all(
            _new_job((series_row, generation, ordinal), planned, instance_rows, now)
            for ordinal, (planned, instance_rows) in enumerate(jobs)
        )
        session.execute(
            update(Series)
            .where(Series.id == series_row, Series.planned_generation < generation)
            .values(planned_generation=generation)
        )
        session.flush()
    rows = select(Job).where(Job.series_row == series_row, Job.generation == generation).order_by(Job.ordinal)
    return list(session.scalars(rows))


def job(session: Session, job_row: int) -> Job:
    return session.scalars(select(Job).where(Job.id == job_row)).one()


def job_instances(session: Session, found: Job) -> list[Instance]:
    """The instances of a job's stack, in the stack's order."""
    return instances_of(session, found.instance_rows)


def instances_of(session: Session, rows: Sequence[int]) -> list[Instance]:
    """Instances by their rows, in this order."""
    by_id = {row.id: row for row in session.scalars(select(Instance).where(Instance.id.in_(rows)))}
    return [by_id[row] for row in rows]


def other_inputs(found: Job, taken: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
    """Of the series that a job's rule needs those beside its own, by the name of the need: what fulfils it.

    taken  the inputs of its engines; None: those of the engines that ran, or all where none did
    """
    if taken is None and found.stages:
        taken = {name for stage in found.stages for name in stage.get("inputs", ())}
    inputs: Mapping[str, dict[str, Any]] = found.content.get("inputs", {})
    return {
        name: one
        for name, one in sorted(inputs.items())
        if (taken is None or name in taken) and one["instance_rows"] != found.instance_rows
    }


def record_result(
    session: Session, job_row: int, state: JobState, report: Mapping[str, Any], result: str | None, now: float
) -> None:
    """Store what the engines reported: `report` has `reasons` and `stages`. What is withheld is to be looked at, though
    a person had released what was computed before."""
    found = job(session, job_row)
    found.state = state.value
    if state == JobState.WITHHELD:
        found.review = ""
    found.reasons = list(report["reasons"])
    found.stages = list(report["stages"])
    found.result = result
    found.updated_at = now


def end_job(session: Session, job_row: int, state: JobState, reasons: Sequence[str], now: float) -> None:
    found = job(session, job_row)
    found.state = state.value
    found.reasons = list(reasons)
    found.updated_at = now


def unplanned_series(session: Session, closed_before: float) -> list[Series]:
    """Closed series whose last closing has no plan yet."""
    rows = select(Series).where(UNPLANNED, Series.state == SeriesState.CLOSED, Series.closed_at < closed_before)
    return list(session.scalars(rows))


def unfinished_jobs(session: Session) -> list[Job]:
    """Jobs that have not come to an end."""
    return list(session.scalars(select(Job).where(Job.state.in_([JobState.PLANNED, JobState.ENHANCED]))))
