"""The noise that a slice has: how much, of what texture; and the kernel that makes the like of it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from engines.quality.edges import edge_width_px
from engines.quality.flat import FEWEST, flat_places, noise, slope_in_tissue
from engines.quality.slices import blurred, sample
from engines.volume import HU
from trainers.physics.filtered import Kernel

Slices = NDArray[Any]
"""HU (slices, rows, columns), int16 or float32."""

_HIGH_PASS_PX: Final = 2.0  # what is slower in a flat place is anatomy as often as noise
_FARTHEST_PX: Final = 16
_OUTLIER: Final = 5.0  # times the noise: what is more is an edge
_LEAST_WEIGHT: Final = 1e-3
_EVEN_SLOPE: Final = 3.0  # times the slope that 30 % of places stay below: noise alone reaches it in 3 % of places
_FINE_PX: Final = 128
_FOLDED: Final = 2  # times that a spectrum is folded: what is beyond has next to no power
_SOFTEST, _SHARPEST = 0.3, 4.0
_MOST_SLICES: Final = 12
_STRONG_HU: Final = (300.0, 1e9)
_USUAL_EDGE_PX: Final = 0.9
_HALF_WIDTH: Final = 1.349
"""Of a Gaussian blur: distance between a quarter and three quarters of an edge, in standard deviations."""


@dataclass(frozen=True, eq=False)
class Flat:
    """A slice's flat tissue, and the noise in it.

    places     bool (rows, columns)
    noise_hu   robust standard deviation of what a Gaussian of 2 px removes there; 0 where too little is flat
    """

    places: NDArray[np.bool_]
    noise_hu: float


def flat_noise(hu: NDArray[np.float32]) -> Flat:
    """Where a slice is flat, and how noisy there; measured as the engines' gate does."""
    places = flat_places(hu, np.ones(hu.shape, dtype=np.bool_), HU)
    enough = np.count_nonzero(places) >= FEWEST
    return Flat(places, noise(hu, places) if enough else 0.0)


def covariance(slices: Iterable[NDArray[np.float32]], high_pass_px: float) -> NDArray[np.float64] | None:
    """Of the noise in the even places of slices: (rows, columns) by lag, in the order of a transform; HU^2.

    high_pass_px  standard deviation of the Gaussian that is taken away before

    Places may have any shape: squares that are flat as a whole are few in a chest. None where too little is flat.
    """
    flat = ((hu, flat_noise(hu).noise_hu) for hu in slices)
    return covariance_at((Even(hu, even_places(hu), noise_hu) for hu, noise_hu in flat if noise_hu), high_pass_px)


@dataclass(frozen=True, eq=False)
class Even:
    """A slice in HU, and where nothing but noise is expected in it: bool (rows, columns).

    noise_hu  about as much: what is far more is no noise
    """

    hu: NDArray[np.float32]
    places: NDArray[np.bool_]
    noise_hu: float


def covariance_at(slices: Iterable[Even], high_pass_px: float) -> NDArray[np.float64] | None:
    """The same in places that are given: of a slice itself, or of a version of it that shows better what is even."""
    found = [np.stack([_by_lag(field) for field in _even_rest(one, high_pass_px)]) for one in slices]
    if not found:
        return None
    products, pairs = np.sum(found, axis=0)
    return np.asarray(products / np.maximum(pairs, 1.0), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Noise power, HU^2 mm^2, at frequencies in cycles a mm: both (rows, columns), in the order of a transform."""

    frequency_per_mm: NDArray[np.float64]
    power: NDArray[np.float64]


def taper(length: int) -> NDArray[np.float64]:
    """1 at lag 0, falling to 0 at 16 px, beyond which no covariance is looked at; lags as the transform orders them."""
    lag = np.abs(np.fft.fftfreq(length, 1.0 / length))
    return np.where(lag < _FARTHEST_PX, 0.5 + 0.5 * np.cos(np.pi * lag / _FARTHEST_PX), 0.0)


def mean_frequency(slices: Slices, pixel_mm: tuple[float, float]) -> float | None:
    """Frequency, averaged over its power, of what a Gaussian of 2 px removes of even tissue; in cycles a mm. None where
    too little is flat.

    At most 12 slices are looked at.
    """
    found = covariance((slices[at].astype(np.float32) for at in sample(len(slices), _MOST_SLICES)), _HIGH_PASS_PX)
    return None if found is None else _mean_frequency(found, pixel_mm)


def expected_spectrum(kernel: Kernel, step_mm: float, frequency: NDArray[np.float64]) -> NDArray[np.float64]:
    """Noise power spectrum of a reconstruction, up to a factor.

    frequency  in cycles a mm
    Interpolation between readings counts once, not twice: half of what it takes away comes back folded.
    """
    return filtered_spectrum(kernel, step_mm, frequency) * np.sinc(frequency * step_mm) ** 2


def filtered_spectrum(kernel: Kernel, step_mm: float, frequency: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same as far as the filter makes it: of the ramp's square its first power remains (Riederer, Pelc and Chesler,
    Phys Med Biol 1978; 23:446), and the kernel's square."""
    share = 2.0 * step_mm * frequency
    left = kernel.response(torch.from_numpy(share.clip(0.0, 1.0))).numpy() ** 2
    return np.where(share <= 1.0, frequency * left, 0.0)


def sampled_spectrum(kernel: Kernel, ray_mm: float, axis: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same of pixels that are not as far apart as the rays, at the frequencies (axis, axis) of their transform.

    ray_mm  between rays, of a fan at its isocentre
    Interpolation repeats what the readings hold, beyond their highest frequency; pixels fold what is beyond theirs.
    """
    whole = axis.size * (axis[1] - axis[0])
    total = np.zeros((axis.size, axis.size))
    for down, across in itertools.product(np.arange(-_FOLDED, _FOLDED + 1) * whole, repeat=2):
        frequency = np.hypot((axis + down)[:, None], axis + across)
        held = np.abs(frequency - np.round(frequency * ray_mm) / ray_mm)
        left = kernel.response(torch.from_numpy(2.0 * ray_mm * held)).numpy() * np.sinc(frequency * ray_mm) ** 2
        total += held**2 * left**2 / np.maximum(frequency, axis[1])
    return total


def removed(down: NDArray[Any], across: NDArray[Any], high_pass_px: float) -> NDArray[np.float64]:
    """Share of an amplitude that a Gaussian removes, at frequencies in cycles a pixel: (down, across)."""
    return np.asarray(1.0 - np.exp(-2.0 * (np.pi * high_pass_px) ** 2 * np.add.outer(down**2, across**2)))


def matched_kernel(found_per_mm: float, pixel_mm: float, ray_mm: float | None = None) -> Kernel:
    """The Hann window whose noise has its power, in the mean, at the frequency `found_per_mm`; the sharpest or softest
    there is where none has.

    ray_mm  distance between rays, at the isocentre of a fan; None: parallel rays, as far apart as the pixels
    """
    softest, sharpest = _SOFTEST, _SHARPEST
    softest *= 1.0 if ray_mm is None else min(1.0, ray_mm / pixel_mm)  # the same softness, as a share of finer rays
    for _ in range(20):
        middle = (softest * sharpest) ** 0.5
        if _expected_frequency(Kernel("hann", middle), pixel_mm, ray_mm) < found_per_mm:
            softest = middle
        else:
            sharpest = middle
    return Kernel("hann", round(sharpest, 3))


def edge_blur_px(slices: Slices) -> float:
    """Standard deviation of the blur of strong edges; a usual one where too few are found. At most 12 slices."""
    chosen = [slices[at].astype(np.float32) for at in sample(len(slices), _MOST_SLICES)]
    everywhere = np.ones(chosen[0].shape, dtype=np.bool_)
    widths = edge_width_px(((hu, hu, everywhere) for hu in chosen), _STRONG_HU)
    return _USUAL_EDGE_PX if widths is None else widths[0] / _HALF_WIDTH


def filled(figures: Sequence[float]) -> NDArray[np.float32]:
    """Figures of slices; where one could not be measured (0), the median of the others."""
    usual = statistics.median(_measured(figures) or (0.0,))
    return np.array([figure or usual for figure in figures], dtype=np.float32)


def _measured(figures: Iterable[float]) -> list[float]:
    return [figure for figure in figures if figure > 0]


def even_places(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tissue without its edges. The flattest places would not do: they are where the noise itself is flat, and the slow
    part of it would be missing."""
    slope, allowed = slope_in_tissue(hu, np.ones(hu.shape, dtype=np.bool_), HU)
    if not allowed.any():
        return allowed
    return np.asarray(allowed & (slope <= _EVEN_SLOPE * np.quantile(slope[allowed], 0.3)))


def _even_rest(one: Even, high_pass_px: float) -> tuple[NDArray[np.float32], ...]:
    """What a mean over even places leaves of them, 0 elsewhere; and these places, 1 or 0."""
    even = one.places.astype(np.float32)
    mean = blurred(one.hu * even, high_pass_px) / np.maximum(blurred(even, high_pass_px), _LEAST_WEIGHT)
    most = _OUTLIER * one.noise_hu
    return np.asarray((one.hu - mean).clip(-most, most) * even, dtype=np.float32), even


def _by_lag(field: NDArray[Any]) -> NDArray[np.float64]:
    """Sum of the products of a field's pixels at each distance between them, around the border."""
    return np.asarray(np.fft.ifft2(np.abs(np.fft.fft2(field)) ** 2).real, dtype=np.float64)


def spectrum(by_lag: NDArray[np.float64], pixel_mm: tuple[float, float]) -> Spectrum:
    """Noise power by covariance, which is looked at up to 16 px: it is smoothed over 1/16 of a cycle a pixel."""
    near = np.r_[:_FARTHEST_PX, -_FARTHEST_PX:0]
    tapered = by_lag[np.ix_(near, near)] * np.multiply.outer(taper(near.size), taper(near.size))
    axes = (np.fft.fftfreq(near.size, pixel_mm[0]), np.fft.fftfreq(near.size, pixel_mm[1]))
    power = np.fft.fft2(tapered).real.clip(0.0) * pixel_mm[0] * pixel_mm[1]
    return Spectrum(np.asarray(np.hypot(axes[0][:, None], axes[1]), dtype=np.float64), power)


def _mean_frequency(by_lag: NDArray[np.float64], pixel_mm: tuple[float, float]) -> float:
    found = spectrum(by_lag, pixel_mm)
    return float((found.frequency_per_mm * found.power).sum() / found.power.sum())


def _expected_frequency(kernel: Kernel, pixel_mm: float, ray_mm: float | None) -> float:
    """What `mean_frequency` finds in the noise of `kernel`."""
    axis = np.asarray(np.fft.fftfreq(_FINE_PX, pixel_mm), dtype=np.float64)
    if ray_mm is None:
        power = expected_spectrum(kernel, pixel_mm, np.hypot(axis[:, None], axis))
    else:
        power = sampled_spectrum(kernel, ray_mm, axis)
    left = power * removed(axis * pixel_mm, axis * pixel_mm, _HIGH_PASS_PX) ** 2
    return _mean_frequency(np.fft.ifft2(left).real, (pixel_mm, pixel_mm))
