"""Slices before and after an engine, as all figures see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.volume import HU, Volume

Pixels = NDArray[np.float32]
Places = NDArray[np.bool_]

_BODY_HU: Final = -930.0  # darker is air around the patient: what noise is there says nothing of the noise in tissue
_PADDING_REACH: Final = 9  # of halved pixels: what smoothing and filters bring in from padding


@dataclass(frozen=True, eq=False)
class Pair:
    """One slice before and after. What is computed at half resolution (means of 2 x 2 px) is computed once.

    index     of the slice in its volume
    old, new  float32 (rows, columns)
    measured  False where the scanner padded; None: nowhere
    unit      of the values
    """

    index: int
    old: Pixels
    new: Pixels
    measured: Places | None
    unit: str

    @property
    def measured_places(self) -> Places:
        """True where something was measured."""
        return np.ones(self.old.shape, dtype=np.bool_) if self.measured is None else self.measured

    @cached_property
    def residual(self) -> Pixels:
        """What the engine took away: before minus after; 0 where padded."""
        difference: Pixels = self.old - self.new
        return difference if self.measured is None else difference * self.measured

    @cached_property
    def half_old(self) -> Pixels:
        """The source at half resolution; padding is replaced by the darkest measured value."""
        if self.measured is None or not self.measured.any():
            return halved(self.old)
        return halved(np.where(self.measured, self.old, self.old[self.measured].min()))

    @cached_property
    def half_residual(self) -> Pixels:
        """The residual at half resolution."""
        return halved(self.residual)

    @cached_property
    def coarse_old(self) -> Pixels:
        """The source at a quarter of the resolution."""
        return halved(self.half_old)

    @cached_property
    def coarse_residual(self) -> Pixels:
        """The residual at a quarter of the resolution."""
        return halved(self.half_residual)

    @cached_property
    def smooth(self) -> Pixels:
        """The source at half resolution, after a Gaussian of 1 px of it: noise no longer decides where edges are."""
        return blurred(self.half_old, 1.0)

    @cached_property
    def inside(self) -> Places:
        """Where, at half resolution, no padding is near."""
        if self.measured is None:
            return np.ones(self.half_old.shape, dtype=np.bool_)
        padded = halved((~self.measured).astype(np.float32)) > 0
        near: Places = cv2.dilate(padded.view(np.uint8), np.ones((_PADDING_REACH, _PADDING_REACH), np.uint8)) > 0
        return ~near

    @cached_property
    def body(self) -> Places:
        """Where, at half resolution, the patient is; in other units than HU all that is measured."""
        return self.inside & (self.smooth > _BODY_HU) if self.unit == HU else self.inside


def pairs(before: Volume, after: Volume, indices: range | list[int] | None = None) -> Iterator[Pair]:
    """The slices of two volumes of one grid, in their order; only those of `indices` where given."""
    for index in range(before.shape[0]) if indices is None else indices:
        measured = None if before.valid is None else np.asarray(before.valid[index])
        if measured is not None and measured.all():
            measured = None
        old, new = (np.ascontiguousarray(volume.voxels[index]) for volume in (before, after))
        yield Pair(index, old, new, measured, before.unit)


def sample(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers below `count`, evenly spread, first and last among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist()))


def measured_places(volume: Volume, index: int) -> Places:
    """True where a slice is measured rather than padded."""
    return np.ones(volume.shape[1:], dtype=np.bool_) if volume.valid is None else volume.valid[index]


def measured_range(volume: Volume) -> tuple[float, float]:
    """(lowest, highest) of the measured voxels; (0, 0) where none is, or where one is no number."""
    low, high = np.inf, -np.inf
    for index, pixels in enumerate(volume.voxels):
        seen = pixels if volume.valid is None else pixels[volume.valid[index]]
        if seen.size:
            low, high = np.minimum(low, seen.min()), np.maximum(high, seen.max())
    return (float(low), float(high)) if low <= high else (0.0, 0.0)


def halved(pixels: Pixels) -> Pixels:
    """Means of 2 x 2 px; an odd last row or column is left out."""
    rows, columns = (length // 2 for length in pixels.shape)
    half = cv2.resize(pixels[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(half, dtype=np.float32)


def blurred(pixels: Pixels, sigma_px: float) -> Pixels:
    """Gaussian, cut at 3 sigma; the image is mirrored at its border."""
    width = 2 * int(3.0 * sigma_px + 0.5) + 1
    smoothed = cv2.GaussianBlur(pixels, (width, width), sigma_px, borderType=cv2.BORDER_REFLECT)
    return np.asarray(smoothed, dtype=np.float32)


def gradient_of(pixels: Pixels) -> tuple[Pixels, Pixels]:
    """(down, across) central differences, in the values' unit per px."""
    down = cv2.Sobel(pixels, cv2.CV_32F, 0, 1, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    across = cv2.Sobel(pixels, cv2.CV_32F, 1, 0, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(down, dtype=np.float32), np.asarray(across, dtype=np.float32)


def slope_of(pixels: Pixels) -> Pixels:
    """Magnitude of the gradient, in the values' unit per px."""
    return np.asarray(cv2.magnitude(*gradient_of(pixels)), dtype=np.float32)
