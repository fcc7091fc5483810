"""Noise of other kernels: as strong as before at each place, and of the frequencies of its kernel."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.physics.filtered import Kernel
from trainers.physics.texture import retextured

SIZE_PX = 128


def _white(strength: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, strength, (SIZE_PX, SIZE_PX)).astype(np.float32)


def _mean_frequency(noise: np.ndarray) -> float:
    power = np.abs(np.fft.fft2(noise)) ** 2
    axis = np.abs(np.fft.fftfreq(SIZE_PX))
    return float((np.hypot(axis[:, None], axis) * power).sum() / power.sum())


@pytest.mark.parametrize("cutoff", [0.5, 1.0, 2.0])
def test_the_spectrum_is_the_ramps_first_power_and_the_kernels_square(cutoff: float) -> None:
    frequency = np.linspace(1e-3, 0.5, 2000)
    window = np.cos(np.clip(2 * frequency / cutoff, 0, 1) * np.pi / 2) ** 2
    power = frequency * window**2 * frequency  # twice: a ring in the plane is as long as its frequency
    wanted = (frequency * power).sum() / power.sum()
    noise = retextured(_white(20.0), Kernel("hann", cutoff), np.random.default_rng(1))
    assert _mean_frequency(noise) == pytest.approx(wanted, rel=0.03)


def test_it_is_as_strong_as_what_it_stands_for_place_by_place() -> None:
    noise = _white(10.0)
    noise[:, SIZE_PX // 2 :] *= 4
    made = retextured(noise, Kernel(), np.random.default_rng(1))
    assert (made.dtype, made.shape) == (np.float32, noise.shape)
    assert made[:, :32].std() == pytest.approx(10.0, rel=0.15)
    assert made[:, -32:].std() == pytest.approx(40.0, rel=0.15)


def test_where_there_is_no_noise_none_is_made() -> None:
    assert not retextured(_white(0.0), Kernel(), np.random.default_rng(1)).any()


def test_chance_decides_what_it_looks_like() -> None:
    one, again, other = (retextured(_white(9.0), Kernel(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05
