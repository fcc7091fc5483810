"""What a task is given when the networks have computed a slab."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.card import EngineCard, SettingValue
from engines.errors import EngineInputError, RuntimeFailedError
from engines.prompt import Region
from engines.volume import Volume

Pixels = NDArray[np.float32]


def check_numbers(values: NDArray[Any], name: str) -> None:
    """Raises RuntimeFailedError unless all are finite: a mask or findings would not show it, so no gate sees it."""
    if not np.isfinite(values).all():
        raise RuntimeFailedError(
            f"the network gives values of {name} that are no numbers", "try again; if it stays, check the bundle"
        )


@dataclass(frozen=True, eq=False)
class Piece:
    """What the networks made of a region of some slices.

    slices   in the slab: 0 is its first
    targets  by the targets of all stages float32 (slices, channels, rows, columns), in units
    """

    slices: range
    region: Region
    targets: Mapping[str, Pixels]

    def image(self, name: str) -> Pixels:
        """A target that is an image: (slices, rows, columns). Raises EngineInputError where it has several channels."""
        values = self.targets[name]
        if values.shape[1] != 1:
            raise EngineInputError(f"the network gives {name} with {values.shape[1]} channels", "an image has one")
        return values[:, 0]


@dataclass(frozen=True, eq=False)
class Computed:
    """A slab, and what the networks made of it.

    source    the slab's slices of the volume that gives the grid
    settings  resolved
    factor    rows and columns of the last output for one of the source
    pieces    one of all slices and the whole grid; where a person marked lesions, one for each mark in the slab
    """

    card: EngineCard
    settings: Mapping[str, SettingValue]
    source: Volume
    factor: int
    pieces: Sequence[Piece]

    def pasted(self, canvas: NDArray[Any], take: Callable[[Piece], NDArray[Any]], *, beneath: bool = False) -> None:
        """Write what `take` gives of each piece, (slices, rows, columns), to its place on `canvas`. Raises
        EngineInputError where it has another size: the card's `factor` is not the network's.

        beneath  only where `canvas` is still 0: marks that lie near to each other take nothing from each other
        """
        for piece in self.pieces:
            values = take(piece)
            place = canvas[piece.slices.start : piece.slices.stop, *piece.region.finer(self.factor).window]
            if values.shape != place.shape:
                raise EngineInputError(
                    f"the network gives {values.shape}, {place.shape} was declared", "the card's factor must be its own"
                )
            np.copyto(place, values, where=place == 0 if beneath else True)
