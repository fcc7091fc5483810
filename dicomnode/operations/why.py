"""`dicomnode why`: the whole story of an object, from its arrival to each destination, in plain words.

What it tells may hold patient data: it is for the person who asks, never for a log.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.core.headers import value
from dicomnode.core.rules import RoutingPlan
from dicomnode.core.scanners import preset_of
from dicomnode.errors import NotFoundError
from dicomnode.operations.index import reading
from dicomnode.operations.telling.care import care_lines
from dicomnode.operations.telling.completeness import completeness_lines
from dicomnode.operations.telling.delivery import delivery_lines
from dicomnode.operations.telling.late import late_lines
from dicomnode.operations.telling.needs import needs_lines
from dicomnode.operations.telling.proof import proof_lines
from dicomnode.operations.telling.quality import quality_lines
from dicomnode.operations.telling.retrieval import retrieval_lines
from dicomnode.operations.terminal import printable_lines
from dicomnode.operations.wording import counted, gate_sentences
from dicomnode.pixels.read import read_header
from dicomnode.store.index import overview
from dicomnode.store.index.overview import Delivery
from dicomnode.store.schema import Instance, Job, Origin, Plan, Series


@dataclass(frozen=True)
class JobStory:
    """One run of engines on one stack of a series, and what became of the series that it derived, by their UIDs."""

    engines: tuple[str, ...]
    rules: tuple[str, ...]
    stack: str
    state: str
    reasons: tuple[str, ...]
    gates: tuple[str, ...]
    failed_gates: tuple[str, ...]
    kind: str
    measured: tuple[str, ...]
    derived_series: tuple[str, ...]
    derived_deliveries: dict[str, tuple[Delivery, ...]]


@dataclass(frozen=True)
class SeriesStory:
    """What happened to one series, in the order in which it happened. `kept_back` is the loop protection's doing."""

    series_instance_uid: str
    origin: str
    arrival: tuple[str, ...]
    kept_back: tuple[str, ...]
    completeness: tuple[str, ...]
    decisions: tuple[str, ...]
    jobs: tuple[JobStory, ...]
    deliveries: tuple[Delivery, ...]
    proofs: tuple[str, ...]

    def lines(self, *, each_check: bool) -> Sequence[str]:
        return (
            f"series {self.series_instance_uid} ({self.origin})",
            *(f"  {line}" for line in (*self.arrival, *self.kept_back, *self.completeness, *self.decisions)),
            *(f"  {line}" for job in self.jobs for line in _job_lines(job, each_check=each_check)),
            *(f"  {line}" for delivery in self.deliveries for line in _delivery_lines(delivery)),
            *(f"  {line}" for line in self.proofs),
        )


@dataclass(frozen=True)
class Explanation:
    """The stories of all series that the subject names.

    each_check  whether `lines` tells what each gate checked, or of those that passed only how many
    """

    subject: str
    series: tuple[SeriesStory, ...]
    each_check: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"subject": self.subject, "series": [asdict(story) for story in self.series]}

    def lines(self) -> Sequence[str]:
        return printable_lines(line for story in self.series for line in story.lines(each_check=self.each_check))


def why(config: Config, subject: str, *, each_check: bool = False) -> Explanation:
    """Explain a study, series or SOP Instance UID, an accession number, or a DICOM file by its SOP Instance UID.

    Raises NotFoundError where nothing is known of it.
    """
    named = _uid_in_file(Path(subject)) if _is_file(subject) else subject
    with reading(config) as session:
        stories = tuple(_story(session, series, named) for series in overview.series_about(session, named))
    if not stories:
        raise NotFoundError(
            "nothing is known by that UID, accession number or file",
            "check it for a missing digit; an association that was refused is told in the log",
        )
    return Explanation(named, stories, each_check)


def _is_file(subject: str) -> bool:
    try:
        return Path(subject).is_file()
    except OSError:  # no path can be so long: it is none
        return False


def _uid_in_file(path: Path) -> str:
    return value(read_header(path, ["SOPInstanceUID"]), "SOPInstanceUID")


def _story(session: Session, series: Series, subject: str) -> SeriesStory:
    instances = overview.instances_of(session, series.id)
    plans = overview.plans_of(session, series.id)
    of_subject = [instance for instance in instances if instance.sop_instance_uid == subject]
    return SeriesStory(
        series_instance_uid=series.series_instance_uid,
        origin=series.origin,
        arrival=(*_arrival(session, series, instances), *retrieval_lines(session, series), *_files(of_subject)),
        kept_back=_kept_back(of_subject or instances),
        completeness=(*completeness_lines(session, series), *needs_lines(session, series)),
        decisions=(*_decisions(plans, instances), *late_lines(session, series), *care_lines(session, series)),
        jobs=tuple(_job(session, job) for job in _jobs(session, series)),
        deliveries=tuple(overview.deliveries_of(session, series.id, subject if of_subject else None)),
        proofs=(*delivery_lines(session, series), *proof_lines(session, series)),
    )


def _jobs(session: Session, series: Series) -> Sequence[Job]:
    """What was made of a series; of a derived one, what made it."""
    if series.job_row is not None:
        return [overview.job_of(session, series.job_row)]
    return overview.jobs_of(session, series.id)


def _arrival(session: Session, series: Series, instances: Sequence[Instance]) -> tuple[str, ...]:
    if series.job_row is not None:
        job = overview.job_of(session, series.job_row)
        made = sum(one.origin == Origin.DERIVED for one in instances)
        source = overview.series_in_row(session, job.series_row).series_instance_uid
        return (f"derived by {', '.join(job.content['engines'])} from series {source}: {counted(made, 'instance')}",)
    senders = dict.fromkeys(
        f"{one.calling_ae} ({one.peer or 'no configured peer'}, {one.source_address}) calling {one.called_ae}"
        for one in instances
    )
    replaced = sum(not one.active for one in instances)
    again = (f"{counted(replaced, 'older or returned version')} kept beside",) if replaced else ()
    return (
        f"{counted(len(instances) - replaced, 'instance')} from {_when(series.first_at)} to {_when(series.last_at)}",
        *(f"from {sender}" for sender in senders),
        *again,
    )


def _files(instances: Sequence[Instance]) -> tuple[str, ...]:
    """Where the versions of one instance lie, below the data folder."""
    return tuple(
        f"{'stored' if one.active else 'an older or returned version'} as objects/{one.file}.dcm" for one in instances
    )


def _kept_back(instances: Sequence[Instance]) -> tuple[str, ...]:
    found = Counter(reason for one in instances for reason in one.kept_back)
    return tuple(f"{counted(count, 'instance')} kept back: {reason}" for reason, count in found.items())


def _decisions(plans: Sequence[Plan], instances: Sequence[Instance]) -> tuple[str, ...]:
    if not plans:
        return ()
    content = plans[-1].content
    if "failed" in content:
        return (f"no plan could be made: {content['failed']}",)
    decided = RoutingPlan.from_json(json.dumps(content))
    unread = (
        (f"{counted(len(content['unreadable']), 'instance')} not readable as images",) if content["unreadable"] else ()
    )
    nothing = decided.unrouted and not any(one.matched for one in instances)
    return (
        *(("unrouted: kept here, sent nowhere",) if nothing else ()),
        *(line for stack in decided.stacks for rule in stack.rules for line in rule.lines()),
        *decided.lines(),
        *unread,
    )


def _job(session: Session, job: Job) -> JobStory:
    gates = [line for stage in job.stages for line in _gates(stage)]
    return JobStory(
        engines=tuple(_engine(job, place) for place in range(len(job.content["engines"]))),
        rules=tuple(job.content["rules"]),
        stack=job.content["stack_key"],
        state=job.state,
        reasons=tuple(job.reasons),
        gates=tuple(line for line, _ in gates),
        failed_gates=tuple(line for line, passed in gates if not passed),
        kind=job.content.get("kind", "job"),
        measured=quality_lines(session, job),
        derived_series=tuple(job.derived_series),
        derived_deliveries={uid: _deliveries_of_derived(session, uid) for uid in job.derived_series},
    )


def _deliveries_of_derived(session: Session, series_instance_uid: str) -> tuple[Delivery, ...]:
    found = overview.series_about(session, series_instance_uid)
    return tuple(each for series in found for each in overview.deliveries_of(session, series.id))


def _engine(job: Job, place: int) -> str:
    """An engine of a job with the version that ran, and the settings that the rule chose."""
    named = job.content["engines"][place]
    stage = job.stages[place] if place < len(job.stages) else {}
    version = f"@{stage['version']}" if "version" in stage and "@" not in named else ""
    chosen = preset_of(job.content["settings"].get(named, {}))
    return f"{named}{version}{f' ({chosen})' if chosen else ''}"


def _gates(stage: dict[str, Any]) -> tuple[tuple[str, bool], ...]:
    return tuple((f"{stage['engine']}, {one.side} the engine: {one.line}", one.passed) for one in gate_sentences(stage))


def _checks(job: JobStory, *, each_check: bool) -> tuple[str, ...]:
    passed = len(job.gates) - len(job.failed_gates)
    if each_check or not passed:
        return job.gates
    return (*job.failed_gates, f"{counted(passed, 'check')} before and after the engine passed (all: --checks)")


def _job_lines(job: JobStory, *, each_check: bool) -> tuple[str, ...]:
    engines = ", ".join(job.engines)
    done = {"constancy": "measured as a phantom", "shadow": f"{engines} tried out, nothing leaves"}
    return (
        f"{done.get(job.kind, f'enhanced by {engines}')} (rule {', '.join(job.rules)}), stack {job.stack}: {job.state}",
        *(f"  {line}" for line in (*job.reasons, *_checks(job, each_check=each_check), *job.measured)),
        *(line for uid in job.derived_series for line in _derived_lines(uid, job.derived_deliveries[uid])),
    )


def _derived_lines(series_instance_uid: str, deliveries: Sequence[Delivery]) -> tuple[str, ...]:
    return (
        f"  derived series {series_instance_uid}",
        *(f"    {line}" for delivery in deliveries for line in _delivery_lines(delivery)),
    )


def _delivery_lines(delivery: Delivery) -> tuple[str, ...]:
    rules = f" (rule {', '.join(delivery.rules)})" if delivery.rules else ""
    excluded = f" {delivery.excluded} not meant for it," if delivery.excluded else ""
    return (
        f"to {delivery.destination}{rules}: {delivery.sent} sent, {delivery.waiting} waiting, "
        f"{delivery.failed} failed,{excluded} in {counted(delivery.attempts, 'attempt')}",
        *(f"  {trouble}" for trouble in delivery.troubles),
    )


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
