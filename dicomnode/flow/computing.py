"""Computing the result of a job: its stacks -> volumes -> gates and engines -> result at rest.

Engines begin with the first slices while the others are still being decoded, unless the result may be there already:
whether it is, only the digests of all slices tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode.core import review
from dicomnode.core.ports import ChainRequest
from dicomnode.core.routing import PRIORITIES
from dicomnode.core.rules import leaving_of
from dicomnode.faults import kill_point
from dicomnode.flow.reusing import Former, FormerJobs, sources_of
from dicomnode.flow.rooms import Rooms
from dicomnode.flow.taking import Digests, Inputs, Taker
from dicomnode.store.results import input_of, result_key
from dicomnode.store.schema import Instance, Job


@dataclass(frozen=True, slots=True)
class Result:
    """What the engines of a job made: its name, what they and the gates report, and the folder it lies in."""

    key: str
    report: Mapping[str, Any]
    folder: Path

    def may_leave(self, job: Job) -> bool:
        """Whether the job may derive objects from it: all gates passed, or a person released it."""
        return review.may_leave(self.report, job.content["engines"], is_released=_is_released(job))


class ChainRunner:
    """Runs the engines of jobs, unless what they would make is there already."""

    def __init__(self, rooms: Rooms, former_jobs: FormerJobs) -> None:
        self._rooms = rooms
        self._former_jobs = former_jobs
        self._taker = Taker(rooms)

    def result(self, job: Job, instances: Sequence[Instance]) -> Result | Former:
        """The result of a job: what lies there from before, else computed now; or the former job that made it."""
        found = self._found(job.result) if job.result is not None else None
        if found is not None and (not _is_released(job) or found.may_leave(job)):
            return found
        return self._computed(job, instances)

    def _computed(self, job: Job, instances: Sequence[Instance]) -> Result | Former:
        formers = [] if _is_released(job) else self._former_jobs.of(job)
        same = next((former for former in formers if former.sources == sources_of(job)), None)
        if same is not None:
            return same
        with self._taker.opened(job, instances) as inputs, self._rooms.results.scratch() as scratch:
            (out := scratch / "out").mkdir()
            if inputs.refused:
                return Result(f"{job.id}-refused", {"stages": [], "state": "refused", "reasons": inputs.refused}, out)
            if not formers and not self._rooms.results.has_of(f"{job.id}-"):
                return self._run(job, inputs, out, None)
            digests = self._taker.decode(inputs)
            key = self._key(job, digests)
            same = next((former for former in formers if input_of(former.result) == input_of(key)), None)
            return self._found(key) or same or self._run(job, inputs, out, digests)

    def _found(self, key: str) -> Result | None:
        found = self._rooms.results.find(key)
        return None if found is None else Result(key, report=found[1], folder=found[0])

    def _key(self, job: Job, digests: Digests) -> str:
        """The name of a job's result: what is made of these slices by the engines as they are now."""
        cards = self._rooms.cards(job.content["engines"])
        chain: list[Mapping[str, Any]] = [
            {**link, "digest": card["digest"]} for link, card in zip(_chain_of(job), cards, strict=True)
        ]
        return f"{job.id}-{result_key(digests.told, chain)}{'-released' if _is_released(job) else ''}"

    def _run(self, job: Job, inputs: Inputs, out: Path, digests: Digests | None) -> Result:
        """Run a job's engines. Where its stacks are not decoded yet (`digests` None), they are decoded meanwhile."""
        kill_point("enhance.before_engine")
        request = ChainRequest(
            chain=[{**link, "leaving": _leaving_of(job, link["engine"])} for link in _chain_of(job)],
            inputs=inputs.volumes,
            headers=inputs.headers,
            out=str(out),
            priority=PRIORITIES[job.content["priority"]],
            deadline_s=self._rooms.deadline_s,
            released=_is_released(job) or review.flags(job.content),
        )
        with self._rooms.engines.admit(request) as chain:
            made_of = self._taker.decode(inputs, chain.arrived) if digests is None else digests
            chain.arrived(len(made_of.main))
            report = chain.report()
        kill_point("enhance.after_engine")
        key = self._key(job, made_of)
        kept = {**report, "digests": made_of.main, "others": made_of.others}
        folder = self._rooms.results.keep(out, key, kept) if review.is_worth_keeping(report) else out
        kill_point("enhance.after_result")
        return Result(key, kept, folder)


def _is_released(job: Job) -> bool:
    return job.review == review.RELEASED


def _leaving_of(job: Job, engine: str) -> list[str]:
    """The outputs of an engine of which a job derives objects."""
    leaving = [leaving_of(output) for output in job.content["outputs"]]
    return [one.output for one in leaving if one.engine == engine]


def _chain_of(job: Job) -> list[dict[str, Any]]:
    """The engines of a job in order, with their settings."""
    settings = job.content["settings"]
    return [{"engine": engine, "settings": settings.get(engine, {})} for engine in job.content["engines"]]
