"""Noise whose spectrum is known, in places that the full dose alone decides."""

from __future__ import annotations

import numpy as np
import pytest

from engines.quality.slices import blurred
from tests.trainers.evaluate.bodies import SIZE_PX, body
from trainers.evaluate.texture import FREQUENCIES_PER_MM, Slices, noise_figures
from trainers.evaluate.windows import Pixels

_PIXEL_MM = (0.7, 0.7)


def _noise(deviation_hu: float, seed: int = 1) -> Pixels:
    return np.random.default_rng(seed).normal(0, deviation_hu, (SIZE_PX, SIZE_PX)).astype(np.float32)


def test_white_noise_has_the_same_power_at_all_frequencies() -> None:
    full, low = body() + _noise(6.0), body() + _noise(20.0, 2)
    found = noise_figures([Slices(full, low, low)], _PIXEL_MM)
    assert found["noise"] == pytest.approx(20.0, rel=0.05)
    told = [found[f"nps {at:.2f}"] for at in FREQUENCIES_PER_MM if f"nps {at:.2f}" in found]
    assert len(told) == 13
    assert told == pytest.approx([20.0**2 * 0.7**2] * 13, rel=0.15)
    axis = np.fft.fftfreq(32, 0.7)
    assert found["nps mean frequency"] == pytest.approx(float(np.hypot(axis[:, None], axis).mean()), rel=0.04)
    smooth = noise_figures([Slices(full, low, blurred(low, 1.0))], _PIXEL_MM)
    assert smooth["nps mean frequency"] < 0.6 * found["nps mean frequency"]
    assert smooth["nps 0.70"] < 0.01 * found["nps 0.70"] < 100 * smooth["nps 0.15"]


def test_neither_the_dose_nor_the_denoiser_decides_where_it_is_looked_at() -> None:
    """The left half is flat at full dose, the right is full of ripples. A low dose noisy on the left hides that.
    What is made has fine grain on the left, coarse grain and a pattern on the right: the left alone counts."""
    columns = np.arange(SIZE_PX)
    full = np.full((SIZE_PX, SIZE_PX), 40.0, np.float32) + _noise(3.0)
    full[:, 128:] += 60.0 * np.sin(columns[128:] / 4.0)
    made = full.copy()
    made[:, 128:] = 40.0 + blurred(_noise(30.0, 5), 1.5)[:, 128:] + 10.0 * (columns[128:] % 2)
    lows = [
        full + _noise(3.0, 2),
        full + _noise(40.0, 3),
        np.where(columns < 128, full + _noise(40.0, 3), 40 + _noise(2.0, 4)),
    ]
    found = [noise_figures([Slices(full, low.astype(np.float32), made)], _PIXEL_MM) for low in lows]
    frequencies = [one["nps mean frequency"] for one in found]
    axis = np.fft.fftfreq(32, 0.7)
    assert frequencies == pytest.approx([float(np.hypot(axis[:, None], axis).mean())] * 3, rel=0.06)
    assert [one["noise"] for one in found] == pytest.approx([3.0] * 3, rel=0.05)
    assert all(one["nps excess"] <= 0.1 for one in found)


def test_a_slice_of_nothing_has_no_figures() -> None:
    air = np.full((64, 64), -1000.0, np.float32)
    assert noise_figures([Slices(air, air, air)], _PIXEL_MM) == {}
