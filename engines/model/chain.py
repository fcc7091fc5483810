"""A card's networks, one after another, over parts of volumes. Parts of several volumes go through together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from engines import tiling
from engines.card import EngineCard
from engines.model.stages import Part, made, margins, tensors
from engines.runtimes.base import Session, Tensors
from engines.tiling import Tiling, widened

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Portions:
    """How much is computed at once.

    slices   of a slab: what cannot be interrupted
    batch    slices that a network is given at once
    tile_px  about the largest side of a tile; larger slices are cut
    """

    slices: int = 8
    batch: int = 1
    tile_px: int = tiling.DEFAULT_TILE_PX


DEFAULT_PORTIONS: Final = Portions()


def through(card: EngineCard, sessions: Sequence[Session], parts: Sequence[Part], portions: Portions) -> list[Part]:
    """`parts` with what all stages made of them. Their sources must reach as far as `margins` says."""
    done = list(parts)
    computed = tiling.uncut if card.method else tiling.computed
    for stage, session, margin in zip(card.stages, sessions, margins(card.stages)[1:], strict=True):
        wanted = [widened(part.slices, margin, part.count) for part in done]
        given = [tensors(stage, part, slices) for part, slices in zip(done, wanted, strict=True)]
        cut = Tiling(stage.halo_px, stage.multiple_px, portions.tile_px, portions.batch)
        outputs = _together(given, partial(computed, session.run, tiling=cut))
        done = [
            replace(part, blocks={**part.blocks, **made(stage, part, slices, output)})
            for part, slices, output in zip(done, wanted, outputs, strict=True)
        ]
    return done


def _together(given: Sequence[Tensors], compute: Callable[[Tensors], Tensors]) -> list[Tensors]:
    """Compute tensors of one shape as one batch; the outputs in the order of `given`."""
    alike: dict[Shapes, list[int]] = {}
    for place, tensors_of_part in enumerate(given):
        alike.setdefault(tuple((name, values.shape[1:]) for name, values in tensors_of_part.items()), []).append(place)
    outputs: dict[int, Tensors] = {}
    for places in alike.values():
        several = [given[place] for place in places]
        batch = several[0] if len(several) == 1 else _joined(several)
        sizes = [len(next(iter(part.values()))) for part in several]
        outputs |= zip(places, _split(compute(batch), sizes), strict=True)
    return [outputs[place] for place in range(len(given))]


def _joined(several: Sequence[Tensors]) -> Tensors:
    return {name: np.concatenate([part[name] for part in several]) for name in several[0]}


def _split(batch: Tensors, sizes: Sequence[int]) -> Iterator[Tensors]:
    first = 0
    for size in sizes:
        yield {name: values[first : first + size] for name, values in batch.items()}
        first += size
