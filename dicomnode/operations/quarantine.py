"""`dicomnode quarantine`: what could not be processed, why, and having it done again after a fix.

A view over plans, jobs and the files that were set aside; nothing is moved into it, and nothing has to be moved out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.core.headers import value
from dicomnode.errors import DicomNodeError, NotFoundError, UsageError
from dicomnode.operations.index import reading, writing
from dicomnode.operations.terminal import printable_lines
from dicomnode.operations.wording import counted, gate_sentences
from dicomnode.pixels.read import read_header
from dicomnode.store.index import overview, purges, reviews
from dicomnode.store.index.actions import record_action
from dicomnode.store.schema import Instance, Job, JobState, Plan, Series
from dicomnode.store.strays import Stray, Strays
from dicomnode.telemetry import event

_LISTED: Final = 200
_STRAY: Final = "file without a row: it came before a kill, a power cut or an older backup, and was not acknowledged"


@dataclass(frozen=True)
class Entry:
    """Something that could not be processed. `id` is what other commands call it.

    kind   failed plan | unreadable | failed | refused | withheld | stray
    about  the UID of its series, of which `why` tells the whole story; "" for a stray
    """

    id: str
    kind: str
    about: str
    at: float
    engines: tuple[str, ...]
    instances: int
    reason: str

    @property
    def line(self) -> str:
        by = f" by {', '.join(self.engines)}" if self.engines else ""
        what = f"series {self.about}" if self.about else "a file"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.at))
        return f"{self.id:<10} {self.kind:<11} {when}  {what}{by}: {self.reason}"


@dataclass(frozen=True)
class Quarantine:
    """What is in quarantine, the newest first; `left_off` is how much more there is."""

    entries: tuple[Entry, ...]
    left_off: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        if not self.entries:
            return ("nothing is in quarantine",)
        more = (f"... and {self.left_off} more",) if self.left_off else ()
        return printable_lines((*(entry.line for entry in self.entries), *more, *_next_lines(self.entries)))


@dataclass(frozen=True)
class Shown:
    """One entry with all that is known of it: for a person, not for a log."""

    entry: Entry
    details: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        return printable_lines((self.entry.line, *(f"  {line}" for line in self.details), *_next_lines([self.entry])))


@dataclass(frozen=True)
class Requeued:
    """What is done again, and sentences on what is not."""

    done: tuple[str, ...]
    left: tuple[str, ...]
    word: str

    @property
    def is_partly(self) -> bool:
        return bool(self.left)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        return printable_lines((f"{self.word}: {', '.join(self.done) or 'nothing'}", *self.left))


@dataclass(frozen=True, slots=True)
class Which:
    """Entries that a person means. `reason` is a part of theirs, in any case; `engine` one that took part."""

    ids: tuple[str, ...] = ()
    every: bool = False
    reason: str = ""
    engine: str = ""

    def has(self, entry: Entry) -> bool:
        named = self.every or entry.id in map(full_id, self.ids)
        engine = not self.engine or self.engine in {name.partition("@")[0] for name in entry.engines} | {*entry.engines}
        return named and engine and self.reason.casefold() in entry.reason.casefold()


def full_id(text: str) -> str:
    """The id of an entry; a number alone is that of a job, as `release` takes it."""
    return f"job:{text}" if text.isascii() and text.isdigit() else text


def quarantine(config: Config) -> Quarantine:
    """List what is in quarantine. Raises NotFoundError where there is no index yet."""
    with reading(config) as session:
        entries = _entries(session, Strays(config.files), _LISTED)
        total = sum(reviews.quarantine_counts(session).values()) + len(Strays(config.files).found())
    shown = entries[:_LISTED]
    return Quarantine(tuple(shown), max(0, total - len(shown)))


def show(config: Config, wanted: str) -> Shown:
    """All that is known of one entry. Raises NotFoundError."""
    strays, wanted = Strays(config.files), full_id(wanted)
    with reading(config) as session:
        entry = next((one for one in _entries(session, strays) if one.id == wanted), None)
        if entry is None:
            raise NotFoundError(f"{wanted} is not in quarantine", "see what is: dicomnode quarantine list")
        kind, _, name = wanted.partition(":")
        if kind == "stray":
            return Shown(entry, _stray_details(next(one for one in strays.found() if one.name == name)))
        row = _row(session, entry)
        details = _plan_details(session, row) if isinstance(row, Plan) else _job_details(row)
    return Shown(entry, details)


def requeue(config: Config, which: Which) -> Requeued:
    """Have entries done again: a series is closed once more, by the rules and engines of now; a file is taken in.

    Doing it twice changes nothing. Raises NotFoundError where there is nothing of that kind.
    """
    strays = Strays(config.files)
    now = time.time()
    done: list[str] = []
    left: list[str] = []
    with writing(config) as session:
        for entry in _chosen(session, strays, which):
            if entry.kind == "stray":
                continue
            series = _series_of(session, entry)
            if purges.is_purged(session, series.id):
                left.append(f"{entry.id}: files of its series were deleted by retention; send it to the node again")
            elif reviews.reopen(session, series, now) or series.due_at == now:
                record_action(session, "quarantine requeue", series.series_instance_uid, entry.id, now)
                done.append(entry.id)
        taken = [stray for stray in strays.found() if which.has(_stray_entry(stray))]
        for stray in taken:
            record_action(session, "quarantine requeue", f"stray:{stray.name}", "", now)
    for stray in taken:
        strays.requeue(stray)
        done.append(f"stray:{stray.name}")
    event("review_decided", state="requeued", instances=len(done))
    return Requeued(tuple(done), tuple(left), "requeued")


def dismiss(config: Config, which: Which, reason: str) -> Requeued:
    """Let entries need nobody's attention any more; nothing else follows. Files without a row stay what they are."""
    now, done = time.time(), []
    with writing(config) as session:
        for entry in _chosen(session, Strays(config.files), which):
            if entry.kind != "stray":
                reviews.dismiss(_row(session, entry))
                record_action(session, "quarantine dismiss", entry.about, " ".join(reason.split()) or entry.id, now)
                done.append(entry.id)
    event("review_decided", state="dismissed", instances=len(done))
    return Requeued(tuple(done), (), "dismissed")


def _chosen(session: Session, strays: Strays, which: Which) -> list[Entry]:
    entries = _entries(session, strays)
    unknown = set(map(full_id, which.ids)) - {entry.id for entry in entries}
    if unknown:
        raise NotFoundError(f"{sorted(unknown)[0]} is not in quarantine", "see what is: dicomnode quarantine list")
    chosen = [entry for entry in entries if which.has(entry)]
    if not chosen:
        raise NotFoundError("nothing of that kind is in quarantine", "see what is: dicomnode quarantine list")
    return chosen


def _entries(session: Session, strays: Strays, limit: int | None = None) -> list[Entry]:
    found = [
        *(_plan_entry(plan, series) for plan, series in reviews.plans_in_quarantine(session, limit)),
        *(_job_entry(job, series) for job, series in reviews.jobs_in_quarantine(session, limit)),
        *map(_stray_entry, strays.found()),
    ]
    return sorted(found, key=lambda entry: entry.at, reverse=True)


def _plan_entry(plan: Plan, series: Series) -> Entry:
    unreadable = plan.content.get("unreadable", [])
    failed = plan.content.get("failed")
    if failed is not None:
        return Entry(f"plan:{plan.id}", "failed plan", series.series_instance_uid, plan.created_at, (), 0, failed)
    reason = "; ".join(dict.fromkeys(one["reason"] for one in unreadable))
    told = f"{counted(len(unreadable), 'instance')} not readable as images: {reason}"
    about = series.series_instance_uid
    return Entry(f"plan:{plan.id}", "unreadable", about, plan.created_at, (), len(unreadable), told)


def _job_entry(job: Job, series: Series) -> Entry:
    return Entry(
        id=f"job:{job.id}",
        kind=job.state,
        about=series.series_instance_uid,
        at=job.updated_at,
        engines=tuple(job.content["engines"]),
        instances=len(job.instance_rows),
        reason="; ".join(job.reasons),
    )


def _stray_entry(stray: Stray) -> Entry:
    return Entry(f"stray:{stray.name}", "stray", "", stray.at, (), 1, f"{_STRAY} ({stray.size_bytes} bytes)")


def _series_of(session: Session, entry: Entry) -> Series:
    return overview.series_in_row(session, _row(session, entry).series_row)


def _row(session: Session, entry: Entry) -> Plan | Job:
    kind, _, number = entry.id.partition(":")
    return session.get_one(Plan, int(number)) if kind == "plan" else session.get_one(Job, int(number))


def _plan_details(session: Session, plan: Plan) -> tuple[str, ...]:
    told = []
    for one in plan.content.get("unreadable", []):
        instance = session.get(Instance, one["instance_id"])
        if instance is not None:
            told.append(f"{instance.sop_instance_uid} (objects/{instance.file}.dcm): {one['reason']}")
    return tuple(told)


def _job_details(job: Job) -> tuple[str, ...]:
    gates = [
        f"{stage['engine']}, {told.side} the engine: {told.line}"
        for stage in job.stages
        for told in gate_sentences(stage)
    ]
    kept = ("its result is kept",) if job.result is not None and job.state == JobState.WITHHELD else ()
    return (f"rule {', '.join(job.content['rules'])}, stack {job.content['stack_key']}", *gates, *kept)


def _stray_details(stray: Stray) -> tuple[str, ...]:
    try:
        header = read_header(stray.path, ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
    except DicomNodeError as error:
        return (f"it cannot be read: {error}",)
    return tuple(f"{keyword} {value(header, keyword)}" for keyword in header)


def _next_lines(entries: Sequence[Entry]) -> tuple[str, ...]:
    kinds = {entry.kind for entry in entries}
    hints: Sequence[tuple[Callable[[], bool], str]] = (
        (lambda: True, "after a fix: dicomnode quarantine requeue ID (or --all)"),
        (lambda: "withheld" in kinds, 'after review: dicomnode release JOB --reason "..." (or discard)'),
        (lambda: bool(kinds - {"stray"}), 'to have it off the list: dicomnode quarantine dismiss ID --reason "..."'),
    )
    return tuple(f"  {text}" for holds, text in hints if holds())


def require_some(which: Which) -> None:
    """Raises UsageError where a command names no entry."""
    if not which.ids and not which.every:
        raise UsageError("no entry is named", "name ids of dicomnode quarantine list, or say --all")
