"""How much noise is left, and of what texture. Where it is looked at is sought on the full dose, so that it is the same
places of the same patients at every dose, for every denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from engines.quality import noise
from engines.quality.flat import FEWEST
from engines.quality.slices import Pair, Places
from engines.quality.spectrum import noise_power
from engines.volume import HU
from trainers.evaluate.windows import Pixels
from trainers.physics.noise import Even, covariance_at, even_places, flat_noise, removed, spectrum

FREQUENCIES_PER_MM: Final = tuple(round(0.05 * step, 2) for step in range(1, 15))
"""At which noise power is read."""

_HIGH_PASS_PX: Final = 4.0  # what is slower is anatomy
_LEAST_LEFT: Final = 0.5  # share of the power that this leaves: below, nothing is read


@dataclass(frozen=True, eq=False)
class Slices:
    """One slice at full dose, at a lower dose, and what a denoiser made of that."""

    full: Pixels
    low: Pixels
    made: Pixels


def noise_figures(slices: Sequence[Slices], pixel_mm: tuple[float, float]) -> dict[str, float]:
    """Magnitude of the noise that is left in flat tissue, its spectrum in even tissue, and the pattern in it."""
    flats = [(one, flat_noise(one.full).places) for one in slices]
    tissue = [(one, flat) for one, flat in flats if np.count_nonzero(flat) >= FEWEST]
    found = {"noise": float(np.mean([noise(one.made, flat) for one, flat in tissue]))} if tissue else {}
    return found | _spectrum(tissue, pixel_mm) | _pattern(slices, pixel_mm)


def _spectrum(tissue: Sequence[tuple[Slices, Places]], pixel_mm: tuple[float, float]) -> dict[str, float]:
    """Noise power, less what a Gaussian takes away, which is given back: where enough of it is left to tell."""
    even = (Even(one.made, even_places(one.full), noise(one.low, flat)) for one, flat in tissue)
    by_lag = covariance_at(even, _HIGH_PASS_PX)
    if by_lag is None:
        return {}
    found = spectrum(by_lag, pixel_mm)
    axis = np.fft.fftfreq(found.power.shape[0])
    left = removed(axis, axis, _HIGH_PASS_PX) ** 2
    is_told = left >= _LEAST_LEFT
    frequency, power = found.frequency_per_mm[is_told], found.power[is_told] / left[is_told]
    if not power.any():
        return {}
    width = 1.0 / (axis.size * max(pixel_mm))
    ring = np.rint(frequency / width).astype(int)
    rings = np.arange(ring.min(), axis.size // 2 + 1)
    line = np.bincount(ring, power)[rings] / np.bincount(ring)[rings]
    figures = {"nps mean frequency": float((frequency * power).sum() / power.sum())}
    return figures | {
        f"nps {per_mm:.2f}": float(np.interp(per_mm, rings * width, line))
        for per_mm in FREQUENCIES_PER_MM
        if rings[0] * width <= per_mm <= rings[-1] * width
    }


def _pattern(slices: Sequence[Slices], pixel_mm: tuple[float, float]) -> dict[str, float]:
    """Most power that is added at a frequency, in squares that are flat at full dose."""
    pairs = (Pair(at, one.low, one.made, None, HU) for at, one in enumerate(slices))
    power = noise_power(pairs, pixel_mm, [one.full for one in slices])
    return {} if power is None or power.excess is None else {"nps excess": power.excess}
