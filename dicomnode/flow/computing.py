"""Computing the result of a job: its stack -> volume -> gates and engines -> result at rest.

Engines begin with the first slices while the others are still being decoded, unless the result may be there already:
whether it is, only the digests of all slices tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from dicomnode.core import review
from dicomnode.core.guards import HEADER_KEYWORDS
from dicomnode.core.headers import number
from dicomnode.core.ports import ChainRequest
from dicomnode.core.routing import PRIORITIES
from dicomnode.core.stacks import STACK_KEYWORDS
from dicomnode.faults import kill_point
from dicomnode.flow.reusing import Former, FormerJobs
from dicomnode.flow.rooms import Rooms
from dicomnode.inference.stages import IMAGE
from dicomnode.store.results import input_of, result_key
from dicomnode.store.schema import Instance, Job

_DECODE_TIMEOUT_S: Final = 1800.0
_ENGINE_TIMEOUT_S: Final = 3600.0
_DECODED_TOGETHER: Final = 16
_VOXEL_BYTES: Final = 5
"""Of a volume's files: a float32, and whether it was measured."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the engines of a job made: its name, what they and the gates report, and the folder it lies in."""

    key: str
    report: Mapping[str, Any]
    folder: Path

    def may_leave(self, job: Job) -> bool:
        """Whether the job may derive objects from it: all gates passed, or a person released it."""
        return review.may_leave(self.report, job.content["engines"], is_released=_is_released(job))


class _Stack(NamedTuple):
    """The stack of a job: its files, the attributes of its first slice, and where its volume is decoded to."""

    paths: list[str]
    header: Mapping[str, Sequence[str]]
    volume: Path


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
        with self._opened(instances) as stack, self._rooms.results.scratch() as scratch:
            (out := scratch / "out").mkdir()
            if not formers and not self._rooms.results.has_of(f"{job.id}-"):
                return self._run(job, stack, out, None)
            digests = self._decode(stack, _nobody)
            key = self._key(job, digests)
            same = next((former for former in formers if input_of(former.result) == input_of(key)), None)
            return self._found(key) or same or self._run(job, stack, out, digests)

    def _found(self, key: str) -> Result | None:
        found = self._rooms.results.find(key)
        return None if found is None else Result(key, report=found[1], folder=found[0])

    @contextmanager
    def _opened(self, instances: Sequence[Instance]) -> Iterator[_Stack]:
        """The stack of these instances, with room for its volume."""
        paths = self._rooms.paths(instances)
        (read,) = self._rooms.headers(paths[:1], STACK_KEYWORDS | HEADER_KEYWORDS)
        header = read.get("header", {})
        rows, columns = (number(header, keyword) or 0.0 for keyword in ("Rows", "Columns"))
        size_bytes = _VOXEL_BYTES * len(paths) * int(rows) * int(columns)
        with self._rooms.shared.folder(size_bytes) as volume:
            self._rooms.pixels.call("open_stack", _DECODE_TIMEOUT_S, paths=paths, out=str(volume))
            yield _Stack(paths, header, volume)

    def _decode(self, stack: _Stack, arrived: Callable[[int], None]) -> list[str]:
        """Decode a stack from its first slice on; the digest of each slice. `arrived` is told how many are there."""
        digests: list[str] = []
        for begin in range(0, len(stack.paths), _DECODED_TOGETHER):
            paths = stack.paths[begin : begin + _DECODED_TOGETHER]
            decoded = self._rooms.pixels.call(
                "decode_slices", _DECODE_TIMEOUT_S, paths=paths, out=str(stack.volume), begin=begin
            )
            digests += decoded["digests"]
            arrived(len(digests))
        return digests

    def _key(self, job: Job, digests: list[str]) -> str:
        """The name of a job's result: what is made of these slices by the engines as they are now."""
        cards = self._rooms.cards(job.content["engines"])
        chain: list[Mapping[str, Any]] = [
            {**link, "digest": card["digest"]} for link, card in zip(_chain_of(job), cards, strict=True)
        ]
        return f"{job.id}-{result_key(digests, chain)}{'-released' if _is_released(job) else ''}"

    def _run(self, job: Job, stack: _Stack, out: Path, digests: list[str] | None) -> Result:
        """Run a job's engines. Where the stack is not decoded yet (`digests` None), it is decoded meanwhile."""
        kill_point("enhance.before_engine")
        request = ChainRequest(
            chain=_chain_of(job),
            inputs={IMAGE: str(stack.volume)},
            header=stack.header,
            out=str(out),
            priority=PRIORITIES[job.content["priority"]],
            deadline_s=_ENGINE_TIMEOUT_S,
            released=_is_released(job) or review.flags(job.content),
        )
        with self._rooms.engines.admit(request) as chain:
            made_of = self._decode(stack, chain.arrived) if digests is None else digests
            chain.arrived(len(made_of))
            report = chain.report()
        kill_point("enhance.after_engine")
        key = self._key(job, made_of)
        kept = {**report, "digests": made_of}
        folder = self._rooms.results.keep(out, key, kept) if review.is_worth_keeping(report) else out
        kill_point("enhance.after_result")
        return Result(key, kept, folder)


def _nobody(slices: int) -> None:
    """Nothing waits for the slices of a stack that is decoded before its engines begin."""


def _is_released(job: Job) -> bool:
    return job.review == review.RELEASED


def _chain_of(job: Job) -> list[dict[str, Any]]:
    """The engines of a job in order, with their settings."""
    settings = job.content["settings"]
    return [{"engine": engine, "settings": settings.get(engine, {})} for engine in job.content["engines"]]
