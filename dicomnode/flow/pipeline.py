"""The steps of a closed series: plan, enhance, derive. Each is idempotent, and leaves its result in our own tables.

plan     headers of its instances -> stacks -> rules -> plan and jobs
enhance  a job's stack -> volume -> gates and engines -> result at rest
derive   result and sources -> derived objects -> file store, index and outbox
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy.orm import Session

from dicomnode.core.lateness import Lateness, Member, groups
from dicomnode.core.ports import Worker
from dicomnode.core.review import RELEASED, is_worth_keeping, may_leave, release_note
from dicomnode.core.routing import PRIORITIES, Routing
from dicomnode.core.rules import Fulfilled, RoutingPlan, fulfilled, plan
from dicomnode.core.stacks import STACK_KEYWORDS, slice_of, split_stacks
from dicomnode.core.types import Header, Sender, Slice, Stack
from dicomnode.errors import InputError
from dicomnode.faults import kill_point
from dicomnode.store.database import Database
from dicomnode.store.files import FileStore
from dicomnode.store.index import jobs as job_index
from dicomnode.store.index import needs, outbox, purges, rejections, replacing
from dicomnode.store.index import series as series_index
from dicomnode.store.index.arrivals import Identity, StoredFile, record_derived, stored_files
from dicomnode.store.index.lateness import late_instances
from dicomnode.store.results import ResultStore, input_of, result_key
from dicomnode.store.schema import Instance, Job, JobState, Patient, Series, Study
from dicomnode.telemetry import event

Told = dict[str, str | int]
"""Fields that several log events share."""

HEADERS_TIMEOUT_S: Final = 600.0
DECODE_TIMEOUT_S: Final = 1800.0
ENGINE_TIMEOUT_S: Final = 3600.0
SOURCES_FIRST_S: Final = 3600.0
"""How long a derived object waits for its sources to arrive at a destination before it goes without them."""

_SAME: Final = "same"
"""State of a report where no engine ran: what it reads has not changed since a former job."""

_NUMBERS_A_JOB: Final = 10
"""Series numbers kept free for one job; each engine of its chain may take one."""


@dataclass(frozen=True)
class Rooms:
    """What the steps work with."""

    database: Database
    files: FileStore
    results: ResultStore
    pixels: Worker
    engines: Worker


@dataclass(frozen=True)
class Deriving:
    """What derived objects say of us: passed on to `dicomnode.pixels.encode.derive_stack`."""

    ae_title: str
    series: Mapping[str, Any]
    equipment: Mapping[str, Any]
    content_qualification: str


class Former(NamedTuple):
    """An earlier job that derived from the same stack by the same engines, and the rows of its slices."""

    id: int
    result: str
    instance_rows: list[int]


@dataclass(frozen=True)
class _Decision:
    """What the rules say of a closed series, what of it cannot be read, the instance rows of each stack, and what it
    does for rules that need several series."""

    plan: RoutingPlan
    unreadable: list[dict[str, Any]]
    members: dict[str, list[int]]
    fulfilled: tuple[Fulfilled, ...]


class Pipeline:
    """The steps. `routing` and `deriving` are replaced at a reload; a step uses what it found at its start."""

    def __init__(self, rooms: Rooms, routing: Routing, deriving: Deriving) -> None:
        self._rooms = rooms
        self.routing = routing
        self.deriving = deriving

    def plan(self, series_row: int, generation: int) -> list[list[int]]:
        """Apply the rules to a closed series; (job row, priority) of each job that follows from it."""
        kill_point("route.before_plan")
        with self._rooms.database.read() as session:
            series = session.get_one(Series, series_row)
            instances = rejections.not_rejected(session, series_index.active_instances(session, series_row))
            late = late_instances(session, series_row)
            gone = purges.purged_instances(session, series_row)
        if gone:
            raise InputError(
                f"retention has deleted {gone} of its {len(instances)} instances: nothing is made of a part",
                "if it is to be enhanced again, send the whole series to the node again",
            )
        decision = self._decide(instances, late)
        decided, members = decision.plan, decision.members
        incomplete = series_index.incompleteness(series)
        content = {
            **json.loads(decided.to_json()), "unreadable": decision.unreadable, "source_incomplete": incomplete,
        }  # fmt: skip
        planned = [({**asdict(job), "source_incomplete": incomplete}, members[job.stack_key]) for job in decided.jobs]
        closing = needs.Closing(series, generation, members)
        with self._rooms.database.write() as session:
            content["needs"] = needs.note_closing(session, closing, decision.fulfilled, time.time())
            made = job_index.record_plan(session, series_row, generation, content, planned, time.time())
            fired = needs.fire(session, series.study_row, time.time())
            jobs = list({job.id: job for job in (*made, *fired)}.values())
            pointless = replacing.supersede_unfinished(session, jobs, time.time())
        for result in pointless:
            self._rooms.results.forget(result)
        _tell_plan(series, decided, any(instance.matched for instance in instances))
        kill_point("route.after_plan")
        return [[job.id, PRIORITIES[job.content["priority"]]] for job in jobs]

    def enhance(self, job_row: int) -> bool:
        """Run a job's engines; whether there is a result to derive from."""
        with self._rooms.database.read() as session:
            job = job_index.job(session, job_row)
            instances = job_index.job_instances(session, job)
        if job.state not in (JobState.PLANNED, JobState.ENHANCED):
            return False
        started = time.monotonic()
        key, report, _ = self._result(job, instances)
        return self._record_result(job, key, report, time.monotonic() - started)

    def derive(self, job_row: int) -> None:
        """Build, store and enqueue a job's derived objects."""
        with self._rooms.database.read() as session:
            job = job_index.job(session, job_row)
            instances = job_index.job_instances(session, job)
        if job.state != JobState.ENHANCED:
            self._forget_result(job)  # a kill may have come between the commit and this
            return
        started = time.monotonic()
        key, report, folder = self._result(job, instances)
        if not may_leave(report, job.content["engines"], is_released=job.review == RELEASED):
            # it had been lost, and was computed anew by an engine that changed
            self._record_result(job, key, report, time.monotonic() - started)
            return
        if key != job.result and report["state"] == "done":  # by another version, as machines of a cluster may have it
            self._record_result(job, key, report, time.monotonic() - started)
        with self._rooms.results.scratch() as scratch:
            kill_point("derive.before_build")
            built = [
                self._built(job, instances, (output, report, folder), scratch) for output in job.content["outputs"]
            ]
            kill_point("derive.after_build")
            stored = [self._stored(made["instances"]) for made in built]
            kill_point("derive.before_commit")
            with self._rooms.database.write() as session:
                current = job_index.job(session, job_row)
                if current.state != JobState.ENHANCED:  # it was superseded or cancelled meanwhile
                    self._drop(stored)
                    return
                for output, made, files in zip(job.content["outputs"], built, stored, strict=True):
                    self._record(session, current, (output, made["series_instance_uid"]), files)
                job_index.end_job(session, job_row, JobState.DERIVED, [], time.time())
                current.derived_series = [made["series_instance_uid"] for made in built]
                replacing.supersede(session, current, time.time())
        kill_point("derive.after_commit")
        self._rooms.results.forget(key)
        self._forget_result(job)  # a released one may have been computed anew, under another key
        for output, made in zip(job.content["outputs"], built, strict=True):
            event(
                "series_derived",
                job_id=job.id,
                series_id=job.series_row,
                series_instance_uid=made["series_instance_uid"],
                engine=output["engine"],
                instances=len(made["instances"]),
                seconds=time.monotonic() - started,
            )

    def fail(self, job_row: int, reason: str, hint: str) -> None:
        """End a job that cannot be done. What a person decided of its result is void: somebody is to look again."""
        with self._rooms.database.write() as session:
            job = job_index.job(session, job_row)
            if job.state in (JobState.PLANNED, JobState.ENHANCED):
                job_index.end_job(session, job_row, JobState.FAILED, [reason, hint] if hint else [reason], time.time())
                job.review = ""
        self._forget_result(job)

    def fail_plan(self, series_row: int, generation: int, reason: str) -> None:
        """Record that no plan could be made."""
        content = {"jobs": [], "stacks": [], "unreadable": [], "failed": reason}
        with self._rooms.database.write() as session:
            job_index.record_plan(session, series_row, generation, content, [], time.time())
            needs.give_up(session, series_row)

    def _decide(self, instances: Sequence[Instance], late: Mapping[int, Lateness]) -> _Decision:
        """Apply the rules to the instances of a closed series."""
        if not instances:  # newer versions of all of them belong to other series
            return _Decision(RoutingPlan((), ()), [], {}, ())
        routing = self.routing
        by_row = {instance.id: instance for instance in instances}
        stacks: list[Stack] = []
        unreadable: list[dict[str, Any]] = []
        for group in groups([Member(row, one.sop_instance_uid, late.get(row)) for row, one in by_row.items()]):
            found, unread = self._stacks([by_row[row] for row in group.instance_rows], routing)
            stacks.extend(replace(stack, key=stack.key + group.key) for stack in found)
            unreadable.extend(unread)
        sender = _sender_of(instances[0])
        hour = time.localtime(sender.received_at).tm_hour
        return _Decision(
            plan(routing.rules, stacks, sender, hour),
            unreadable,
            {stack.key: [one.instance_id for one in stack.slices] for stack in stacks},
            fulfilled(routing.rules, stacks, sender, hour),
        )

    def _record_result(self, job: Job, key: str, report: Mapping[str, Any], seconds: float) -> bool:
        """Store what the engines reported; whether there is a result to derive from."""
        if report["state"] == _SAME:
            self._repeat(job, report["former"])
            return False
        state = {"done": JobState.ENHANCED, "refused": JobState.REFUSED, "withheld": JobState.WITHHELD}[report["state"]]
        with self._rooms.database.write() as session:
            if job_index.job(session, job.id).state not in replacing.UNFINISHED:  # superseded or cancelled meanwhile
                self._rooms.results.forget(key)
                return False
            job_index.record_result(session, job.id, state, report, key, time.time())
        _tell_job(job, report, seconds)
        return state == JobState.ENHANCED

    def _forget_result(self, job: Job) -> None:
        if job.result is not None:
            self._rooms.results.forget(job.result)

    def _stacks(
        self, instances: Sequence[Instance], routing: Routing
    ) -> tuple[tuple[Stack, ...], list[dict[str, Any]]]:
        answer = self._rooms.pixels.call(
            "read_headers",
            HEADERS_TIMEOUT_S,
            paths=self._paths(instances),
            keywords=sorted(STACK_KEYWORDS | routing.keywords),
        )
        slices: list[Slice] = []
        unreadable: list[dict[str, Any]] = []
        for instance, read in zip(instances, answer["headers"], strict=True):
            if "reason" in read:
                unreadable.append({"instance_id": instance.id, "reason": read["reason"]})
                continue
            header: Header = {keyword: tuple(values) for keyword, values in read["header"].items()}
            slices.append(slice_of(instance.id, instance.sop_instance_uid, instance.sop_class_uid, header))
        return split_stacks(slices), unreadable

    def _result(self, job: Job, instances: Sequence[Instance]) -> tuple[str, dict[str, Any], Path]:
        """Key, report and folder of a job's result: what lies there from before, else computed now."""
        found = self._rooms.results.find(job.result) if job.result is not None else None
        released = job.review == RELEASED
        usable = found is not None and (not released or may_leave(found[1], job.content["engines"], is_released=True))
        if job.result is not None and found is not None and usable:
            return job.result, found[1], found[0]
        return self._computed(job, instances, released=released)

    def _computed(self, job: Job, instances: Sequence[Instance], *, released: bool) -> tuple[str, dict[str, Any], Path]:
        chain = [
            {"engine": engine, "settings": job.content["settings"].get(engine, {})} for engine in job.content["engines"]
        ]
        formers = [] if released else self._formers(job)
        for former in formers:
            if former.instance_rows == job.instance_rows:
                return former.result, {"state": _SAME, "former": former.id}, Path()
        with self._rooms.results.scratch() as scratch:
            volume, out = scratch / "volume", scratch / "out"
            volume.mkdir()
            out.mkdir()
            paths = self._paths(instances)
            decoded = self._rooms.pixels.call("decode_stack", DECODE_TIMEOUT_S, paths=paths, out=str(volume))
            key = f"{job.id}-{self._key(decoded['digests'], chain)}{'-released' if released else ''}"
            found = self._rooms.results.find(key)
            if found is not None:
                return key, found[1], found[0]
            for former in formers:
                if input_of(former.result) == input_of(key):
                    return key, {"state": _SAME, "former": former.id}, out
            kill_point("enhance.before_engine")
            header = self._header(paths[0])
            report = self._rooms.engines.call(
                "run_chain",
                ENGINE_TIMEOUT_S,
                chain=chain,
                volume=str(volume),
                header=header,
                out=str(out),
                released=released,
            )
            kill_point("enhance.after_engine")
            kept = {**report, "digests": decoded["digests"]}
            folder = self._rooms.results.keep(out, key, kept) if is_worth_keeping(report) else out
            kill_point("enhance.after_result")
            return key, kept, folder

    def _formers(self, job: Job) -> list[Former]:
        """Earlier jobs that made what this one is to make, if what an engine reads has not changed since: same stack,
        chain, outputs, and engines as they are now."""
        with self._rooms.database.read() as session:
            # what retention has deleted of a former one has to be made again
            found = [
                one for one in replacing.formers(session, job) if not purges.are_purged(session, one.derived_series)
            ]
        if not found:
            return []
        cards = [
            self._rooms.engines.call("describe", HEADERS_TIMEOUT_S, engine=engine) for engine in job.content["engines"]
        ]
        ran = [(card["digest"], card["runtime"]) for card in cards]
        return [
            Former(former.id, former.result, former.instance_rows)
            for former in found
            if former.result is not None
            and former.content["stack_key"] == job.content["stack_key"]
            and [one["engine"] for one in former.content["outputs"]]
            == [one["engine"] for one in job.content["outputs"]]
            and [(stage["card_digest"], stage["runtime"]) for stage in former.stages] == ran
        ]

    def _repeat(self, job: Job, former_row: int) -> None:
        """End a job for which nothing is to be computed: what a former one derived is sent where this one's goes."""
        with self._rooms.database.write() as session:
            current, former = job_index.job(session, job.id), job_index.job(session, former_row)
            if current.state not in replacing.UNFINISHED:
                return
            made = replacing.repeat(session, current, former, time.time())
            for output, instances in zip(current.content["outputs"], made, strict=True):
                self._enqueue(session, current, output, instances)
        event("job_repeated", job_id=job.id, series_id=job.series_row, engine=", ".join(job.content["engines"]))

    def _drop(self, stored: Sequence[Sequence[StoredFile]]) -> None:
        """Remove built files that no row will name."""
        with self._rooms.database.read() as session:
            known = stored_files(session, [file.sop_instance_uid for files in stored for file in files])
        for file in (file for files in stored for file in files):
            if file.sop_instance_uid not in known:
                self._rooms.files.remove(file.file)

    def _paths(self, instances: Sequence[Instance]) -> list[str]:
        """Where the files of instances lie, here."""
        self._rooms.files.bring([instance.file for instance in instances])
        return [str(self._rooms.files.path(instance.file)) for instance in instances]

    def _header(self, path: str) -> Mapping[str, Any]:
        keywords = sorted(STACK_KEYWORDS)
        answer = self._rooms.pixels.call("read_headers", HEADERS_TIMEOUT_S, paths=[path], keywords=keywords)
        header: Mapping[str, Any] = answer["headers"][0].get("header", {})
        return header

    def _key(self, digests: list[str], chain: list[dict[str, Any]]) -> str:
        engines = [self._rooms.engines.call("describe", HEADERS_TIMEOUT_S, engine=one["engine"]) for one in chain]
        return result_key(
            digests, [{**one, "digest": card["digest"]} for one, card in zip(chain, engines, strict=True)]
        )

    def _built(
        self,
        job: Job,
        instances: Sequence[Instance],
        result: tuple[Mapping[str, Any], Mapping[str, Any], Path],
        scratch: Path,
    ) -> Mapping[str, Any]:
        output, report, folder = result
        position = job.content["engines"].index(output["engine"])
        stages = report["stages"][: position + 1]
        out = scratch / str(position)
        out.mkdir()
        with self._rooms.database.read() as session:
            replaces = replacing.replaced_series(session, job, output["engine"])
        return self._rooms.pixels.call(
            "derive_stack",
            DECODE_TIMEOUT_S,
            sources=self._paths(instances),
            digests=report["digests"],
            stack_key=job.content["stack_key"],
            result=str(folder / stages[-1]["folder"]),
            stages=stages,
            series=_label_of(job, self.deriving.series),
            equipment=dict(self.deriving.equipment),
            content_qualification=self.deriving.content_qualification,
            note=_note_of(job, report),
            replaces=replaces,
            created_at=job.created_at,
            out=str(out),
        )

    def _stored(self, instances: Sequence[Mapping[str, Any]]) -> list[StoredFile]:
        """Put built files into the store; of those whose UID is there already the first result stays."""
        with self._rooms.database.read() as session:
            known = stored_files(session, [made["sop_instance_uid"] for made in instances])
        return [known.get(made["sop_instance_uid"]) or self._adopted(made) for made in instances]

    def _adopted(self, made: Mapping[str, Any]) -> StoredFile:
        file, size_bytes = self._rooms.files.adopt(Path(made["path"]))
        return StoredFile(
            made["sop_instance_uid"], made["sop_class_uid"], made["transfer_syntax_uid"], file, size_bytes
        )

    def _record(self, session: Session, job: Job, made: tuple[Mapping[str, Any], str], files: list[StoredFile]) -> None:
        output, series_instance_uid = made
        now = time.time()
        us = Sender("", self.deriving.ae_title, self.deriving.ae_title, "", now)
        identity = identity_of(session, job.series_row, series_instance_uid)
        instances = record_derived(session, identity, files, job.id, us)
        stages = job.stages[: job.content["engines"].index(output["engine"]) + 1]
        by_volume = any(stage["influence"] == "volume" for stage in stages)
        sources = zip(instances, job.instance_rows, strict=True)
        replacing.record_derivations(session, job, tuple(sources), by_volume=by_volume)
        self._enqueue(session, job, output, instances)

    def _enqueue(self, session: Session, job: Job, output: Mapping[str, Any], derived: Sequence[Instance]) -> None:
        """Send an output of a job where it is to go; what was rejected stays where it is."""
        now = time.time()
        source = job_index.job_instances(session, job)[0]
        revived = replacing.revive(session, derived)
        for target in output["targets"]:
            to = outbox.DerivedOutgoing(
                destination=target["destination"],
                rules=tuple(target["rules"]),
                calling_ae=self.routing.calling_ae(target["destination"], source.calling_ae),
                priority=PRIORITIES[target["priority"]],
                after_series=job.series_row,
                hold_until=now + SOURCES_FIRST_S,
                withheld=self.routing.withholds(target["destination"], target["rules"], job.content["commissioning"]),
            )
            outbox.enqueue_derived(session, revived.instances, to, now)
            replacing.resume(session, revived, to.destination, to.withheld, now)


def _label_of(job: Job, series: Mapping[str, Any]) -> dict[str, Any]:
    """How a job's derived series is called: two jobs of one series make two of them, which need two numbers."""
    incomplete = "Incomplete " if job.content.get("source_incomplete") else ""
    return {
        **series,
        "description_prefix": f"{incomplete}{series['description_prefix']}",
        "number_offset": series["number_offset"] + _NUMBERS_A_JOB * job.ordinal,
    }


def _note_of(job: Job, report: Mapping[str, Any]) -> str:
    """What a derived object says besides how it was made: who let it go, and what its source lacks."""
    released = [release_note(report)] if job.review == RELEASED else []
    missing = "; ".join(job.content.get("source_incomplete", ()))
    return " ".join([*released, *([f"Source series incomplete: {missing}."] if missing else [])])


def _sender_of(instance: Instance) -> Sender:
    return Sender(instance.peer, instance.calling_ae, instance.called_ae, instance.source_address, instance.received_at)


def identity_of(session: Session, series_row: int, series_instance_uid: str) -> Identity:
    """A derived series belongs to the study and patient of its source."""
    series = session.get_one(Series, series_row)
    study = session.get_one(Study, series.study_row)
    patient = session.get_one(Patient, study.patient_row)
    return Identity(
        patient_id=patient.patient_id,
        issuer=patient.issuer,
        study_instance_uid=study.study_instance_uid,
        accession_number=study.accession_number,
        series_instance_uid=series_instance_uid,
        modality=series.modality,
    )


def _tell_plan(series: Series, decided: RoutingPlan, forwarded: bool) -> None:
    rules = sorted({rule for job in decided.jobs for rule in job.rules})
    told: Told = {"series_id": series.id, "series_instance_uid": series.series_instance_uid}
    if decided.unrouted and not forwarded:
        near = next((stack.nearest.rule for stack in decided.stacks if stack.nearest is not None), "")
        event("series_unrouted", **told, rule=near, reason="no rule matches; see `dicomnode why`")
    else:
        event("series_routed", **told, rules=len(rules), rule=", ".join(rules))


def _tell_job(job: Job, report: Mapping[str, Any], seconds: float) -> None:
    told: Told = {"job_id": job.id, "series_id": job.series_row, "engine": ", ".join(job.content["engines"])}
    if report["state"] == "done":
        event("job_finished", **told, instances=len(job.instance_rows), seconds=seconds)
    else:
        event(f"job_{report['state']}", **told, reason="; ".join(report["reasons"]))
