"""PSNR and SSIM against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainers.evaluate.windows import ABDOMEN, LUNG, psnr_db, ssim


def test_psnr_of_a_tenth_of_the_window_is_20_db() -> None:
    full = np.zeros((20, 20), np.float32)
    assert psnr_db(full, full + 40, ABDOMEN) == pytest.approx(20.0)
    half = full.copy()
    half[:10] += 40  # a half of the slice: half the mean square, 3 dB more
    assert psnr_db(full, half, ABDOMEN) == pytest.approx(20.0 + 10 * math.log10(2))
    assert psnr_db(full, full + 150, LUNG) == pytest.approx(20.0)


def test_what_lies_beyond_the_window_does_not_count() -> None:
    full = np.full((20, 20), -1000, np.float32)
    assert math.isnan(psnr_db(full, full + 500, ABDOMEN))  # black is black
    assert psnr_db(full + 1040, full + 9000, ABDOMEN) == pytest.approx(20 * math.log10(2))  # 40 HU is the middle


def test_ssim_is_1_of_the_same_and_falls_with_noise() -> None:
    full = np.tile(np.linspace(-160, 240, 64, dtype=np.float32), (64, 1))
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 20, full.shape).astype(np.float32)
    found = [ssim(full, full + share * noise, ABDOMEN) for share in (0.0, 0.5, 1.0)]
    assert found[0] == pytest.approx(1.0, abs=1e-6) and found[0] > found[1] > found[2] > 0
