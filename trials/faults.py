"""The faults, each a function of a slab and what a good engine made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.quality import measured_places, tissue_cores
from engines.quality.slices import Pair
from engines.volume import HU, Volume

OFFSET_HU: Final = 30.0
BLUR_PX: Final = 1.0
CEILING_HU: Final = 600.0
NODULE_MM: Final = 6.0
CONTRAST_HU: Final = {"lung": 800.0, "soft tissue": 100.0}
"""Of the nodule that is erased or inserted: a solid one in lung, an enhancing one in soft tissue."""

_FEWEST_CUT: Final = 30
_SUPERSAMPLED: Final = 3


@dataclass(frozen=True, eq=False)
class Case:
    """A source and an output of one grid."""

    source: Volume
    output: Volume


@dataclass(frozen=True)
class Nodule:
    """A sphere at a place (slice, row, column), in the unit of the voxels' index."""

    place: tuple[int, int, int]
    diameter_mm: float
    contrast_hu: float


Plant = Callable[[Case, np.random.Generator, range], Case | None]
"""Plants a fault into some slices of a case's output; None where there is nothing to plant it in."""


def swapped(case: Case, draw: np.random.Generator, at: range) -> Case | None:
    """Two neighbouring slices, exchanged; where all are altered, each pair of them."""
    made = case.output.voxels.copy()
    first = at[0] if len(at) > 1 or at[0] + 1 < len(made) else at[0] - 1
    for index in range(first, max(at[-1], first + 1), 2):
        made[[index, index + 1]] = made[[index + 1, index]]
    return _made(case, made)


def offset(case: Case, draw: np.random.Generator, at: range) -> Case | None:
    """30 HU too many, or too few."""
    sign = np.float32(draw.choice([-1.0, 1.0]))
    return _altered(case, at, lambda pixels: pixels + sign * np.float32(OFFSET_HU))


def blurred(case: Case, draw: np.random.Generator, at: range) -> Case | None:
    """A Gaussian of 1 px over all."""
    return _altered(case, at, lambda pixels: cv2.GaussianBlur(pixels, (0, 0), BLUR_PX))


def flipped(case: Case, draw: np.random.Generator, at: range) -> Case | None:
    """Rows or columns in the other direction."""
    axis = int(draw.integers(2))
    return _altered(case, at, lambda pixels: np.flip(pixels, axis))


def no_number(case: Case, draw: np.random.Generator, at: range) -> Case | None:
    """NaN in a square of 32 px, about a place that was measured."""
    measured = np.argwhere(measured_places(case.source, at[0]))
    row, column = (max(int(middle) - 16, 0) for middle in measured[draw.integers(len(measured))])
    made = case.output.voxels.copy()
    made[at[0] : at[-1] + 1, row : row + 32, column : column + 32] = np.nan
    return _made(case, made)


def clipped(case: Case, draw: np.random.Generator, at: range) -> Case | None:
    """Bone cut off at 600 HU, where at least 30 px of a slice are brighter."""
    brighter = [int(np.count_nonzero(case.output.voxels[index] > CEILING_HU)) for index in at]
    if min(brighter) < _FEWEST_CUT:
        return None
    return _altered(case, at, lambda pixels: np.minimum(pixels, np.float32(CEILING_HU)))


def erased(case: Case, draw: np.random.Generator, at: range) -> Case | None:
    """A nodule of 6 mm that the source has and the output has not."""
    nodule = _draw_nodule(case, draw, at)
    return None if nodule is None else with_nodule(case, nodule, is_erased=True)


def inserted(case: Case, draw: np.random.Generator, at: range) -> Case | None:
    """A nodule of 6 mm that the output has and the source has not."""
    nodule = _draw_nodule(case, draw, at)
    return None if nodule is None else with_nodule(case, nodule, is_erased=False)


FAULTS: Final[Mapping[str, tuple[Plant, tuple[str, ...]]]] = {
    "swapped slices": (swapped, ("one", "one")),
    "HU offset of 30": (offset, ("one", "all")),
    "blurred (Gaussian, 1 px)": (blurred, ("one", "all")),
    "erased nodule of 6 mm": (erased, ("one", "one")),
    "inserted nodule of 6 mm": (inserted, ("one", "one")),
    "flipped axis": (flipped, ("one", "all")),
    "NaN": (no_number, ("one", "all")),
    "bone clipped at 600 HU": (clipped, ("one", "all")),
}
"""Each fault, and each time that it is planted into a slab: into one slice (a nodule is as long as it is) or all."""


def with_nodule(case: Case, nodule: Nodule, *, is_erased: bool) -> Case:
    """The nodule in the source alone, or in the output alone."""
    sphere = np.float32(nodule.contrast_hu) * sphere_share(case.source, nodule.place, nodule.diameter_mm)
    if not is_erased:
        return _made(case, case.output.voxels + sphere)
    if case.source.valid is not None:
        sphere *= case.source.valid
    return Case(case.source.with_voxels(case.source.voxels + sphere), case.output)


def sphere_share(volume: Volume, place: tuple[int, int, int], diameter_mm: float) -> NDArray[np.float32]:
    """Share of each voxel that a sphere fills, blurred in the slice as the scanner blurs (Gaussian of 0.5 mm)."""
    row_mm, column_mm = volume.pixel_spacing_mm
    step_mm = float(np.linalg.norm(volume.affine[:3, 2]))
    part = (np.arange(_SUPERSAMPLED) + 0.5) / _SUPERSAMPLED - 0.5
    axes = [
        ((np.arange(length)[:, None] + part).ravel() - middle) * spacing
        for length, middle, spacing in zip(volume.shape, place, (step_mm, row_mm, column_mm), strict=True)
    ]
    reach = [np.flatnonzero(np.abs(axis) <= diameter_mm) for axis in axes]
    bounds = [(int(near[0]) // _SUPERSAMPLED, int(near[-1]) // _SUPERSAMPLED + 1) for near in reach]
    within = [axis[low * _SUPERSAMPLED : high * _SUPERSAMPLED] for axis, (low, high) in zip(axes, bounds, strict=True)]
    distance = np.sqrt(within[0][:, None, None] ** 2 + within[1][:, None] ** 2 + within[2] ** 2)
    shape = [value for low, high in bounds for value in (high - low, _SUPERSAMPLED)]
    share = (distance <= diameter_mm / 2).reshape(shape).mean(axis=(1, 3, 5))
    share = ndimage.gaussian_filter(share, (0.0, 0.5 / row_mm, 0.5 / column_mm), mode="constant")
    filled = np.zeros(volume.shape, np.float32)
    filled[tuple(slice(low, high) for low, high in bounds)] = share
    return filled


def place_in(case: Case, tissue: str, draw: np.random.Generator, index: int) -> tuple[int, int, int] | None:
    """A place well inside a tissue of slice `index`; None where there is none."""
    pair = Pair(index, case.source.voxels[index], case.output.voxels[index], None, HU)
    core = tissue_cores(pair.smooth, pair.inside)[tissue]
    deep = cv2.erode(core.astype(np.uint8), np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    rows, columns = np.nonzero(deep)
    if not len(rows):
        return None
    chosen = int(draw.integers(len(rows)))
    return index, 2 * int(rows[chosen]), 2 * int(columns[chosen])


def _draw_nodule(case: Case, draw: np.random.Generator, at: range) -> Nodule | None:
    for tissue in draw.permutation(list(CONTRAST_HU)).tolist():
        place = place_in(case, tissue, draw, at[len(at) // 2])
        if place is not None:
            return Nodule(place, NODULE_MM, CONTRAST_HU[tissue])
    return None


def _altered(case: Case, at: range, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Case:
    made = case.output.voxels.copy()
    for index in at:
        made[index] = change(made[index])
    return _made(case, made)


def _made(case: Case, voxels: NDArray[np.float32]) -> Case:
    """With another output. Padding stays as it was: that it is altered is too easy to see."""
    if case.source.valid is not None:
        voxels = np.where(case.source.valid, voxels, case.source.voxels)
    return Case(case.source, case.output.with_voxels(voxels))
