"""Whether what an engine took away looks like noise: it knows nothing of edges, and holds nothing of a nodule's shape.

A denoiser must not remove or invent anatomy. A residual that is strong where the source has edges is a blur. A residual
that holds a compact blob, far above what is around it and more than a small part of what the source has there, is
something erased (or, with the other sign, made up).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.quality.slices import Pair, Pixels, blurred, halved, slope_of

BLOB_SIZES_MM: Final = (6.0, 10.0)
"""Diameters that are looked for. A matched filter of 6 mm still finds 5 mm and 8 mm."""

_FEWEST: Final = 500
_MOST_SLICES: Final = 9
_SIGMA_OF_DIAMETER: Final = 0.3  # of the Gaussian that matches a sphere's projection best
_WIDE_PX: Final = 1.8  # sigma, in px of half resolution, from which on a quarter is enough
_SURROUNDING: Final = 2.0  # the wider Gaussian that is subtracted, in sigmas
_TOUCHED: Final = 0.05  # share of a structure of the source that an engine may take away unremarked
_OF_NOISE: Final = 0.015  # share of the source's own noise, at a blob's size, that makes none: it is noise that goes
_QUIET: Final = 0.5  # places much less noisy than the slice count as if they had this share of its noise
_MEDIAN_TO_SIGMA: Final = 1.4826
_EVERY: Final = 4  # of the places in a body: its median is known well enough
_NEGLIGIBLE: Final = 1e-3  # of the spread of the source: what no eye sees


@dataclass
class EdgeCorrelation:
    """Correlation of the residual's magnitude with the source's gradient, gathered slice by slice.

    worst  highest of all slices; None where no slice has a body, or a residual worth the name
    index  of that slice
    """

    worst: float | None = None
    index: int | None = None

    def add(self, pair: Pair) -> None:
        """Take in one slice."""
        if np.count_nonzero(pair.body) < _FEWEST:
            return
        magnitude = np.sqrt(blurred(halved(np.square(pair.residual)), 1.0))
        if magnitude[pair.body].max() < _NEGLIGIBLE * pair.smooth[pair.body].std():
            return  # rounding of float32, which is coarser where values are larger
        found = _correlation(magnitude, slope_of(pair.smooth), pair.body.astype(np.float32))
        if found is not None and (self.worst is None or found > self.worst):
            self.worst, self.index = found, pair.index


@dataclass(frozen=True)
class Blob:
    """What stands out of a residual most.

    strength     its height, as a multiple of what its surroundings and the source's own structure make there
    contrast     its height in the values' unit: positive where something bright was taken away, or something dark added
    size_mm      diameter of the filter that it answers to best
    slice_index  where: of the slice
    row, column  where: in px of the source
    """

    strength: float
    contrast: float
    size_mm: float
    slice_index: int
    row: int
    column: int


@dataclass
class BlobSearch:
    """Looks for blobs of a nodule's size in the residual, slice by slice, in order.

    spacing_mm  (between rows, between columns, between slices)
    strongest   the strongest blob; None where there is nothing to search
    """

    spacing_mm: tuple[float, float, float]
    strongest: Blob | None = None
    _filters: list[_Filter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._filters = [_Filter(size, self.spacing_mm) for size in BLOB_SIZES_MM]

    def add(self, pair: Pair) -> None:
        """Take in the next slice."""
        for each in self._filters:
            self._keep(each.add(pair))

    def finish(self) -> None:
        """Look at the last slices, which fewer follow than a blob is long."""
        for each in self._filters:
            for found in each.finish():
                self._keep(found)

    def _keep(self, found: Blob | None) -> None:
        if found is not None and (self.strongest is None or found.strength > self.strongest.strength):
            self.strongest = found


@dataclass(frozen=True, eq=False)
class _Filtered:
    """One slice, filtered: residual and source, and where the body is."""

    index: int
    residual: Pixels
    source: Pixels
    body: NDArray[np.bool_]
    spread: float


class _Filter:
    """One size of blob: a difference of Gaussians in the slice, a mean over as many slices as the blob is long.

    It works at half the resolution, or at a quarter where the blob is wide enough for that.
    """

    def __init__(self, size_mm: float, spacing_mm: tuple[float, float, float]) -> None:
        row_mm, column_mm, step_mm = spacing_mm
        sigma_px = _SIGMA_OF_DIAMETER * size_mm / (row_mm + column_mm)
        self._size_mm = size_mm
        self._scale = 4 if sigma_px >= _WIDE_PX else 2
        self._sigma_px = max(sigma_px * 2 / self._scale, 0.6)
        reach = int(size_mm / max(step_mm, 1e-3) / 2 - 0.5) if step_mm else 0
        self._reach = min(max(reach, 0), _MOST_SLICES // 2)
        self._window: deque[_Filtered] = deque(maxlen=2 * self._reach + 1)

    def add(self, pair: Pair) -> Blob | None:
        old, residual, body = pair.half_old, pair.half_residual, pair.body
        if self._scale == 4:
            old, residual = pair.coarse_old, pair.coarse_residual
            body = body[::2, ::2][: old.shape[0], : old.shape[1]]
        self._window.append(
            _Filtered(pair.index, self._filtered(residual), self._filtered(old), body, float(pair.coarse_old.std()))
        )
        middle = len(self._window) - 1 - self._reach
        return self._look(self._window[middle]) if middle >= 0 else None

    def finish(self) -> list[Blob | None]:
        last = list(self._window)[-self._reach :] if self._reach else []
        return [self._look(filtered) for filtered in last]

    def _filtered(self, pixels: Pixels) -> Pixels:
        difference: Pixels = blurred(pixels, self._sigma_px) - blurred(pixels, _SURROUNDING * self._sigma_px)
        return difference

    def _look(self, at: _Filtered) -> Blob | None:
        if np.count_nonzero(at.body) * self._scale**2 < 4 * _FEWEST:
            return None
        near = [each for each in self._window if abs(each.index - at.index) <= self._reach]
        residual, source = (_mean([getattr(each, name) for each in near]) for name in ("residual", "source"))
        strength = np.abs(residual) / self._expected(residual, source, at)
        strength[~at.body] = 0.0
        row, column = np.unravel_index(int(strength.argmax()), strength.shape)
        found = float(strength[row, column])
        height = float(residual[row, column])
        return Blob(found, height, self._size_mm, at.index, self._scale * int(row), self._scale * int(column))

    def _expected(self, residual: Pixels, source: Pixels, at: _Filtered) -> Pixels:
        """What noise and the engine's usual touch of structure make of the filter's answer at each place.

        Of a residual that is next to nothing any trace stands out: so the source's noise counts too, by the median of
        what the filter finds there, which structure moves little.
        """
        around = _ring_mean(np.square(residual), int(6 * self._sigma_px), int(16 * self._sigma_px))
        usual = cv2.mean(np.square(residual), at.body.astype(np.uint8))[0]
        noise = _MEDIAN_TO_SIGMA * float(np.median(np.abs(source[at.body][::_EVERY])))
        least = np.float32((_OF_NOISE * noise) ** 2 + (_NEGLIGIBLE * at.spread) ** 2 + 1e-12)
        expected: Pixels = np.sqrt(np.maximum(around, _QUIET**2 * usual) + np.square(_TOUCHED * source) + least)
        return expected


def _mean(images: list[Pixels]) -> Pixels:
    total = images[0]
    for image in images[1:]:
        total = total + image
    return total / np.float32(len(images))


def _ring_mean(values: Pixels, inner_px: int, outer_px: int) -> Pixels:
    """Mean in the square of `outer_px` around each place, less that of `inner_px`: a blob does not hide itself."""
    inner, outer = (2 * (width // 2) + 1 for width in (inner_px, outer_px))
    sums = [
        cv2.boxFilter(values, cv2.CV_32F, (width, width), normalize=False, borderType=cv2.BORDER_REFLECT)
        for width in (outer, inner)
    ]
    ring: Pixels = np.maximum((sums[0] - sums[1]) / np.float32(outer**2 - inner**2), 0.0)
    return ring


def _correlation(one: Pixels, other: Pixels, where: Pixels) -> float | None:
    """Pearson's, in places whose weight in `where` is 1 and not 0; None where one of them does not vary there."""
    count = float(where.sum())
    one, other = (where * (values - np.vdot(values, where) / np.float32(count)) for values in (one, other))
    scale = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(np.vdot(one, other)) / scale if scale > 0 else None
