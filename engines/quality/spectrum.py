"""Noise power spectrum before and after, in flat tissue (ICRU Report 87, section 5; AAPM TG-233, section 3.2.3).

Squares of 32 x 32 px that lie in flat tissue, each less the plane fitted to it, are transformed; the mean of their
squared magnitudes is the spectrum, in unit^2 mm^2. Its integral is the variance of the noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.quality.flat import blocks, slope_in_tissue
from engines.quality.slices import Pair, Pixels

_SIZE_PX: Final = 32
_MOST_PER_SLICE: Final = 12
_FEWEST: Final = 6
_FEWEST_FOR_EXCESS: Final = 12
_UNEVEN: Final = 1.5
_LOWEST_BIN: Final = 3  # below, anatomy and the fitted plane decide

Spectrum = NDArray[np.float64]


@dataclass(frozen=True)
class NoisePower:
    """Noise power spectra of the source and the output.

    frequency_per_mm     of the bins of the radial means
    before, after        radial means in unit^2 mm^2
    peak_before_per_mm, peak_after_per_mm  frequency of the highest bin
    mean_before_per_mm, mean_after_per_mm  frequency averaged over the power: the noise's texture in one figure
    area_before, area_after  integral of the whole spectrum: the variance of the noise, in unit^2
    excess               most power added at any one frequency, as a share of the source's mean power: a pattern, such
                         as a checkerboard, stands out; 0 or less: none. None where too few squares are flat.
    """

    frequency_per_mm: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    peak_before_per_mm: float
    peak_after_per_mm: float
    mean_before_per_mm: float
    mean_after_per_mm: float
    area_before: float
    area_after: float
    excess: float | None


def noise_power(
    pairs: Iterable[Pair], spacing_mm: tuple[float, float], sought_on: Iterable[Pixels] | None = None
) -> NoisePower | None:
    """Spectra over the flat squares of all `pairs`; None where there are fewer than six.

    spacing_mm  (between rows, between columns)
    sought_on   a slice for each pair that shows better than its source what is flat; None: the source
    """
    if sought_on is None:
        found = [_squares(pair, pair.old) for pair in pairs]
    else:
        found = [_squares(pair, pixels) for pair, pixels in zip(pairs, sought_on, strict=True)]
    if sum(len(squares) for squares, _ in found) < _FEWEST:
        return None
    old, new = (np.concatenate([both[which] for both in found]) for which in (0, 1))
    return _compared(_power(old, spacing_mm), _power(new, spacing_mm), len(old), spacing_mm)


def _squares(pair: Pair, sought_on: Pixels) -> tuple[Pixels, Pixels]:
    """The slice's flattest squares wholly in flat tissue, before and after: float32 (squares, 32, 32)."""
    slope, allowed = slope_in_tissue(sought_on, pair.measured_places, pair.unit)
    whole = np.all(blocks(allowed, _SIZE_PX), axis=(1, 3))
    unrest = np.sqrt(np.mean(np.square(blocks(slope, _SIZE_PX)), axis=(1, 3)))
    unrest[~whole] = np.inf
    flat = int(np.count_nonzero(unrest <= _UNEVEN * unrest.min(initial=np.inf))) if whole.any() else 0
    flattest = np.argsort(unrest, axis=None)[: min(_MOST_PER_SLICE, flat)]
    row, column = np.unravel_index(flattest, whole.shape)
    old, new = (blocks(pixels, _SIZE_PX)[row, :, column, :] for pixels in (pair.old, pair.new))
    return old, new


def _power(squares: Pixels, spacing_mm: tuple[float, float]) -> Spectrum:
    """Mean power of the squares, (32, 32), zero frequency first, in unit^2 mm^2."""
    steps = np.arange(_SIZE_PX) - (_SIZE_PX - 1) / 2
    level = squares.mean(axis=(1, 2), dtype=np.float64)[:, None, None]
    down = (squares * steps[:, None]).mean(axis=(1, 2), dtype=np.float64)[:, None, None] / np.mean(steps**2)
    across = (squares * steps).mean(axis=(1, 2), dtype=np.float64)[:, None, None] / np.mean(steps**2)
    rest = squares - level - down * steps[:, None] - across * steps
    power: Spectrum = np.mean(np.abs(np.fft.fft2(rest)) ** 2, axis=0) * spacing_mm[0] * spacing_mm[1] / _SIZE_PX**2
    return power


def _compared(before: Spectrum, after: Spectrum, squares: int, spacing_mm: tuple[float, float]) -> NoisePower:
    axes = [np.fft.fftfreq(_SIZE_PX, spacing) for spacing in spacing_mm]
    frequency = np.hypot(axes[0][:, None], axes[1])
    width = 1.0 / (_SIZE_PX * max(spacing_mm))
    ring = np.rint(frequency / width).astype(int)
    bins = np.arange(1, _SIZE_PX // 2 + 1)
    radial = [_ring_means(power, ring)[bins] for power in (before, after)]
    cell = 1.0 / (_SIZE_PX**2 * spacing_mm[0] * spacing_mm[1])
    peaks = [float(bins[int(np.argmax(line))] * width) for line in radial]
    means = [float((frequency * power).sum() / power.sum()) if power.any() else 0.0 for power in (before, after)]
    return NoisePower(
        frequency_per_mm=tuple((bins * width).tolist()),
        before=tuple(radial[0].tolist()),
        after=tuple(radial[1].tolist()),
        peak_before_per_mm=peaks[0],
        peak_after_per_mm=peaks[1],
        mean_before_per_mm=means[0],
        mean_after_per_mm=means[1],
        area_before=float(before.sum() * cell),
        area_after=float(after.sum() * cell),
        excess=_excess(before, after, ring) if squares >= _FEWEST_FOR_EXCESS else None,
    )


def _ring_means(power: Spectrum, ring: NDArray[Any]) -> Spectrum:
    means: Spectrum = np.bincount(ring.ravel(), power.ravel()) / np.maximum(np.bincount(ring.ravel()), 1)
    return means


def _excess(before: Spectrum, after: Spectrum, ring: NDArray[Any]) -> float | None:
    """Most power added at a frequency (mean over 3 x 3 of them), over the source's mean power."""
    usual = float(before.mean())
    if usual <= 0:
        return None
    added = after - before
    shifts = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    evened = np.mean([np.roll(added, shift, axis=(0, 1)) for shift in shifts], axis=0)
    return float(evened[ring >= _LOWEST_BIN].max()) / usual
