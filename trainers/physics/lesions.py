"""Nodules that were never there, and nodules that were: planted and removed, for training and to test what is lost.

A planted nodule is added to the slice as its scanner would have shown it: its edge as blurred as the slice's own,
partial volume in thick slices, and the slice's own noise left in place. It is added at full dose: the noise of lower
doses comes after. What is measured on such nodules is measured on simulated lesions, and must say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.quality.slices import blurred, slope_of

_FINER: Final = 4
_PLANES: Final = 5
_HARMONICS: Final = (2, 3, 4)
_SMOOTHING_PX: Final = 2.0
_RIM_PX: Final = 0.7  # wider, and other tissue near the rim would come in
_MARGIN_SIGMAS: Final = 4.0

Pixels = NDArray[np.float32]
Field = NDArray[np.float64]
Filled = Callable[[Field, Field], Pixels]


@dataclass(frozen=True)
class Nodule:
    """A nodule about a point of a slice.

    row, column   of its middle, in pixels
    radius_mm     of the sphere that it comes near to
    contrast_hu   added at its middle, where it is large enough
    depth_mm      of the slice's middle above the nodule's
    wobble        amplitudes of the second to fourth harmonic of its outline, as shares of the radius
    turn          of the outline, in radians
    """

    row: float
    column: float
    radius_mm: float
    contrast_hu: float
    depth_mm: float = 0.0
    wobble: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: float = 0.0


@dataclass(frozen=True)
class Imaging:
    """How a slice shows what is there.

    pixel_mm      size of its square pixels
    thickness_mm  over which it averages
    edge_px       standard deviation of the blur of edges
    """

    pixel_mm: float
    thickness_mm: float
    edge_px: float


@dataclass(frozen=True)
class Middle:
    """Of something in a slice: where, in pixels, and how far it reaches."""

    row: float
    column: float
    reach_mm: float


def nodule_hu(nodule: Nodule, shape: tuple[int, int], imaging: Imaging) -> Pixels:
    """What a nodule adds to a slice of `shape`: float32 (rows, columns) in HU, 0 far from it."""

    def filled(down: Field, across: Field) -> Pixels:
        return within(_distance(nodule, down, across), nodule.radius_mm, nodule.depth_mm, imaging.thickness_mm)

    reach_mm = nodule.radius_mm * (1.0 + sum(map(abs, nodule.wobble)))
    return shown(filled, Middle(nodule.row, nodule.column, reach_mm), shape, imaging) * np.float32(nodule.contrast_hu)


def shown(filled: Filled, middle: Middle, shape: tuple[int, int], imaging: Imaging) -> Pixels:
    """How a slice of `shape` shows what fills it as a share of its thickness: float32 (rows, columns), 0 far from it.

    filled  the share at points, in mm below the middle and to its right
    """
    seen_at = np.zeros(shape, dtype=np.float32)
    reach = math.ceil(middle.reach_mm / imaging.pixel_mm + _MARGIN_SIGMAS * imaging.edge_px) + 1
    top, left = math.floor(middle.row) - reach, math.floor(middle.column) - reach
    size_px = 2 * reach + 2
    fine = (np.arange(size_px * _FINER) + 0.5) / _FINER - 0.5
    down = (fine + top - middle.row)[:, None] * imaging.pixel_mm
    across = (fine + left - middle.column)[None, :] * imaging.pixel_mm
    inside = filled(down, across)
    share = inside.reshape(size_px, _FINER, size_px, _FINER).mean(axis=(1, 3), dtype=np.float32)
    seen = blurred(share, imaging.edge_px) if imaging.edge_px > 0 else share
    rows = slice(max(top, 0), min(top + size_px, shape[0]))
    columns = slice(max(left, 0), min(left + size_px, shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        seen_at[rows, columns] = seen[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return seen_at


def within(distance_mm: Field, radius_mm: float, depth_mm: float, thickness_mm: float) -> Pixels:
    """Share of the slice's thickness that is nearer than a radius to a point, or to a line in the slice.

    distance_mm  in the plane
    depth_mm     of the slice's middle above the point or line
    """
    planes = depth_mm + ((np.arange(_PLANES) + 0.5) / _PLANES - 0.5) * thickness_mm
    filled = np.zeros(distance_mm.shape, dtype=np.float32)
    for plane in planes:
        filled += np.float32(1.0 / _PLANES) * (distance_mm**2 <= radius_mm**2 - plane**2)
    return filled


def removed(hu: Pixels, mask: NDArray[np.bool_], rng: np.random.Generator) -> Pixels:
    """A slice without what lies in `mask`, a few pixels larger than the nodule: with the level of what is around it,
    and the noise of a place beside it.

    Raises ValueError where the mask leaves no place of its size beside it.
    """
    rows, columns = _box(mask)
    smooth = _spread_inward(hu, mask)
    noise = hu - blurred(hu, _SMOOTHING_PX)
    from_row, from_column = _beside(hu, mask, (rows, columns), rng)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    texture = noise[from_row : from_row + height, from_column : from_column + width]
    inner = mask[rows, columns]
    made = hu.copy()
    made[rows, columns][inner] = (smooth[rows, columns] + texture - texture[inner].mean())[inner]
    return made


def roomy_places(hu: Pixels, radius_px: float, band_hu: tuple[float, float]) -> NDArray[np.intp]:
    """Where a nodule of this radius lies wholly in tissue of `band_hu`: (places, 2), row and column.

    The tissue is judged on a smoothed slice; vessels and walls in it stand out, and nothing is planted across them.
    """
    smooth = blurred(hu, _SMOOTHING_PX)
    tissue = ((smooth >= band_hu[0]) & (smooth <= band_hu[1])).astype(np.uint8)
    width = 2 * math.ceil(radius_px) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    room = cv2.erode(tissue, disc, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.argwhere(room > 0)


def _distance(nodule: Nodule, down: Field, across: Field) -> Field:
    """From the middle in mm, as if its outline were a circle."""
    angle = np.arctan2(down, across) + nodule.turn
    outline = 1.0 + sum(
        amplitude * np.cos(order * angle) for order, amplitude in zip(_HARMONICS, nodule.wobble, strict=True)
    )
    return np.asarray(np.hypot(down, across) / np.maximum(outline, 0.1), dtype=np.float64)


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    down, across = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return slice(int(down[0]), int(down[-1]) + 1), slice(int(across[0]), int(across[-1]) + 1)


def _spread_inward(hu: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """The level of the rim, continued into the mask: the smoothest surface that meets it (Laplace's equation)."""
    kept = (~mask).astype(np.float32)
    weight = np.maximum(blurred(kept, _RIM_PX), np.float32(1e-3))
    smooth: Pixels = (blurred(hu * kept, _RIM_PX) / weight).astype(np.float32)
    rows, columns = (slice(max(part.start - 2, 0), part.stop + 2) for part in _box(mask))
    part, hole = smooth[rows, columns].copy(), mask[rows, columns]
    rim = part[~hole]
    part[hole] = rim.mean() if rim.size else 0.0
    kernel = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4
    for _ in range(4 * max(part.shape)):
        part[hole] = cv2.filter2D(part, -1, kernel, borderType=cv2.BORDER_REPLICATE)[hole]
    smooth[rows, columns] = part
    return smooth


def _beside(hu: Pixels, mask: NDArray[np.bool_], box: tuple[slice, slice], rng: np.random.Generator) -> tuple[int, int]:
    """Upper left corner of a place as large as the box, near it and as flat as can be found, that the mask leaves."""
    (rows, columns), slope = box, slope_of(blurred(hu, _SMOOTHING_PX))
    height, width = rows.stop - rows.start, columns.stop - columns.start
    best, found = math.inf, None
    for _ in range(200):
        row = rows.start + int(rng.integers(-3 * height, 3 * height + 1))
        column = columns.start + int(rng.integers(-3 * width, 3 * width + 1))
        there = (slice(row, row + height), slice(column, column + width))
        if row < 0 or column < 0 or row + height > hu.shape[0] or column + width > hu.shape[1] or mask[there].any():
            continue
        unrest = float(slope[there].mean())
        if unrest < best:
            best, found = unrest, (row, column)
    if found is None:
        raise ValueError("the mask leaves no place beside it to take texture from")
    return found
