"""`dicomnode status`: how the node is, from its index. It runs beside a running node, and without one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.core.rules import RoutingPlan, RuleExplanation
from dicomnode.net.certificates import expiry_warning
from dicomnode.operations.check import running_node
from dicomnode.operations.index import reading
from dicomnode.operations.telling.care import CareStatus, care_status
from dicomnode.operations.telling.completeness import held_series
from dicomnode.operations.telling.delivery import destination_notes
from dicomnode.operations.telling.late import WithdrawnStatus, withdrawn_status
from dicomnode.operations.telling.needs import held_needs
from dicomnode.operations.telling.quality import drifting, failed_phantoms
from dicomnode.operations.telling.retrieval import RetrievalStatus, retrieval_status, unfetched
from dicomnode.operations.terminal import printable_lines
from dicomnode.operations.wording import counted
from dicomnode.store.files import free_bytes
from dicomnode.store.index import overview, proofs, rejections, reviews
from dicomnode.store.index import processes as signs
from dicomnode.store.schema import Instance, Job, Outbox, Receipt, Series

_LISTED: Final = 20


@dataclass(frozen=True)
class ProcessStatus:
    role: str
    host: str
    pid: int
    alive: bool
    up_s: float


@dataclass(frozen=True)
class DestinationStatus:
    """`held` waits for a series to close; `confirmed` are those of `sent` that are proved to be there; `excluded` is
    what our configuration keeps from there.

    `down_for_s` is set while the destination is parked after a failure. `notes` say what else keeps things from it.
    """

    name: str
    held: int
    ready: int
    sent: int
    confirmed: int
    failed: int
    excluded: int
    withheld: int
    cancelled: int
    down_for_s: float | None
    failures: int
    last_error: str
    last_hint: str
    notes: tuple[str, ...]

    @property
    def waiting(self) -> int:
        return self.held + self.ready


@dataclass(frozen=True)
class Problem:
    """Something a person should look at.

    about  the UID of an object, of which `why` tells the whole story; or the name of a destination, process or trend
    """

    kind: str
    about: str
    reason: str


@dataclass(frozen=True)
class Status:
    """All that `status` tells; no patient data. `pid` is the node's own process, which follows SIGHUP and SIGTERM."""

    running: bool
    pid: int | None
    processes: tuple[ProcessStatus, ...]
    counts: Mapping[str, int]
    open_associations: int
    jobs: Mapping[str, int]
    destinations: tuple[DestinationStatus, ...]
    problems: tuple[Problem, ...]
    free_bytes: int
    reserve_bytes: int
    care: CareStatus
    withdrawn: WithdrawnStatus
    retrievals: RetrievalStatus

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        return printable_lines(
            (
                *self.care.loud_lines(),
                *_process_lines(self),
                *_count_lines(self),
                *self.retrievals.lines(),
                *self.withdrawn.lines(),
                *self.care.lines(),
                *(line for destination in self.destinations for line in _destination_lines(destination)),
                *_problem_lines(self.problems),
            )
        )


def status(config: Config) -> Status:
    """Ask the index; raises NotFoundError where there is none yet."""
    with reading(config) as session:
        free, total = free_bytes(config.files)
        return _status(config, session, (free, config.limits.disk_reserve_bytes(total)))


def _status(config: Config, session: Session, disk: tuple[int, int]) -> Status:
    now = time.time()
    destinations = _destinations(config, session, now)
    clock = signs.clock(session)
    processes = tuple(
        ProcessStatus(
            row.role, row.host, row.pid, clock - row.beat_at < config.cluster.dead_after_s, clock - row.started_at
        )
        for row in overview.processes(session)
    )
    return Status(
        running=bool(processes) and all(process.alive for process in processes),
        pid=node.pid if (node := running_node(config.node.data)) is not None else None,
        processes=processes,
        counts=overview.counts(session),
        open_associations=overview.open_associations(session),
        jobs=overview.job_counts(session),
        destinations=destinations,
        problems=(
            *_dead(processes),
            *_ending(config, now),
            *(_down(one) for one in destinations if one.failures and one.last_error),
            *(_unconfigured(one) for one in destinations if one.name not in config.destination and one.waiting),
            *_problems(session),
            *_unproved(session),
            *(Problem("drift", about, reason) for about, reason in drifting(session)),
            *(Problem("phantom", about, reason) for about, reason in failed_phantoms(session)),
        ),
        free_bytes=disk[0],
        reserve_bytes=disk[1],
        care=care_status(config, session),
        withdrawn=withdrawn_status(session),
        retrievals=retrieval_status(session, clock),
    )


def _destinations(config: Config, session: Session, now: float) -> tuple[DestinationStatus, ...]:
    counts, confirmed = overview.outbox_counts(session), proofs.confirmed_counts(session)
    health = {row.name: row for row in overview.destinations(session)}
    found = []
    for name in dict.fromkeys([*config.destination, *counts]):
        row, count = health.get(name), counts.get(name, {})
        down = row is not None and row.down_until is not None and row.failures > 0
        found.append(
            DestinationStatus(
                name=name,
                held=count.get("held", 0),
                ready=count.get("ready", 0),
                sent=count.get("sent", 0),
                confirmed=confirmed.get(name, 0),
                failed=count.get("failed", 0),
                excluded=count.get("excluded", 0),
                withheld=count.get("withheld", 0),
                cancelled=count.get("cancelled", 0),
                down_for_s=max(0.0, row.down_until - now) if down and row and row.down_until else None,
                failures=row.failures if row else 0,
                last_error=(row.last_error or "") if row else "",
                last_hint=(row.last_hint or "") if row else "",
                notes=destination_notes(config, session, name, now),
            )
        )
    return tuple(found)


def _dead(processes: Sequence[ProcessStatus]) -> Iterator[Problem]:
    """Processes that gave no sign of life while others do; where none does, the node is not running."""
    living = {process.host for process in processes if process.alive}
    for process in processes if living else ():
        if process.alive:
            continue
        reason = f"pid {process.pid} gives no sign of life; the log says why"
        if process.host not in living:
            reason = f"nothing lives on {process.host}; if it will not come back: dicomnode cluster forget NAME"
        yield Problem("dead", process.role, reason)


def _ending(config: Config, now: float) -> Iterator[Problem]:
    """Our TLS certificate, where it ends soon. One that we may not read is the node's concern, and `check` tells it."""
    certificate = config.tls.certificate
    if certificate is not None and os.access(certificate, os.R_OK):
        warning = expiry_warning(certificate, now)
        if warning is not None:
            yield Problem("certificate", "tls", f"{warning}; {warning.hint}")


def _down(destination: DestinationStatus) -> Problem:
    hint = f"; {destination.last_hint}" if destination.last_hint else ""
    return Problem("down", destination.name, f"{destination.last_error}{hint}")


def _unconfigured(destination: DestinationStatus) -> Problem:
    waits = f"{counted(destination.waiting, 'instance')} for it will wait until there is a [destination.NAME] again"
    return Problem("unconfigured", destination.name, waits)


def _unproved(session: Session) -> tuple[Problem, ...]:
    return tuple(
        Problem("unproved", series.series_instance_uid, f"{proof.destination}: {proof.meaning}; {proof.hint}")
        for proof, series in proofs.unproved_series(session, _LISTED)
    )


def _problems(session: Session) -> tuple[Problem, ...]:
    failed_plans = overview.failed_plans(session, _LISTED)
    ignored = rejections.ignored_notes(session, _LISTED)
    return (
        *(Problem("rejection", note.sop_instance_uid, row.reason) for row, note in ignored),
        *(
            Problem("held", uid, reason)
            for uid, reason in (*held_series(session, _LISTED), *held_needs(session, _LISTED))
        ),
        *(_unrouted(session, series) for series in overview.unrouted_series(session, _LISTED)),
        *(Problem("unplanned", series.series_instance_uid, reason) for series, reason in failed_plans),
        *(Problem("unfetched", about, reason) for about, reason in unfetched(session, _LISTED)),
        *(_job_problem(job, series) for job, series in reviews.jobs_in_quarantine(session, _LISTED)),
        *(_undelivered(*found) for found in overview.failed_deliveries(session, _LISTED)),
    )


def _unrouted(session: Session, series: Series) -> Problem:
    plans = overview.plans_of(session, series.id)
    decided = RoutingPlan.from_json(json.dumps(plans[-1].content)) if plans else RoutingPlan((), ())
    near = next((stack.nearest for stack in decided.stacks if stack.nearest is not None), None)
    return Problem("unrouted", series.series_instance_uid, f"no rule matches this series; it is kept{_misses(near)}")


def _misses(near: RuleExplanation | None) -> str:
    """The nearest rule and what it wants in vain. What was found is left to `why`: it may be a patient's name."""
    if near is None:
        return ""
    wanted = ", ".join(f"{clause.key} {clause.wanted}" for clause in near.failed)
    return f"; the nearest is {near.rule!r}, which wants {wanted}"


def _job_problem(job: Job, series: Series) -> Problem:
    engines = ", ".join(job.content["engines"])
    return Problem(job.state, series.series_instance_uid, f"{engines}: {'; '.join(job.reasons)}")


def _undelivered(row: Outbox, instance: Instance, receipt: Receipt | None) -> Problem:
    reason = receipt.meaning if receipt is not None else "given up"
    return Problem("undelivered", instance.sop_instance_uid, f"to {row.destination}: {reason}")


def _process_lines(status: Status) -> tuple[str, ...]:
    if not status.running and not any(process.alive for process in status.processes):
        return ("not running  (start it with: dicomnode serve)",)
    node = (f"node      pid {status.pid}: SIGHUP reads the configuration again",) if status.pid is not None else ()
    machines = {process.host for process in status.processes}
    return node + tuple(_process_line(process, tells_machine=len(machines) > 1) for process in status.processes)


def _process_line(process: ProcessStatus, *, tells_machine: bool) -> str:
    state = f"up {_duration(process.up_s)}" if process.alive else "DEAD"
    return f"{process.role:<9} {state}  pid {process.pid}{f' on {process.host}' if tells_machine else ''}"


def _count_lines(status: Status) -> tuple[str, ...]:
    counts, jobs = status.counts, status.jobs
    waiting = jobs["planned"] + jobs["enhanced"]
    return (
        f"received  {counted(counts['instances_received'], 'instance')} in {counts['series_received']} series of "
        f"{_studies(counts['studies'])}; {counts['series_arriving']} series arriving over "
        f"{counted(status.open_associations, 'association')}",
        f"derived   {counted(counts['instances_derived'], 'instance')} in {counts['series_derived']} series; jobs: "
        f"{waiting} waiting, {jobs['derived']} done, {jobs['refused']} refused, {jobs['withheld']} withheld, "
        f"{jobs['failed']} failed{_also(jobs, 'superseded', 'cancelled')}",
        f"disk      {counts['bytes'] / 1e9:.2f} GB stored, {status.free_bytes / 1e9:.1f} GB free "
        f"(new input is refused below {status.reserve_bytes / 1e9:.1f} GB)",
    )


def _also(counts: Mapping[str, int], *states: str) -> str:
    """Those of the states that there are any of."""
    return "".join(f", {counts[state]} {state}" for state in states if counts[state])


def _destination_lines(destination: DestinationStatus) -> tuple[str, ...]:
    excluded = f", {destination.excluded} not meant for it" if destination.excluded else ""
    kept = "".join(
        f", {count} {word}"
        for word, count in (("withheld", destination.withheld), ("cancelled", destination.cancelled))
        if count
    )
    counted = (
        f"to {destination.name}: {destination.sent} sent ({destination.confirmed} confirmed), "
        f"{destination.ready} waiting, "
        f"{destination.held} held until their series is complete, {destination.failed} failed{excluded}{kept}"
    )
    notes = tuple(f"  {note}" for note in destination.notes)
    if destination.down_for_s is None:
        return (counted, *notes)
    return (
        counted,
        *notes,
        f"  down: {destination.last_error} (failure {destination.failures}, again in {destination.down_for_s:.0f} s)",
        f"  next: {destination.last_hint}",
    )


def _problem_lines(problems: Sequence[Problem]) -> tuple[str, ...]:
    if not problems:
        return ("nothing needs attention",)
    return (
        "needs attention (dicomnode why UID tells more):",
        *(f"  {problem.kind:<12} {problem.about}  {problem.reason}" for problem in problems),
    )


def _studies(number: int) -> str:
    return "1 study" if number == 1 else f"{number} studies"


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {int(seconds % 60)} s"
