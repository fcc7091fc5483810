"""Computing the result of a job: its stack -> volume -> gates and engines -> result at rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from dicomnode.core import review
from dicomnode.core.guards import HEADER_KEYWORDS
from dicomnode.core.stacks import STACK_KEYWORDS
from dicomnode.faults import kill_point
from dicomnode.flow.reusing import Former, FormerJobs
from dicomnode.flow.rooms import Rooms
from dicomnode.store.results import input_of, result_key
from dicomnode.store.schema import Instance, Job

_DECODE_TIMEOUT_S: Final = 1800.0
_ENGINE_TIMEOUT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Result:
    """What the engines of a job made: its name, what they and the gates report, and the folder it lies in."""

    key: str
    report: Mapping[str, Any]
    folder: Path

    def may_leave(self, job: Job) -> bool:
        """Whether the job may derive objects from it: all gates passed, or a person released it."""
        return review.may_leave(self.report, job.content["engines"], is_released=_is_released(job))


class _Volume(NamedTuple):
    """The decoded stack of a job: the folder it lies in, the file of its first slice, the digest of each slice."""

    folder: Path
    source: str
    digests: list[str]


class ChainRunner:
    """Runs the engines of jobs, unless what they would make is there already."""

    def __init__(self, rooms: Rooms, former_jobs: FormerJobs) -> None:
        self._rooms = rooms
        self._former_jobs = former_jobs

    def result(self, job: Job, instances: Sequence[Instance]) -> Result | Former:
        """The result of a job: what lies there from before, else computed now; or the former job that made it."""
        found = self._found(job.result) if job.result is not None else None
        if found is not None and (not _is_released(job) or found.may_leave(job)):
            return found
        return self._computed(job, instances)

    def _computed(self, job: Job, instances: Sequence[Instance]) -> Result | Former:
        formers = [] if _is_released(job) else self._former_jobs.of(job)
        same = next((former for former in formers if former.instance_rows == job.instance_rows), None)
        if same is not None:
            return same
        with self._rooms.results.scratch() as scratch:
            volume = self._decoded(instances, scratch / "volume")
            key = self._key(job, volume.digests)
            same = next((former for former in formers if input_of(former.result) == input_of(key)), None)
            return self._found(key) or same or self._run(job, volume, key, scratch / "out")

    def _found(self, key: str) -> Result | None:
        found = self._rooms.results.find(key)
        return None if found is None else Result(key, report=found[1], folder=found[0])

    def _decoded(self, instances: Sequence[Instance], folder: Path) -> _Volume:
        folder.mkdir()
        paths = self._rooms.paths(instances)
        decoded = self._rooms.pixels.call("decode_stack", _DECODE_TIMEOUT_S, paths=paths, out=str(folder))
        return _Volume(folder, paths[0], decoded["digests"])

    def _key(self, job: Job, digests: list[str]) -> str:
        """The name of a job's result: what is made of these slices by the engines as they are now."""
        cards = self._rooms.cards(job.content["engines"])
        chain: list[Mapping[str, Any]] = [
            {**link, "digest": card["digest"]} for link, card in zip(_chain_of(job), cards, strict=True)
        ]
        return f"{job.id}-{result_key(digests, chain)}{'-released' if _is_released(job) else ''}"

    def _run(self, job: Job, volume: _Volume, key: str, out: Path) -> Result:
        kill_point("enhance.before_engine")
        out.mkdir()
        (read,) = self._rooms.headers([volume.source], STACK_KEYWORDS | HEADER_KEYWORDS)
        report = self._rooms.engines.call(
            "run_chain",
            _ENGINE_TIMEOUT_S,
            chain=_chain_of(job),
            volume=str(volume.folder),
            header=read.get("header", {}),
            out=str(out),
            released=_is_released(job),
        )
        kill_point("enhance.after_engine")
        kept = {**report, "digests": volume.digests}
        folder = self._rooms.results.keep(out, key, kept) if review.is_worth_keeping(report) else out
        kill_point("enhance.after_result")
        return Result(key, kept, folder)


def _is_released(job: Job) -> bool:
    return job.review == review.RELEASED


def _chain_of(job: Job) -> list[dict[str, Any]]:
    """The engines of a job in order, with their settings."""
    settings = job.content["settings"]
    return [{"engine": engine, "settings": settings.get(engine, {})} for engine in job.content["engines"]]
