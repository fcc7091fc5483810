"""ModelEngine: an engine whose work is done by the networks of a bundle.

It works slab by slab, so that memory is flat however long a series is. `run` does all slabs of a volume. Whoever orders
work among several series (an inference service) takes the same steps apart:

    engine.slabs(shape)                      the slabs of a volume, in order. Each says which slices it reads: it may
                                             begin when these are decoded, while others are not there yet
    engine.run_slab(inputs, settings, slab)  outputs of these slices alone: volumes and masks at their place in the
                                             patient, findings with slices counted from the slab's first. A pure
                                             function: slabs may be done in any order, again, and in several processes
    engine.run_slabs(works)                  the same for slabs of several series; the networks see them as one batch
    engine.halo_slices                       how many slices a slab reads beyond its own, on each side
    Assembly (engines.model.slabs)                 puts slabs together again, in memory or in files

A contrast task looks at a whole volume before it shows a slice: it has one slab, of all slices. It still computes its
networks portion by portion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from engines.base import Value
from engines.bundle.folder import Bundle
from engines.card import EngineCard, SettingValue, Task
from engines.errors import BundleError
from engines.model.chain import DEFAULT_PORTIONS, Portions, through
from engines.model.inputs import check_inputs, prompt_of
from engines.model.slabs import Allocate, Assembly, in_memory, slab_of
from engines.model.stages import Part, margins, source_block
from engines.prompt import Region, region_of_interest
from engines.runtimes.base import Session
from engines.tasks import contrast, detect, image, segment, super_resolution
from engines.tasks.base import Computed, Piece
from engines.tasks.wiring import check_chain, multiple_px, output_factor
from engines.tiling import Slab, slabs, widened
from engines.volume import Volume

_TASKS: Final[Mapping[Task, Callable[[Computed], Mapping[str, Value]]]] = {
    "image": image.values,
    "super-resolution": super_resolution.values,
    "segment": segment.values,
    "detect": detect.values,
    "contrast": contrast.values,
}


@dataclass(frozen=True, eq=False)
class Work:
    """One slab of one series: the inputs of the whole series, and resolved settings."""

    inputs: Mapping[str, Value]
    settings: Mapping[str, SettingValue]
    slab: Slab


class ModelEngine:
    """An `engines.base.Engine` over opened networks. One caller at a time; results do not depend on `portions` or
    `allocate` beyond rounding.

    sessions  one for each of the card's stages, in their order
    allocate  where `run` puts its outputs
    Raises BundleError where the stages cannot give what the card promises.
    """

    def __init__(
        self,
        card: EngineCard,
        sessions: Sequence[Session],
        portions: Portions = DEFAULT_PORTIONS,
        allocate: Allocate = in_memory,
    ) -> None:
        if len(sessions) != len(card.stages) or not sessions:
            raise BundleError(
                f"{card.name} has {len(card.stages)} stages, and {len(sessions)} networks are open", "open one for each"
            )
        check_chain(card)
        self.card: Final = replace(card, runtime=_identity(sessions))
        self._sessions = tuple(sessions)
        self._portions = portions
        self._allocate = allocate
        self._factor = output_factor(card)
        taken = {entry.source for stage in card.stages for entry in stage.inputs}
        taken |= {output.residual_of for stage in card.stages for output in stage.outputs}
        self._sources = tuple(name for name in card.inputs if name in taken)
        self._targets = tuple(dict.fromkeys(output.target for stage in card.stages for output in stage.outputs))

    @classmethod
    def open(cls, bundle: Bundle, opener: Callable[[Path], Session], portions: Portions = DEFAULT_PORTIONS) -> Self:
        """The engine of a bundle. `opener` opens one network; if one cannot be opened, those before it are closed."""
        sessions: list[Session] = []
        try:
            sessions.extend(opener(path) for path in bundle.networks)
            return cls(bundle.card, sessions, portions)
        except BaseException:
            for session in sessions:
                session.close()
            raise

    @property
    def halo_slices(self) -> int:
        return margins(self.card.stages)[0]

    def slabs(self, shape: tuple[int, int, int]) -> tuple[Slab, ...]:
        """The slabs of a volume of (slices, rows, columns)."""
        size = shape[0] if self.card.method else self._portions.slices
        return slabs(shape[0], size, self.halo_slices)

    def run(self, inputs: Mapping[str, Value], settings: Mapping[str, SettingValue]) -> Mapping[str, Value]:
        """All slabs, one after another. Raises EngineInputError on inputs that the card does not declare, and
        RuntimeFailedError where the device fails."""
        shape = check_inputs(self.card, inputs).shape
        assembly = Assembly(shape[0], self._allocate)
        for slab in self.slabs(shape):
            assembly.put(slab.slices, self.run_slab(inputs, settings, slab))
        return assembly.values()

    def run_slab(
        self, inputs: Mapping[str, Value], settings: Mapping[str, SettingValue], slab: Slab
    ) -> Mapping[str, Value]:
        """What `run` gives of these slices. Only the slices that `slab` reads are looked at."""
        return self.run_slabs([Work(inputs, settings, slab)])[0]

    def run_slabs(self, works: Sequence[Work]) -> list[Mapping[str, Value]]:
        """What `run_slab` gives of each; slabs of one size go through the networks together."""
        grids = [check_inputs(self.card, work.inputs) for work in works]
        pieces: list[list[Piece]] = [[] for _ in works]
        for batch in self._batches(works, grids):
            done = through(self.card, self._sessions, [part for _, part in batch], self._portions)
            for (place, _), part in zip(batch, done, strict=True):
                pieces[place].append(self._piece(part, works[place].slab))
        return [
            _TASKS[self.card.task](self._computed(work, grid, parts))
            for work, grid, parts in zip(works, grids, pieces, strict=True)
        ]

    def close(self) -> None:
        """Give the networks' memory and device back."""
        for session in self._sessions:
            session.close()

    def _batches(self, works: Sequence[Work], grids: Sequence[Volume]) -> Iterator[list[tuple[int, Part]]]:
        """What goes through the networks together: each part with the place of its work."""
        if self.card.method:
            for place, (work, grid) in enumerate(zip(works, grids, strict=True)):
                for portion in slabs(grid.shape[0], self._portions.slices, 0):
                    yield [(place, part) for part in self._parts(work, grid, portion.slices)]
            return
        yield [
            (place, part)
            for place, (work, grid) in enumerate(zip(works, grids, strict=True))
            for part in self._parts(work, grid, work.slab.slices)
        ]

    def _parts(self, work: Work, grid: Volume, slices: range) -> list[Part]:
        """All of the slices; or where a person marked lesions, a region of one slice for each mark on them."""
        count, rows, columns = grid.shape
        prompt = prompt_of(work.inputs)
        if prompt is None:
            return [self._part(work, slices, count, Region(0, rows, 0, columns))]
        step = multiple_px(self.card)
        return [
            self._part(
                work,
                range(mark.slice_index, mark.slice_index + 1),
                count,
                region_of_interest(mark, rows, columns, step),
            )
            for mark in prompt.marks
            if mark.slice_index in slices
        ]

    def _part(self, work: Work, slices: range, count: int, region: Region) -> Part:
        reads = widened(slices, self.halo_slices, count)
        blocks = {name: source_block(work.inputs[name], reads, region) for name in self._sources}
        return Part(slices, count, region, blocks)

    def _piece(self, part: Part, slab: Slab) -> Piece:
        first = slab.slices.start
        here = range(part.slices.start - first, part.slices.stop - first)
        return Piece(here, part.region, {name: part.made(name) for name in self._targets})

    def _computed(self, work: Work, grid: Volume, pieces: Sequence[Piece]) -> Computed:
        return Computed(self.card, work.settings, slab_of(grid, work.slab.slices), self._factor, pieces)


def _identity(sessions: Sequence[Session]) -> str:
    """Identities of all sessions, each once."""
    return "+".join(dict.fromkeys(session.identity for session in sessions))
