"""Noise where nothing else is: flat places of a slice, and the standard deviation in them."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.quality.slices import Pixels, Places, blurred, slope_of
from engines.volume import HU

FEWEST: Final = 200
"""Pixels below which no figure is made of them."""

_SMOOTHING_PX: Final = 2.0
_PADDING_MARGIN_PX: Final = 8  # what the smoothing and the erosion reach into padding
_FLAT_SHARE: Final = 0.3
_FLAT_BLOCKS: Final = 0.2
_TISSUE_HU: Final = (-200.0, 200.0)
_BLOCK_PX: Final = 8
_MAD_TO_SIGMA: Final = 1.4826


def smooth(pixels: Pixels, measured: Places) -> Pixels:
    """Gaussian of 2 px, with padding replaced by the lowest measured value."""
    if not measured.all():
        lowest = pixels[measured].min() if measured.any() else np.float32(0)
        pixels = np.where(measured, pixels, lowest)
    return blurred(pixels, _SMOOTHING_PX)


def flat_places(pixels: Pixels, measured: Places, unit: str) -> Places:
    """The 30 % of places with the lowest gradient; in HU within soft tissue and fat where there is enough of them.

    Places where nothing changes at all (padding that nothing declares, collimated film) are never flat tissue.
    """
    return _flattest(*slope_in_tissue(pixels, measured, unit))


def noise(pixels: Pixels, flat: Places) -> float:
    """Robust standard deviation (1.4826 x MAD) of what a Gaussian of 2 px removes, in `flat` places; 0 where none."""
    if not flat.any():
        return 0.0
    rest = (pixels - blurred(pixels, _SMOOTHING_PX))[flat]
    return _MAD_TO_SIGMA * float(np.median(np.abs(rest - np.median(rest))))


def flat_blocks(pixels: Pixels, measured: Places, unit: str) -> Places:
    """Which of the slice's 8 x 8 px blocks are its flattest fifth, as bool (block rows, block columns).

    Only blocks that lie wholly in soft tissue and fat (HU), or wholly in measured places (other units), count.
    """
    return _flattest_blocks(*slope_in_tissue(pixels, measured, unit))


def flat_sd(pixels: Pixels, flat: Places) -> float | None:
    """Median over the blocks of `flat` of the standard deviation within each; None where there is no block."""
    if not flat.any():
        return None
    chosen = blocks(pixels).swapaxes(1, 2)[flat]
    return float(np.median(chosen.std(axis=(1, 2), dtype=np.float64)))


def noise_figures(old: Pixels, new: Pixels, measured: Places, unit: str) -> tuple[float, float, float, float] | None:
    """(noise before, after, standard deviation in flat blocks before, after); None where too little is flat."""
    slope, allowed = slope_in_tissue(old, measured, unit)
    flat, even = _flattest(slope, allowed), _flattest_blocks(slope, allowed)
    before, after = flat_sd(old, even), flat_sd(new, even)
    if flat.sum() < FEWEST or before is None or after is None:
        return None
    return noise(old, flat), noise(new, flat), before, after


def slope_in_tissue(pixels: Pixels, measured: Places, unit: str) -> tuple[Pixels, Places]:
    """Gradient of the smoothed slice, and where it may be called flat."""
    smoothed = smooth(pixels, measured)
    slope = slope_of(smoothed)
    allowed: Places = _away_from_padding(measured) & (slope > 0)
    if unit == HU:
        tissue = allowed & (smoothed >= _TISSUE_HU[0]) & (smoothed <= _TISSUE_HU[1])
        allowed = tissue if tissue.sum() >= FEWEST else allowed
    return slope, allowed


def blocks(values: NDArray[Any], size_px: int = _BLOCK_PX) -> NDArray[Any]:
    """(block rows, size, block columns, size); what does not fill a block is left out."""
    rows, columns = (length // size_px for length in values.shape)
    return values[: rows * size_px, : columns * size_px].reshape(rows, size_px, columns, size_px)


def _flattest(slope: Pixels, allowed: Places) -> Places:
    if not allowed.any():
        return allowed
    flat: Places = allowed & (slope <= np.quantile(slope[allowed], _FLAT_SHARE))
    return flat


def _flattest_blocks(slope: Pixels, allowed: Places) -> Places:
    steepest = np.max(blocks(slope), axis=(1, 3))
    whole: Places = np.all(blocks(allowed), axis=(1, 3))
    if not whole.any():
        return whole
    flattest: Places = steepest <= np.quantile(steepest[whole], _FLAT_BLOCKS)
    return whole & flattest


def _away_from_padding(measured: Places) -> Places:
    if measured.all():
        return measured
    width = 2 * _PADDING_MARGIN_PX + 1
    return cv2.erode(measured.astype(np.uint8), np.ones((width, width), np.uint8)) > 0
