"""Contrast-limited adaptive histogram equalisation of continuous values (Zuiderveld, Graphics Gems IV, 1994).

OpenCV's own is not used: for 16-bit images it always counts 65536 grey levels, so a tile of 64 x 64 pixels has 1/16 of
a count a level, and its clip limit, at least one count, does nothing between 0.5 and 16 (measured on a chest CT); what
comes out depends on how finely the values were quantised. Here a tile has 256 classes whose cumulated histogram is
read as a continuous line: values in and out are float and keep every level, 0 stays 0 and 1 stays 1.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Pixels = NDArray[np.float32]
Places = NDArray[np.bool_]

CLASSES: Final = 256
_BAND_ROWS: Final = 256  # rows mapped at once: bounds the memory that a large radiograph takes


def equalise(pixels: Pixels, measured: Places, clip: float, grid: int) -> Pixels:
    """Equalise a slice of values 0...1 in `grid` x `grid` tiles, blended bilinearly; values 0...1.

    measured  where False, a pixel does not count in its tile's histogram
    clip      largest slope of a tile's mapping before what is clipped is given back to all classes; at least 1
    """
    down, across = (np.linspace(0, length, grid + 1).round().astype(int) for length in pixels.shape)
    curves = np.empty((grid, grid, CLASSES + 1))
    for row in range(grid):
        for column in range(grid):
            tile = (slice(down[row], down[row + 1]), slice(across[column], across[column + 1]))
            curves[row, column] = curve(histogram(pixels[tile][measured[tile]]), clip)
    tile_rows, tile_columns = _tile_coordinates(down), _tile_coordinates(across)
    out = np.empty(pixels.shape, dtype=np.float32)
    for first in range(0, len(pixels), _BAND_ROWS):
        band = slice(first, first + _BAND_ROWS)
        where = np.broadcast_arrays(tile_rows[band, None], tile_columns[None, :], pixels[band] * CLASSES)
        out[band] = ndimage.map_coordinates(curves, where, order=1, mode="nearest")
    return out


def histogram(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Share of values 0...1 in each of 256 classes; uniform where there is no value."""
    if not values.size:
        return np.full(CLASSES, 1.0 / CLASSES)
    classes = np.minimum((values * CLASSES).astype(np.intp), CLASSES - 1)
    return np.bincount(classes.ravel(), minlength=CLASSES) / values.size


def curve(shares: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    """Mapping of 0...1 at the 257 bounds of the classes: the cumulated histogram, clipped at `clip` times uniform."""
    limit = clip / CLASSES
    clipped = np.minimum(shares, limit)
    clipped += (1.0 - clipped.sum()) / CLASSES
    return np.concatenate(([0.0], np.cumsum(clipped)))


def _tile_coordinates(bounds: NDArray[np.int_]) -> NDArray[np.float64]:
    """For each pixel along one axis its place among the centres of the tiles: 0 at the first, 1 at the second..."""
    centres = (bounds[:-1] + bounds[1:] - 1) / 2
    return np.interp(np.arange(bounds[-1]), centres, np.arange(len(centres)))
