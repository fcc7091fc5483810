"""Slabs of slices, and tiles of rows and columns: how a network sees a volume that is larger than its memory.

What a network computes for a pixel depends on pixels up to its halo away. So tiles overlap by the halo, and of each the
part is kept that lies a halo away from where it was cut: tiled equals whole. All tiles of a slice have one size,
so that a runtime prepares for one shape only; their places are multiples of what the network shuffles together.

All functions are pure. Tensors are float32 (batch, channels, rows, columns).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineInputError
from engines.runtimes.base import Tensors

Pixels = NDArray[np.float32]

DEFAULT_TILE_PX: Final = 1024
"""Slices of CT and MR go in whole; radiographs in tiles."""

_LEAST_HALOS: Final = 4
"""A tile is at least so many halos long: of a shorter one more would be thrown away than kept."""


@dataclass(frozen=True)
class Tiling:
    """How a network's slices are cut.

    halo_px      how far a pixel of the output looks
    multiple_px  rows and columns, and the places of tiles, are multiples of this
    tile_px      about the largest side of a tile
    batch        how many slices go in at once
    """

    halo_px: int = 0
    multiple_px: int = 1
    tile_px: int = DEFAULT_TILE_PX
    batch: int = 1


@dataclass(frozen=True)
class Slab:
    """Slices that are computed together. `reads` are the slices of the input that they are made of."""

    slices: range
    reads: range


@dataclass(frozen=True)
class Span:
    """One tile along one axis: pixels [begin, end) go in, of them [first, last) are kept."""

    begin: int
    end: int
    first: int
    last: int


def slabs(count: int, size: int, halo_slices: int) -> tuple[Slab, ...]:
    """`count` slices in slabs of at most `size`, all nearly alike; each reads `halo_slices` more on both sides."""
    pieces = -(-count // size)
    bounds = [count * piece // pieces for piece in range(pieces + 1)]
    return tuple(Slab(range(*ends), widened(range(*ends), halo_slices, count)) for ends in itertools.pairwise(bounds))


def widened(slices: range, halo_slices: int, count: int) -> range:
    """With `halo_slices` more on both sides, as far as there are any in a volume of `count`."""
    return range(max(slices.start - halo_slices, 0), min(slices.stop + halo_slices, count))


def spans(length: int, tiling: Tiling) -> tuple[Span, ...]:
    """Tiles along an axis, which is a multiple of `multiple_px` long. What is kept covers it once."""
    halo = multiple(tiling.halo_px, tiling.multiple_px)
    tile = multiple(max(tiling.tile_px, _LEAST_HALOS * halo), tiling.multiple_px)
    if length <= tile:
        return (Span(0, length, 0, length),)
    begins = [*range(0, length - tile, tile - 2 * halo), length - tile]
    firsts = [0, *(begin + tile - halo for begin in begins[:-1])]
    lasts = [*firsts[1:], length]
    return tuple(
        Span(begin, begin + tile, first, last) for begin, first, last in zip(begins, firsts, lasts, strict=True)
    )


def multiple(length: int, of: int) -> int:
    """`length`, rounded up."""
    return -(-length // of) * of


def reflected(length: int, wanted: int) -> NDArray[np.intp]:
    """Indices of an axis of `length`, made `wanted` long by reflection at its end, back and forth if need be."""
    period = max(2 * (length - 1), 1)
    place = np.arange(wanted) % period
    return np.minimum(place, period - place) if length > 1 else np.zeros(wanted, dtype=np.intp)


def padded(values: Pixels, multiple_px: int) -> Pixels:
    """With rows and columns (the last two axes) grown to a multiple by reflection; the same array where they are."""
    rows, columns = values.shape[-2:]
    wanted_rows, wanted_columns = multiple(rows, multiple_px), multiple(columns, multiple_px)
    if wanted_rows != rows:
        values = values[..., reflected(rows, wanted_rows), :]
    if wanted_columns != columns:
        values = values[..., reflected(columns, wanted_columns)]
    return values


def computed(network: Callable[[Tensors], Tensors], tensors: Tensors, tiling: Tiling) -> dict[str, Pixels]:
    """All outputs of a network for tensors of any size: padded, in tiles and batches, and put together again.

    An output may be finer or coarser than the input by a whole number. It covers the same place; a coarser one covers
    what was padded too. Raises EngineInputError where an output has no such size, or another batch.
    """
    filled, (count, rows, columns) = _filled(tensors, tiling)
    tiles = list(itertools.product(spans(rows, tiling), spans(columns, tiling)))
    whole: dict[str, Pixels] = {}
    for (down, across), batch in itertools.product(tiles, _batches(count, tiling.batch)):
        window = (slice(down.begin, down.end), slice(across.begin, across.end))
        given = _given(network, {name: values[batch, :, *window] for name, values in filled.items()})
        for name, tile in given.items():
            finer = _finer(name, tile, down, across)
            if name not in whole:
                size = (count, tile.shape[1], int(rows * finer), int(columns * finer))
                whole[name] = np.empty(size, dtype=np.float32)
            whole[name][batch, :, *_kept(down, across, finer)] = tile[:, :, *_inside(down, across, finer)]
    return {name: _cropped(values, tensors, filled) for name, values in whole.items()}


def uncut(network: Callable[[Tensors], Tensors], tensors: Tensors, tiling: Tiling) -> dict[str, Pixels]:
    """The same for a network that must see each slice as a whole: never in tiles, and an output may have any size."""
    filled, (count, _, _) = _filled(tensors, tiling)
    parts = [
        _given(network, {name: values[batch] for name, values in filled.items()})
        for batch in _batches(count, tiling.batch)
    ]
    whole = {name: np.concatenate([np.array(part[name]) for part in parts]) for name in parts[0]}
    return {name: _cropped(values, tensors, filled) for name, values in whole.items()}


def _given(network: Callable[[Tensors], Tensors], tensors: Tensors) -> Tensors:
    """What a network gives. One slice for a batch of several would be spread over all of them."""
    count = len(next(iter(tensors.values())))
    given = network(tensors)
    for name, values in given.items():
        if values.ndim != 4 or len(values) != count:
            raise EngineInputError(
                f"the network gives {name} as {' x '.join(map(str, values.shape))} for {count} slices",
                "it must be (batch, channels, rows, columns), of the batch that went in",
            )
    return given


def _filled(tensors: Tensors, tiling: Tiling) -> tuple[dict[str, Pixels], tuple[int, int, int]]:
    """The tensors, padded; their (batch, rows, columns)."""
    filled = {name: padded(values, tiling.multiple_px) for name, values in tensors.items()}
    count, _, rows, columns = next(iter(filled.values())).shape
    return filled, (count, rows, columns)


def _cropped(values: Pixels, tensors: Tensors, filled: Tensors) -> Pixels:
    """An output without what was padded; as it is where it is no finer image of the input."""
    rows, columns = next(iter(tensors.values())).shape[2:]
    padded_rows, padded_columns = next(iter(filled.values())).shape[2:]
    factor = values.shape[2] // padded_rows
    if values.shape[2:] != (factor * padded_rows, factor * padded_columns) or factor == 0:
        return values
    return values[:, :, : factor * rows, : factor * columns]


def _batches(count: int, size: int) -> tuple[slice, ...]:
    return tuple(slice(first, min(first + size, count)) for first in range(0, count, size))


def _finer(name: str, tile: Pixels, down: Span, across: Span) -> Fraction:
    """Pixels of an output for one of the input, the same along both axes."""
    taken = (down.end - down.begin, across.end - across.begin)
    given = tile.shape[2:]
    finer = Fraction(given[0], taken[0])
    edges = (down.first * finer, down.last * finer, across.first * finer, across.last * finer)
    if given[1] != taken[1] * finer or any(edge.denominator != 1 for edge in edges):
        raise EngineInputError(
            f"the network gives {name} as {given[0]} x {given[1]} for {taken[0]} x {taken[1]}",
            "the card's multiple_px must be what the network divides rows and columns by",
        )
    return finer


def _kept(down: Span, across: Span, finer: Fraction) -> tuple[slice, slice]:
    """Where a tile's part belongs in the whole output."""
    rows, columns = (slice(int(span.first * finer), int(span.last * finer)) for span in (down, across))
    return rows, columns


def _inside(down: Span, across: Span, finer: Fraction) -> tuple[slice, slice]:
    """Which part of a tile's output is kept."""
    rows, columns = (
        slice(int((span.first - span.begin) * finer), int((span.last - span.begin) * finer)) for span in (down, across)
    )
    return rows, columns
