"""What an engine did to an image, in figures: noise, HU bias in tissue, sharpness of edges, clipping.

Pure functions of arrays. A slice is float32 (rows, columns); lengths are in pixels; noise and bias are in the unit of
the voxels. Where a figure is judged, its places are chosen on the source alone and after smoothing: masks drawn on the
noisy source select its noise, and then even a perfect denoiser seems to shift the means by some HU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.edges import edge_width_px
from engines.volume import HU, Volume

Pixels = NDArray[np.float32]
Places = NDArray[np.bool_]

BANDS_HU: Final[Mapping[str, tuple[float, float]]] = {
    "air": (-1100.0, -950.0),
    "lung": (-920.0, -600.0),
    "fat": (-140.0, -50.0),
    "soft tissue": (0.0, 100.0),
    "bone": (250.0, 2500.0),
}
"""Tissue bands, (lowest, highest) in HU."""

CORE_PX: Final = 3
"""How far a tissue mask is eroded, so that no partial volume of another tissue is in it."""

_SMOOTHING_PX: Final = 2.0
_PADDING_MARGIN_PX: Final = 8  # what the smoothing and the erosion reach into padding
_FLAT_SHARE: Final = 0.3
_FLAT_BLOCKS: Final = 0.2
_TISSUE_HU: Final = (-200.0, 200.0)
_FEWEST: Final = 200
_BLOCK_PX: Final = 8
_MEASURED_SLICES: Final = 16
_MAD_TO_SIGMA: Final = 1.4826


@dataclass(frozen=True)
class QualityReport:
    """Figures of one run. None where the image has no place to measure it.

    noise_before, noise_after  standard deviation of the noise in flat places (robust, of a high-pass)
    flat_sd_before, flat_sd_after  standard deviation in flat 8 x 8 px blocks
    bias_hu            mean change in the core of each tissue band that has one; empty where the unit is not HU
    edge_width_before_px, edge_width_after_px  distance over which the middle 50 % of an edge's step is made
    clipped_fraction   share of voxels newly at the ends of the source's range
    """

    noise_before: float | None
    noise_after: float | None
    flat_sd_before: float | None
    flat_sd_after: float | None
    bias_hu: Mapping[str, float]
    edge_width_before_px: float | None
    edge_width_after_px: float | None
    clipped_fraction: float

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON values, rounded to what they mean."""
        figures = asdict(self)
        figures["bias_hu"] = {name: round(value, 3) for name, value in self.bias_hu.items()}
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in figures.items()}


def measure(before: Volume, after: Volume) -> QualityReport:
    """Compare two volumes of one grid and one unit. Noise and edges are taken from at most 16 slices, evenly spread."""
    rows = [_noise_figures(old, new, measured, before.unit) for old, new, measured in _sample(before, after)]
    known = np.array([row for row in rows if row is not None])
    noise_before, noise_after, sd_before, sd_after = np.median(known, axis=0).tolist() if len(known) else [None] * 4
    widths = edge_width_px(_sample(before, after))
    return QualityReport(
        noise_before=noise_before,
        noise_after=noise_after,
        flat_sd_before=sd_before,
        flat_sd_after=sd_after,
        bias_hu=bias_by_band(before, after) if before.unit == after.unit == HU else {},
        edge_width_before_px=widths[0] if widths else None,
        edge_width_after_px=widths[1] if widths else None,
        clipped_fraction=clipped_fraction(before, after),
    )


def smooth(pixels: Pixels, measured: Places) -> Pixels:
    """Gaussian of 2 px, with padding replaced by the lowest measured value."""
    if not measured.all():
        lowest = pixels[measured].min() if measured.any() else np.float32(0)
        pixels = np.where(measured, pixels, lowest)
    smoothed: Pixels = ndimage.gaussian_filter(pixels, _SMOOTHING_PX, truncate=3.0)
    return smoothed


def tissue_cores(pixels: Pixels, measured: Places) -> dict[str, Places]:
    """Mask of each tissue band (HU): the smoothed slice lies in the band in the whole 7 x 7 px neighbourhood."""
    smoothed = smooth(pixels, measured)
    lowest = ndimage.minimum_filter(smoothed, size=2 * CORE_PX + 1)
    highest = ndimage.maximum_filter(smoothed, size=2 * CORE_PX + 1)
    inside = _away_from_padding(measured)
    return {name: inside & (lowest >= low) & (highest <= high) for name, (low, high) in BANDS_HU.items()}


def bias_by_band(before: Volume, after: Volume) -> dict[str, float]:
    """Mean change in HU in the cores of each tissue band that has at least 200 voxels in the volume."""
    total = dict.fromkeys(BANDS_HU, 0.0)
    count = dict.fromkeys(BANDS_HU, 0)
    for old, new, measured in slices(before, after):
        change = new - old
        for name, core in tissue_cores(old, measured).items():
            total[name] += float(change.sum(where=core, dtype=np.float64))
            count[name] += int(core.sum())
    return {name: total[name] / count[name] for name in BANDS_HU if count[name] >= _FEWEST}


def flat_places(pixels: Pixels, measured: Places, unit: str) -> Places:
    """The 30 % of places with the lowest gradient; in HU within soft tissue and fat where there is enough of them.

    Places where nothing changes at all (padding that nothing declares, collimated film) are never flat tissue.
    """
    slope, allowed = _slope(pixels, measured, unit)
    if not allowed.any():
        return allowed
    flat: Places = allowed & (slope <= np.quantile(slope[allowed], _FLAT_SHARE))
    return flat


def noise(pixels: Pixels, flat: Places) -> float:
    """Robust standard deviation (1.4826 x MAD) of what a Gaussian of 2 px removes, in `flat` places; 0 where none."""
    if not flat.any():
        return 0.0
    rest = (pixels - ndimage.gaussian_filter(pixels, _SMOOTHING_PX, truncate=3.0))[flat]
    return _MAD_TO_SIGMA * float(np.median(np.abs(rest - np.median(rest))))


def flat_blocks(pixels: Pixels, measured: Places, unit: str) -> Places:
    """Which of the slice's 8 x 8 px blocks are its flattest fifth, as bool (block rows, block columns).

    Only blocks that lie wholly in soft tissue and fat (HU), or wholly in measured places (other units), count.
    """
    slope, allowed = _slope(pixels, measured, unit)
    steepest = np.max(_blocks(slope), axis=(1, 3))
    whole: Places = np.all(_blocks(allowed), axis=(1, 3))
    if not whole.any():
        return whole
    flattest: Places = steepest <= np.quantile(steepest[whole], _FLAT_BLOCKS)
    return whole & flattest


def flat_sd(pixels: Pixels, blocks: Places) -> float | None:
    """Median over `blocks` of the standard deviation within each; None where there is no block."""
    return float(np.median(_blocks(pixels).std(axis=(1, 3), dtype=np.float64)[blocks])) if blocks.any() else None


def clipped_fraction(before: Volume, after: Volume) -> float:
    """Share of measured voxels that are at or beyond the ends of the source's range and were within it before."""
    low, high = measured_range(before)
    clipped = count = 0
    for old, new, measured in slices(before, after):
        clipped += int((measured & (old > low) & (old < high) & ((new <= low) | (new >= high))).sum())
        count += int(measured.sum())
    return clipped / count if count else 0.0


def measured_range(volume: Volume) -> tuple[float, float]:
    """(lowest, highest) of the measured voxels; (0, 0) where none is."""
    where = True if volume.valid is None else volume.valid
    low = float(volume.voxels.min(where=where, initial=np.inf))
    high = float(volume.voxels.max(where=where, initial=-np.inf))
    return (low, high) if low <= high else (0.0, 0.0)


def slices(before: Volume, after: Volume) -> Iterator[tuple[Pixels, Pixels, Places]]:
    """(slice before, the same slice after, True where measured) for each slice of two volumes of one grid."""
    for index in range(before.shape[0]):
        yield before.voxels[index], after.voxels[index], measured_places(before, index)


def measured_places(volume: Volume, index: int) -> Places:
    """True where a slice is measured rather than padded."""
    return np.ones(volume.shape[1:], dtype=np.bool_) if volume.valid is None else volume.valid[index]


def _sample(before: Volume, after: Volume) -> Iterator[tuple[Pixels, Pixels, Places]]:
    count = before.shape[0]
    wanted = np.linspace(0, count - 1, min(count, _MEASURED_SLICES)).round().astype(int)
    for index in wanted.tolist():
        yield before.voxels[index], after.voxels[index], measured_places(before, index)


def _noise_figures(old: Pixels, new: Pixels, measured: Places, unit: str) -> tuple[float, float, float, float] | None:
    flat, blocks = flat_places(old, measured, unit), flat_blocks(old, measured, unit)
    before, after = flat_sd(old, blocks), flat_sd(new, blocks)
    if flat.sum() < _FEWEST or before is None or after is None:
        return None
    return noise(old, flat), noise(new, flat), before, after


def _slope(pixels: Pixels, measured: Places, unit: str) -> tuple[Pixels, Places]:
    """Gradient of the smoothed slice, and where it may be called flat."""
    smoothed = smooth(pixels, measured)
    down, across = np.gradient(smoothed)
    slope: Pixels = np.hypot(down, across)
    allowed: Places = _away_from_padding(measured) & (slope > 0)
    if unit == HU:
        tissue = allowed & (smoothed >= _TISSUE_HU[0]) & (smoothed <= _TISSUE_HU[1])
        allowed = tissue if tissue.sum() >= _FEWEST else allowed
    return slope, allowed


def _away_from_padding(measured: Places) -> Places:
    if measured.all():
        return measured
    away: Places = ndimage.minimum_filter(measured, size=2 * _PADDING_MARGIN_PX + 1)
    return away


def _blocks(values: NDArray[Any]) -> NDArray[Any]:
    """(block rows, 8, block columns, 8); what does not fill a block is left out."""
    rows, columns = (length // _BLOCK_PX for length in values.shape)
    return values[: rows * _BLOCK_PX, : columns * _BLOCK_PX].reshape(rows, _BLOCK_PX, columns, _BLOCK_PX)
