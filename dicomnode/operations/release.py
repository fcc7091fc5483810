"""`dicomnode release` and `dicomnode discard`: what a person decides of results and deliveries that are kept back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.core import withholding
from dicomnode.core.review import DISMISSED, RELEASED, is_reviewable
from dicomnode.errors import InputError, NotFoundError
from dicomnode.operations.index import writing
from dicomnode.operations.terminal import printable_lines
from dicomnode.operations.wording import counted
from dicomnode.store.index import overview, reviews
from dicomnode.store.index.actions import record_action
from dicomnode.store.schema import Job, Series
from dicomnode.telemetry import event

_LONGEST_REASON: Final = 1000
_DONE: Final = {"release": RELEASED, "discard": "discarded"}


@dataclass(frozen=True)
class Decided:
    """What was released or discarded.

    jobs      row ids of jobs whose results a gate had withheld
    refused   sentences on jobs that cannot be released
    deliveries  instances that were kept back from destinations, each for each
    """

    what: str
    jobs: tuple[int, ...]
    refused: tuple[str, ...]
    deliveries: int
    in_commissioning: bool

    @property
    def is_partly(self) -> bool:
        return bool(self.refused)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        kept = " (the node is in commissioning: what is derived stays here)" if self.in_commissioning else ""
        then = f"; their derived objects are made now{kept}" if self.what == RELEASED else ""
        told = [f"{self.what}: job {', '.join(map(str, self.jobs))}{then}"] if self.jobs else []
        if self.deliveries or not self.jobs:
            told += [f"{self.what}: {counted(self.deliveries, 'delivery').replace('deliverys', 'deliveries')}"]
        return printable_lines((*told, *self.refused))


def release(config: Config, subject: str, reason: str) -> Decided:
    """Let go what waits for a person: a job's result (by its number), or all that is kept back of a series or study.

    Raises NotFoundError where nothing waits, InputError where nothing of it can be released.
    """
    reason, now = _checked(reason), time.time()
    with writing(config) as session:
        jobs, series = _subject(session, subject)
        fit = [job for job in jobs if _is_fit(job)]
        for job in fit:
            job.review = RELEASED
            record_action(session, "release", f"job {job.id}", reason, now)
        count = sum(_release_series(session, config, one, reason, now) for one in series)
        unfit = tuple(_unfit(job) for job in jobs if job not in fit)
    _require_some(subject, len(fit) + count, unfit)
    return _told(_DONE["release"], fit, unfit, count, in_commissioning=config.node.commissioning)


def discard(config: Config, subject: str, reason: str) -> Decided:
    """Let never leave what waits for a person. Raises NotFoundError where nothing waits."""
    reason, now = _checked(reason), time.time()
    with writing(config) as session:
        jobs, series = _subject(session, subject)
        for job in jobs:
            job.review = DISMISSED
            record_action(session, "discard", f"job {job.id}", reason, now)
        count = sum(_discard_series(session, one, reason, now) for one in series)
    _require_some(subject, len(jobs) + count, ())
    return _told(_DONE["discard"], jobs, (), count, in_commissioning=False)


def release_commissioned(config: Config, since: float, reason: str) -> Decided:
    """Let go everything that commissioning kept back since a time."""
    return _all_commissioned(config, since, reason, "release")


def discard_commissioned(config: Config, since: float, reason: str) -> Decided:
    """Let never leave what commissioning kept back since a time."""
    return _all_commissioned(config, since, reason, "discard")


def _all_commissioned(config: Config, since: float, reason: str, what: str) -> Decided:
    reason, now = _checked(reason), time.time()
    with writing(config) as session:
        count = _apply(session, config, reviews.in_commissioning(since), what, now)
        if count:
            record_action(session, what, withholding.COMMISSIONING, reason, now)
    if not count:
        raise NotFoundError("commissioning keeps nothing back of that time", "see what it keeps: dicomnode status")
    return _told(_DONE[what], (), (), count, in_commissioning=False)


def _apply(session: Session, config: Config, which: ColumnElement[bool], what: str, now: float) -> int:
    if what == "discard":
        return reviews.discard(session, which, now)
    checked = [name for name, destination in config.destination.items() if destination.check_patient]
    return reviews.release(session, which, checked, now)


def _release_series(session: Session, config: Config, series: Series, reason: str, now: float) -> int:
    count = _apply(session, config, reviews.of_series(series.id), "release", now)
    if count:
        record_action(session, "release", series.series_instance_uid, reason, now)
    return count


def _discard_series(session: Session, series: Series, reason: str, now: float) -> int:
    count = reviews.discard(session, reviews.of_series(series.id), now)
    if count:
        record_action(session, "discard", series.series_instance_uid, reason, now)
    return count


def _subject(session: Session, subject: str) -> tuple[list[Job], list[Series]]:
    """Withheld jobs and the series that a job's number, a UID or an accession number names."""
    number = subject.removeprefix("job:")  # as the quarantine lists it
    job = session.get(Job, int(number)) if number.isascii() and number.isdigit() and len(number) < 10 else None
    if job is not None:  # one of an earlier closing of its series was superseded
        return [one for one in reviews.jobs_to_release(session, job.series_row) if one.id == job.id], []
    series = overview.series_about(session, subject)
    if not series:
        raise NotFoundError(
            "nothing is known by that number, UID or accession number",
            "see what waits: dicomnode quarantine list, dicomnode jobs list --withheld",
        )
    return [job for one in series for job in reviews.jobs_to_release(session, one.id)], series


def _is_fit(job: Job) -> bool:
    return is_reviewable({"state": job.state, "stages": job.stages})


def _unfit(job: Job) -> str:
    return (
        f"job {job.id} cannot be released: its result is no image of the source any more, and was not kept "
        f"({'; '.join(job.reasons)})"
    )


def _require_some(subject: str, found: int, unfit: Sequence[str]) -> None:
    if not found and unfit:
        raise InputError(unfit[0], "see docs/care.md; after a fix: dicomnode quarantine requeue")
    if not found:
        raise NotFoundError(f"nothing of {subject} waits for a person", "see what does: dicomnode quarantine list")


def _checked(reason: str) -> str:
    """A reason for the audit trail: text, not endless."""
    text = " ".join(reason.split())
    if not 1 <= len(text) <= _LONGEST_REASON:
        raise InputError("a reason is needed, of at most 1000 characters", 'add --reason "..."')
    return text


def _told(what: str, jobs: Sequence[Job], refused: tuple[str, ...], count: int, *, in_commissioning: bool) -> Decided:
    event("review_decided", state=what, instances=count)
    return Decided(what, tuple(job.id for job in jobs), refused, count, in_commissioning)
