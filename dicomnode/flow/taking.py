"""Taking in: the series that the engines of a job take -> volumes in files that they read.

A job enhances one stack. Where its rule needs several series, its engines may take others beside it, each by the input
of the need's name; what no engine takes has only been waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from dicomnode.core.guards import HEADER_KEYWORDS, misplaced
from dicomnode.core.headers import number
from dicomnode.core.stacks import STACK_KEYWORDS
from dicomnode.flow.rooms import Rooms
from dicomnode.store.index import jobs as job_index
from dicomnode.store.schema import Instance, Job
from engines.chaining import IMAGE

DECODE_TIMEOUT_S: Final = 1800.0
_DECODED_TOGETHER: Final = 16
_VOXEL_BYTES: Final = 5
"""Of a volume's files: a float32, and whether it was measured."""


class Digests(NamedTuple):
    """Of each slice of the stack that is enhanced, and by name of each other one that is taken."""

    main: list[str]
    others: dict[str, list[str]]

    @property
    def told(self) -> list[str]:
        """All of them, as a result is named by: another series as the same input gives another result."""
        return [*self.main, *(f"{name} {digest}" for name, of in self.others.items() for digest in of)]


@dataclass(frozen=True)
class Stack:
    """One stack: its files, attributes of its first slice, where its slices are, and where it is decoded to."""

    paths: list[str]
    header: Mapping[str, Sequence[str]]
    places_mm: Sequence[Sequence[float] | None]
    volume: Path


@dataclass(frozen=True)
class Inputs:
    """What the engines of a job are given: the stack that is enhanced, and by name the others that they take."""

    main: Stack
    others: Mapping[str, Stack]

    @property
    def volumes(self) -> dict[str, str]:
        return {name: str(stack.volume) for name, stack in self._named.items()}

    @property
    def headers(self) -> dict[str, Mapping[str, Sequence[str]]]:
        return {name: stack.header for name, stack in self._named.items()}

    @property
    def refused(self) -> list[str]:
        """Why the stacks cannot be taken together, before anything is decoded."""
        found = [misplaced(name, one.places_mm, IMAGE, self.main.places_mm) for name, one in self.others.items()]
        return [reason for reason in found if reason]

    @property
    def _named(self) -> dict[str, Stack]:
        others = {name: stack for name, stack in self.others.items() if name != IMAGE}
        return {IMAGE: self.main, **others}


def _nobody(slices: int) -> None:
    """Nothing waits for the slices of a stack that is decoded before the engines begin."""


class Taker:
    """Decodes what jobs take."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    @contextmanager
    def opened(self, job: Job, instances: Sequence[Instance]) -> Iterator[Inputs]:
        """The stacks of a job, with room for their volumes; nothing is decoded yet.

        instances  of the stack that is enhanced
        """
        with ExitStack() as opened:
            others = {name: opened.enter_context(self._stack(members)) for name, members in self._others(job).items()}
            yield Inputs(opened.enter_context(self._stack(instances)), others)

    def decode(self, inputs: Inputs, arrived: Callable[[int], None] = _nobody) -> Digests:
        """Decode all stacks, the one that is enhanced last and from its first slice on: `arrived` is told how many of
        its slices are there."""
        others = {name: self._decoded(stack) for name, stack in inputs.others.items()}
        return Digests(self._decoded(inputs.main, arrived), others)

    def _others(self, job: Job) -> dict[str, list[Instance]]:
        if len(job.content.get("inputs", {})) < 2:
            return {}
        taken = {name for card in self._rooms.cards(job.content["engines"]) for name in card["inputs"]}
        with self._rooms.database.read() as session:
            return {
                name: job_index.instances_of(session, one["instance_rows"])
                for name, one in job_index.other_inputs(job, taken).items()
            }

    @contextmanager
    def _stack(self, instances: Sequence[Instance]) -> Iterator[Stack]:
        paths = self._rooms.paths(instances)
        (read,) = self._rooms.headers(paths[:1], STACK_KEYWORDS | HEADER_KEYWORDS)
        header = read.get("header", {})
        rows, columns = (number(header, keyword) or 0.0 for keyword in ("Rows", "Columns"))
        size_bytes = _VOXEL_BYTES * len(paths) * int(rows) * int(columns)
        with self._rooms.shared.folder(size_bytes) as volume:
            opened: Mapping[str, Any] = self._rooms.pixels.call(
                "open_stack", DECODE_TIMEOUT_S, paths=paths, out=str(volume)
            )
            yield Stack(paths, header, opened["places_mm"], volume)

    def _decoded(self, stack: Stack, arrived: Callable[[int], None] = _nobody) -> list[str]:
        """The digest of each slice."""
        digests: list[str] = []
        for begin in range(0, len(stack.paths), _DECODED_TOGETHER):
            paths = stack.paths[begin : begin + _DECODED_TOGETHER]
            decoded = self._rooms.pixels.call(
                "decode_slices", DECODE_TIMEOUT_S, paths=paths, out=str(stack.volume), begin=begin
            )
            digests += decoded["digests"]
            arrived(len(digests))
        return digests
