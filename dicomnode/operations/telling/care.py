"""What is kept back, what is in quarantine, what was deleted, and how long the disk will do: for `status` and `why`."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.core.disk import Level, Marks, Sample, days_left, level
from dicomnode.core.review import DISMISSED, RELEASED
from dicomnode.core.withholding import COMMISSIONING
from dicomnode.operations.wording import counted
from dicomnode.store.files import free_bytes
from dicomnode.store.index import checks, overview, purges, reviews
from dicomnode.store.index import disk as disk_index
from dicomnode.store.index.actions import actions_on
from dicomnode.store.schema import Action, Origin, Series
from dicomnode.store.strays import Strays


@dataclass(frozen=True)
class WithheldStatus:
    """Derived instances that wait at a destination for a person or a check; `reason` says why."""

    destination: str
    reason: str
    instances: int
    series: int


@dataclass(frozen=True)
class CareStatus:
    """What a person has to decide, and how long there is room.

    commissioning        the whole node is being tried out: nothing derived leaves
    commissioning_rules  rules that are
    quarantine           how much is in quarantine, by kind
    disk                 ample, warning or refusing; `days_left` until new input is refused, if that is in sight
    """

    commissioning: bool
    commissioning_rules: tuple[str, ...]
    quarantine: Mapping[str, int]
    withheld: tuple[WithheldStatus, ...]
    disk: str
    days_left: float | None

    def loud_lines(self) -> Iterator[str]:
        """What must not be overlooked."""
        if self.commissioning:
            yield "*** COMMISSIONING: everything derived is stored here, and NOTHING derived leaves this node ***"
        elif self.commissioning_rules:
            names = ", ".join(map(repr, self.commissioning_rules))
            yield f"*** COMMISSIONING of rule {names}: what only they derive stays here ***"

    def lines(self) -> Iterator[str]:
        """The rest, each with what to type next."""
        if self.disk != Level.AMPLE:
            yield f"disk      {self.disk}: free space, or set [retention]"
        if self.days_left is not None:
            yield f"disk      at the pace of the last week new input is refused in {self.days_left:.0f} days"
        if self.quarantine:
            told = ", ".join(f"{count} {kind}" for kind, count in self.quarantine.items())
            yield f"quarantine: {told}  (dicomnode quarantine list)"
        for one in self.withheld:
            what = f"{counted(one.instances, 'derived instance')} in {one.series} series"
            yield f"withheld from {one.destination}: {what}: {one.reason}  ({_release_command(one.reason)})"


def care_status(config: Config, session: Session) -> CareStatus:
    """What `status` tells of care."""
    quarantine = reviews.quarantine_counts(session)
    strays = len(Strays(config.files).found())
    free, total = free_bytes(config.files)
    marks = Marks(config.limits.disk_warning_bytes(total), config.limits.disk_reserve_bytes(total))
    machine = config.node.name or socket.gethostname()
    known = disk_index.samples(session, machine, disk_index.FILES)
    now = Sample(time.time(), free, total)
    return CareStatus(
        commissioning=config.node.commissioning,
        commissioning_rules=tuple(str(rule["name"]) for rule in config.rule if rule.get("commissioning") is True),
        quarantine=quarantine | ({"stray": strays} if strays else {}),
        withheld=tuple(
            WithheldStatus(one.destination, one.reason, one.instances, one.series)
            for one in reviews.withheld_deliveries(session, config.destination)
        ),
        disk=level(disk_index.last_level(session, machine, disk_index.FILES), now, marks).value,
        days_left=days_left([*known, now], marks.reserve_bytes),
    )


def care_lines(session: Session, series: Series) -> tuple[str, ...]:
    """What was deleted of a series, what destinations said of its patient, and what persons decided of it."""
    return (
        *_purge_lines(session, series),
        *(_check_lines(session, series) if series.origin == Origin.DERIVED else ()),
        *(line for job in overview.jobs_of(session, series.id) for line in _job_lines(session, job.id, job.review)),
        *(_action_line(action) for action in actions_on(session, series.series_instance_uid)),
    )


def _purge_lines(session: Session, series: Series) -> Iterator[str]:
    purge = purges.purge_of(session, series.id)
    if purge is not None:
        what = f"the files of {counted(purge.instances, 'instance')} ({purge.size_bytes / 1e6:.1f} MB)"
        yield f"deleted at {_when(purge.at)}: {what}: {purge.reason}; the record stays"


def _check_lines(session: Session, series: Series) -> Iterator[str]:
    for check in checks.checks_of(session, series.study_row):
        yield f"{check.destination} was asked about patient and study at {_when(check.at)}: {check.outcome}"
        for one in check.differences:
            yield f"  {one['keyword']}: {one['ours']!r} here, {one['theirs']!r} there"


def _job_lines(session: Session, job_row: int, review: str) -> Iterator[str]:
    decided = {RELEASED: "its result was released after review", DISMISSED: "nobody need look at it any more"}
    if review in decided:
        yield f"job {job_row}: {decided[review]}"
    yield from (_action_line(action) for action in actions_on(session, f"job {job_row}"))


def _action_line(action: Action) -> str:
    reason = f": {action.reason}" if action.reason else ""
    return f"{action.what} ({action.subject}) by {action.who} at {_when(action.at)}{reason}"


def _release_command(reason: str) -> str:
    subject = "--commissioning" if reason == COMMISSIONING else "UID"
    return f'dicomnode release {subject} --reason "...", or discard'


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
