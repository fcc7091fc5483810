"""One stored image as numbers, for who wants to look at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.core.headers import header_of
from dicomnode.core.volumes import PIXEL_KEYWORDS, slice_pixels, to_physical
from dicomnode.pixels.decode import decode
from dicomnode.pixels.read import read_dataset


@dataclass(frozen=True, eq=False)
class SliceValues:
    """float32 (rows, columns) in `unit`, with the window (centre, width) that the object asks for, or None."""

    values: NDArray[np.float32]
    unit: str
    window: tuple[float, float] | None


def slice_values(path: Path) -> SliceValues:
    """Physical values of a stored image. Raises NotFoundError, InputError, UnsupportedError."""
    dataset = read_dataset(path, with_pixels=True)
    pixels = slice_pixels(header_of(dataset, PIXEL_KEYWORDS))
    return SliceValues(to_physical(decode(dataset), pixels), pixels.unit, pixels.window)
