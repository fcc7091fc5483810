"""Noise power spectra of noise that is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.quality.slices import Pixels, pairs
from engines.quality.spectrum import NoisePower, noise_power
from engines.volume import ARBITRARY
from tests.engines.phantoms import volume

SPACING_MM = (0.7, 0.7)
SIZE = 256


def grained(seed: int, cut_off: float, sigma: float = 10.0) -> Pixels:
    """Noise up to a frequency, in cycles a px."""
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE))
    white = np.fft.fft2(np.random.default_rng(seed).normal(size=(SIZE, SIZE)))
    noise: NDArray[np.float64] = np.fft.ifft2(white * (frequency < cut_off)).real
    return (sigma * noise / noise.std()).astype(np.float32)


def spectrum(old: Pixels, new: Pixels) -> NoisePower:
    found = noise_power(pairs(volume(old, unit=ARBITRARY), volume(new, unit=ARBITRARY)), SPACING_MM)
    assert found is not None
    return found


def test_its_area_is_the_variance() -> None:
    found = spectrum(grained(0, 0.8), grained(0, 0.8) / 2)
    assert found.area_before == pytest.approx(100.0, rel=0.1)
    assert found.area_after == pytest.approx(25.0, rel=0.1)


def test_white_noise_is_flat_and_smoothed_noise_is_not() -> None:
    found = spectrum(grained(0, 0.8), grained(1, 0.2))
    flat = np.array(found.before[2:])
    assert flat.std() / flat.mean() < 0.2
    assert flat.mean() == pytest.approx(100.0 * 0.7 * 0.7, rel=0.15)
    beyond = np.array(found.frequency_per_mm) > 0.25 / 0.7
    assert np.array(found.after)[beyond].max() < 0.1 * max(found.after)
    assert found.mean_after_per_mm < 0.5 * found.mean_before_per_mm
    assert found.peak_after_per_mm < 0.2 / 0.7 + 0.05


def test_a_checkerboard_is_power_at_one_frequency() -> None:
    """Of 3 HU beside noise of 10: too little to see in the standard deviation."""
    board = np.float32(3) * (-1.0) ** np.add.outer(np.arange(SIZE), np.arange(SIZE)).astype(np.float32)
    noise = grained(0, 0.8)
    clean, marked = spectrum(noise, noise / 2), spectrum(noise, noise / 2 + board)
    assert clean.excess is not None and marked.excess is not None
    assert clean.excess < 0.0
    assert marked.excess > 2.0


def test_squares_may_be_sought_on_a_slice_that_shows_better_what_is_flat() -> None:
    ripples = np.zeros((SIZE, SIZE), np.float32)
    ripples[:, SIZE // 2 :] = 50 * np.sin(np.arange(SIZE // 2) / 4)
    left = np.where(np.arange(SIZE) < SIZE // 2, np.float32(1), np.float32(0))
    old = grained(0, 0.8) * (1 + 3 * left) + ripples * 0.1  # noise hides where it is flat
    found = pairs(volume(old, unit=ARBITRARY), volume(old + ripples, unit=ARBITRARY))
    power = noise_power(found, SPACING_MM, [grained(2, 0.8, 1.0) + ripples])
    assert power is not None and power.excess is not None
    assert power.area_before == pytest.approx(40.0**2, rel=0.15) and power.excess == pytest.approx(0.0, abs=0.01)


def test_an_image_without_flat_places_has_no_spectrum() -> None:
    ramp = np.add.outer(np.arange(16.0), np.arange(16.0)).astype(np.float32)
    assert noise_power(pairs(volume(ramp), volume(ramp)), SPACING_MM) is None
    assert noise_power([], SPACING_MM) is None
