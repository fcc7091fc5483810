"""Deriving: result and sources -> derived objects -> file store, index and outbox."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy.orm import Session

from dicomnode.core.review import FLAG, RELEASED, flag_note, is_flagged, release_note
from dicomnode.core.rules import leaving_of
from dicomnode.core.types import Sender
from dicomnode.faults import kill_point
from dicomnode.flow.computing import Result
from dicomnode.flow.dispatching import Dispatcher
from dicomnode.flow.enhancing import Enhancer
from dicomnode.flow.measuring import is_constancy
from dicomnode.flow.reporting import Document, Reporter
from dicomnode.flow.rooms import Rooms
from dicomnode.flow.storing import drop, identity_of, store_built
from dicomnode.store.index import jobs as job_index
from dicomnode.store.index import replacing
from dicomnode.store.index.arrivals import StoredFile, record_derived
from dicomnode.store.schema import Instance, Job, JobState, QualityRow
from dicomnode.telemetry import event
from engines.chaining import ordered_outputs
from engines.tasks.image import STRENGTH

_BUILD_TIMEOUT_S: Final = 1800.0
_PARTS: Final = 4
"""Into which a series is divided among the pixel workers: of each part the headers of all sources are read."""
_LEAST_SLICES: Final = 16
"""Of a part: fewer are not worth the reading of all headers."""

_NUMBERS_A_JOB: Final = 10
"""Series numbers kept free for one job; each output of the engines of its chain may take one."""

_LAST_NUMBER: Final = 8
"""Of these the last that an output takes; outputs beyond share it, and the next is the quality report's."""


@dataclass(frozen=True)
class Deriving:
    """What derived objects say of us: passed on to `dicomnode.pixels.encode.derive_stack`."""

    ae_title: str
    series: Mapping[str, Any]
    equipment: Mapping[str, Any]
    content_qualification: str

    def sender(self, now: float) -> Sender:
        """We, as the sender of what we derive."""
        return Sender("", self.ae_title, self.ae_title, "", now)


class _Enhanced(NamedTuple):
    """A job, the instances of its stack, and the result of its engines."""

    job: Job
    instances: Sequence[Instance]
    result: Result


class _Made(NamedTuple):
    """All that is derived in one go."""

    series: Sequence[_Derived]
    documents: Sequence[Document]

    @property
    def files(self) -> list[StoredFile]:
        return [*(file for one in self.series for file in one.files), *(one.file for one in self.documents)]


class _Derived(NamedTuple):
    """A derived series at rest: the output of a job that it is, and its files."""

    output: Mapping[str, Any]
    series_instance_uid: str
    files: list[StoredFile]


class Deriver:
    """Makes the derived objects of jobs. `deriving` gives the configuration as it is now."""

    def __init__(
        self, rooms: Rooms, enhancer: Enhancer, dispatcher: Dispatcher, deriving: Callable[[], Deriving]
    ) -> None:
        self._rooms = rooms
        self._enhancer = enhancer
        self._dispatcher = dispatcher
        self._deriving = deriving
        self._reporter = Reporter(rooms, dispatcher)

    def derive(self, job_row: int) -> None:
        """Build, store and enqueue a job's derived objects."""
        with self._rooms.database.read() as session:
            job = job_index.job(session, job_row)
            instances = job_index.job_instances(session, job)
        if job.state != JobState.ENHANCED:
            self._enhancer.forget_result(job)  # a kill may have come between the commit and this
            return
        if is_constancy(job):
            self._report(job, instances)
            return
        started = time.monotonic()
        result = self._enhancer.result_to_derive(job, instances)
        if result is not None:
            self._derive(_Enhanced(job, instances, result), started)

    def _report(self, job: Job, instances: Sequence[Instance]) -> None:
        """Make the documents on a phantom."""
        with self._rooms.results.scratch() as scratch:
            said = _said(self._deriving(), job, {"reasons": []})
            made = _Made([], self._reporter.make(job, instances, said, lambda row: "", scratch))
            self._commit(job.id, made)

    def _derive(self, enhanced: _Enhanced, started: float) -> None:
        with self._rooms.results.scratch() as scratch:
            derived = self._make(enhanced, scratch)
            made = _Made(derived, self._documents(enhanced, scratch))
            kill_point("derive.before_commit")
            if not self._commit(enhanced.job.id, made):
                return
        kill_point("derive.after_commit")
        self._rooms.results.forget(enhanced.result.key)
        self._enhancer.forget_result(enhanced.job)  # a released one may have been computed anew, under another key
        for series in derived:
            _tell(enhanced.job, series, time.monotonic() - started)

    def _make(self, enhanced: _Enhanced, scratch: Path) -> list[_Derived]:
        """Build the series of all outputs, then store them."""
        outputs = enhanced.job.content["outputs"]
        kill_point("derive.before_build")
        built = [self._build(enhanced, output, scratch) for output in outputs]
        kill_point("derive.after_build")
        return [
            _Derived(output, made["series_instance_uid"], store_built(self._rooms, made["instances"]))
            for output, made in zip(outputs, built, strict=True)
        ]

    def _documents(self, enhanced: _Enhanced, scratch: Path) -> list[Document]:
        """Build and store the quality reports that the rules ask for."""
        job, instances, result = enhanced
        stages = result.report["stages"]
        said = _said(self._deriving(), job, result.report)

        def folder_of(row: QualityRow) -> str:
            return str(result.folder / stages[row.stage]["outputs"][row.output]["folder"])

        return self._reporter.make(job, instances, said, folder_of, scratch)

    def _build(self, enhanced: _Enhanced, output: Mapping[str, Any], scratch: Path) -> Mapping[str, Any]:
        job, instances, result = enhanced
        leaving, stages = leaving_of(output), _stages_to(output, job, result.report["stages"])
        name = leaving.output or stages[-1]["output"]
        told = stages[-1]["outputs"][name]
        (out := scratch / Path(told["folder"]).name).mkdir()
        said = _said(self._deriving(), job, result.report)
        said["series"]["number_offset"] += _place_of(name, stages)
        with self._rooms.database.read() as session:
            replaces = replacing.replaced_series(session, job, leaving)
        return self._built(
            len(instances),
            sources=self._rooms.paths(instances),
            digests=result.report["digests"],
            stack_key=job.content["stack_key"],
            result=str(result.folder / told["folder"]),
            stages=[*stages[:-1], {**stages[-1], "presentation": told["presentation"]}],
            **said,
            replaces=replaces,
            created_at=job.created_at,
            out=str(out),
            output="" if name == stages[-1]["output"] else name,
            others=self._others(job, result.report),
        )

    def _built(self, slices: int, **stack: Any) -> Mapping[str, Any]:
        """What `derive_stack` gives; by several pixel workers, each for a part of the slices."""
        step = max(_LEAST_SLICES, math.ceil(slices / _PARTS))
        parts = [(begin, min(begin + step, slices)) for begin in range(0, slices, step)]
        with ThreadPoolExecutor(_PARTS) as threads:
            answers = list(
                threads.map(
                    lambda part: self._rooms.pixels.call("derive_stack", _BUILD_TIMEOUT_S, part=part, **stack), parts
                )
            )
        return {**answers[0], "instances": [made for answer in answers for made in answer["instances"]]}

    def _others(self, job: Job, report: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The other stacks that the engines of a job took, as `derive_stack` takes them."""
        digests: Mapping[str, Sequence[str]] = report.get("others", {})
        needed = job_index.other_inputs(job, digests)
        with self._rooms.database.read() as session:
            members = {name: job_index.instances_of(session, one["instance_rows"]) for name, one in needed.items()}
        return [
            {
                "input": name,
                "stack_key": one["stack_key"],
                "sources": self._rooms.paths(members[name]),
                "digests": digests[name],
            }
            for name, one in needed.items()
        ]

    def _commit(self, job_row: int, made: _Made) -> bool:
        """Record and enqueue what was made; False where the job was superseded or cancelled meanwhile."""
        with self._rooms.database.write() as session:
            job = job_index.job(session, job_row)
            if job.state != JobState.ENHANCED:
                drop(self._rooms, made.files)
                return False
            for series in made.series:
                self._record(session, job, series)
            self._reporter.record(session, job, made.documents, self._deriving().sender(time.time()))
            job_index.end_job(session, job_row, JobState.DERIVED, [], time.time())
            job.derived_series = [series.series_instance_uid for series in made.series]
            replacing.supersede(session, job, time.time())
        return True

    def _record(self, session: Session, job: Job, derived: _Derived) -> None:
        """Enter a derived series in the index and the outbox, with what it was made of."""
        identity = identity_of(session, job.series_row, derived.series_instance_uid)
        us = self._deriving().sender(time.time())
        instances = record_derived(session, identity, derived.files, job.id, us)
        stages = _stages_to(derived.output, job, job.stages)
        by_volume = any(stage["influence"] == "volume" for stage in stages)
        sources = tuple(zip(instances, job.instance_rows, strict=True))
        replacing.record_derivations(session, job, sources, by_volume=by_volume)
        self._dispatcher.dispatch(session, job, derived.output, instances)


def _place_of(output: str, stages: Sequence[Mapping[str, Any]]) -> int:
    """The place of the last stage's output among all outputs of the chain: the same whatever the rule delivers."""
    before = sum(len(stage["outputs"]) for stage in stages[:-1])
    return min(_LAST_NUMBER, before + ordered_outputs(stages[-1]["outputs"]).index(output))


def _stages_to(output: Mapping[str, Any], job: Job, stages: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Of the stages of a job's chain those that made an output."""
    return stages[: job.content["engines"].index(output["engine"]) + 1]


def _said(deriving: Deriving, job: Job, report: Mapping[str, Any]) -> dict[str, Any]:
    """What derived objects say of us and of themselves."""
    flagged = is_flagged(report, job.content, is_released=job.review == RELEASED)
    return {
        "series": {**_label_of(job, deriving.series), "description_suffix": FLAG if flagged else ""},
        "equipment": dict(deriving.equipment),
        "content_qualification": "RESEARCH" if flagged else deriving.content_qualification,
        "note": _note_of(job, report),
        "comment": flag_note(report) if flagged else "",
    }


def _label_of(job: Job, series: Mapping[str, Any]) -> dict[str, Any]:
    """How a job's derived series is called: two jobs of one series make two of them, which need two numbers."""
    incomplete = "Incomplete " if job.content.get("source_incomplete") else ""
    return {
        **series,
        "preset": _preset_of(job),
        "description_prefix": f"{incomplete}{series['description_prefix']}",
        "number_offset": series["number_offset"] + _NUMBERS_A_JOB * job.ordinal,
    }


def _preset_of(job: Job) -> str:
    """The strengths that the rule chose, in the chain's order: two presets of one engine are told apart by them."""
    given = [job.content["settings"].get(engine, {}).get(STRENGTH) for engine in job.content["engines"]]
    return "".join(f"{STRENGTH} {strength:g} " for strength in given if isinstance(strength, int | float))


def _note_of(job: Job, report: Mapping[str, Any]) -> str:
    """What a derived object says besides how it was made: who let it go, and what its source lacks."""
    released = [release_note(report)] if job.review == RELEASED else []
    missing = "; ".join(job.content.get("source_incomplete", ()))
    return " ".join([*released, *([f"Source series incomplete: {missing}."] if missing else [])])


def _tell(job: Job, derived: _Derived, seconds: float) -> None:
    event(
        "series_derived",
        job_id=job.id,
        series_id=job.series_row,
        series_instance_uid=derived.series_instance_uid,
        engine=str(leaving_of(derived.output)),
        instances=len(derived.files),
        seconds=seconds,
    )
