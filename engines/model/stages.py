"""What stands around the networks of a chain: their channels, scales and residuals.

A chain works on a part of a volume: some slices, and a region of them. Each stage computes the slices that the stages
after it will look at; at the ends of the volume the last slice is repeated.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.base import Value
from engines.card import Scale, Stage, TensorInput, TensorOutput
from engines.errors import EngineInputError
from engines.padding import filled_slices
from engines.prompt import Prompt, Region, drawn
from engines.runtimes.base import Tensors
from engines.volume import Mask, Volume

Pixels = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Block:
    """Slices of a source or of a stage's output: float32 (slices, channels, rows, columns), and which they are."""

    values: Pixels
    slices: range


@dataclass(frozen=True, eq=False)
class Part:
    """Part of a volume that goes through a chain.

    slices  that are wanted
    count   how many slices the volume has
    region  rows and columns of its grid
    blocks  what is known of it by name: the sources, and what stages made
    """

    slices: range
    count: int
    region: Region
    blocks: Mapping[str, Block]

    def made(self, name: str) -> Pixels:
        """The wanted slices of a block."""
        return _taken(self.blocks[name], self.slices, 0, self.count)


def margins(stages: Sequence[Stage]) -> tuple[int, ...]:
    """How many slices beyond the wanted ones are needed on each side: of the sources, then of each stage's outputs."""
    reach = [max(entry.adjacent for entry in stage.inputs) for stage in stages]
    return tuple(itertools.accumulate(reversed(reach), initial=0))[::-1]


def source_block(value: Value, slices: range, region: Region) -> Block:
    """Slices of an input as a network may see them; padding is replaced by the nearest measured value."""
    if isinstance(value, Volume):
        pixels = [pixels[region.window] for pixels in filled_slices(value, slices)]
    elif isinstance(value, Mask):
        pixels = [value.labels[(index, *region.window)].astype(np.float32) for index in slices]
    elif isinstance(value, Prompt):
        pixels = [drawn(value, index, region.bottom, region.right)[region.window] for index in slices]
    else:
        raise EngineInputError("findings cannot go into a network", "let the card take a volume, a mask or a prompt")
    return Block(np.stack(pixels)[:, None], slices)


def tensors(stage: Stage, part: Part, slices: range) -> dict[str, Pixels]:
    """What goes into a stage's network for `slices`: by tensor, float32 (slices, channels, rows, columns)."""
    channels: dict[str, list[Pixels]] = {}
    for entry in stage.inputs:
        channels.setdefault(entry.tensor, []).extend(_channels(entry, part, slices))
    return {
        name: several[0] if len(several) == 1 else np.concatenate(several, axis=1) for name, several in channels.items()
    }


def made(stage: Stage, part: Part, slices: range, given: Tensors) -> dict[str, Block]:
    """What a stage's network gave for `slices`, by its targets: in units, as an image where it is a residual."""
    return {output.target: Block(_left(output, part, slices, given[output.tensor]), slices) for output in stage.outputs}


def _channels(entry: TensorInput, part: Part, slices: range) -> list[Pixels]:
    block = part.blocks[entry.source]
    if block.values.shape[1] != 1:
        raise EngineInputError(
            f"{entry.source} has {block.values.shape[1]} channels", "only what has one goes into a next network"
        )
    seen = _entering(block.values, entry.scale)
    offsets = range(-entry.adjacent, entry.adjacent + 1)
    return [_taken(Block(seen, block.slices), slices, offset, part.count) for offset in offsets]


def _taken(block: Block, slices: range, offset: int, count: int) -> Pixels:
    """For each of `slices` the one `offset` further, as far as there is one."""
    if offset == 0 and block.slices == slices:
        return block.values
    wanted = np.clip(np.arange(slices.start, slices.stop) + offset, 0, count - 1) - block.slices.start
    return block.values[wanted]


def _left(output: TensorOutput, part: Part, slices: range, given: Pixels) -> Pixels:
    values = _leaving(given, output.scale)
    if not output.residual_of:
        return values
    source = _taken(part.blocks[output.residual_of], slices, 0, part.count)
    if source.shape != values.shape:
        raise EngineInputError(
            f"{output.target} has another grid than {output.residual_of}", "an image is subtracted from its own grid"
        )
    return source - values


def _entering(values: Pixels, scale: Scale) -> Pixels:
    values = _cut(values, scale)
    if scale.offset:
        values = values - np.float32(scale.offset)
    return values if scale.divisor == 1.0 else values / np.float32(scale.divisor)


def _leaving(values: Pixels, scale: Scale) -> Pixels:
    values = values * np.float32(scale.divisor)
    return _cut(values + np.float32(scale.offset) if scale.offset else values, scale)


def _cut(values: Pixels, scale: Scale) -> Pixels:
    if scale.clip is None:
        return values
    low, high = scale.clip
    return np.clip(values, np.float32(low), np.float32(high))
