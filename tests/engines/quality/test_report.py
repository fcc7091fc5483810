"""The figures are right where they can be computed by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import quality
from engines.quality.slices import pairs
from engines.volume import ARBITRARY, HU
from tests.engines.phantoms import body, noisy, volume

ALL = np.ones((128, 128), dtype=np.bool_)


@pytest.mark.parametrize("sigma", [2.0, 12.0, 40.0])
def test_white_noise_is_estimated_within_8_percent(sigma: float) -> None:
    pixels = noisy(np.full((128, 128), 40, np.float32), sigma)
    # A Gaussian of 2 px takes 3 % of white noise with it.
    assert quality.noise(pixels, quality.flat_places(pixels, ALL, HU)) == pytest.approx(0.97 * sigma, rel=0.08)


@given(scale=st.floats(0.1, 50), shift=st.floats(-1000, 1000))
@settings(deadline=None, max_examples=20)
def test_noise_scales_with_the_values_and_ignores_their_offset(scale: float, shift: float) -> None:
    pixels = noisy(body(), 10.0)
    flat = quality.flat_places(pixels, ALL, HU)
    changed = (pixels * np.float32(scale) + np.float32(shift)).astype(np.float32)
    assert quality.noise(changed, flat) == pytest.approx(scale * quality.noise(pixels, flat), rel=1e-2)


def test_edges_are_not_taken_for_noise() -> None:
    pixels = noisy(body(), 10.0)
    assert quality.noise(pixels, quality.flat_places(pixels, ALL, HU)) == pytest.approx(9.7, rel=0.1)


def test_a_constant_slice_has_no_flat_place() -> None:
    assert not quality.flat_places(np.zeros((64, 64), np.float32), ALL[:64, :64], ARBITRARY).any()
    assert quality.noise(np.zeros((64, 64), np.float32), ~ALL[:64, :64]) == 0.0


def test_flat_sd_is_the_standard_deviation_of_flat_blocks() -> None:
    pixels = noisy(np.full((128, 128), 40, np.float32), 10.0)
    deviation = quality.flat_sd(pixels, quality.flat_blocks(pixels, ALL, HU))
    assert deviation == pytest.approx(10.0, rel=0.07)
    assert quality.flat_sd(pixels, np.zeros((16, 16), np.bool_)) is None


def test_tissue_cores_stay_away_from_borders_and_padding() -> None:
    pixels, measured = body(256), np.ones((256, 256), dtype=np.bool_)
    measured[:80] = False
    (pair,) = pairs(volume(pixels, valid=measured[None]), volume(pixels))
    cores = quality.tissue_cores(pair.smooth, pair.inside)
    assert cores["soft tissue"].any()
    assert cores["bone"].any()
    for core in cores.values():
        assert not core[:43].any()  # of half the rows
    whole = np.repeat(np.repeat(cores["soft tissue"], 2, axis=0), 2, axis=1)
    assert abs(pixels[whole] - 40.0).max() < 1.0


def test_bias_is_the_mean_change_in_each_tissue() -> None:
    before = volume(body(256), body(256))
    changed = before.voxels + np.where(before.voxels > 200, np.float32(-3.0), np.float32(0.5))
    bias = quality.bias_by_band(before, before.with_voxels(changed))
    assert bias == pytest.approx({"air": 0.5, "fat": 0.5, "soft tissue": 0.5, "bone": -3.0}, abs=1e-3)


def test_a_perfect_denoiser_has_no_bias() -> None:
    noise_free = body(256)
    before = volume(*(noisy(noise_free, 25.0, seed, grain_px=0.7) for seed in range(4)))
    bias = quality.bias_by_band(before, volume(*[noise_free] * 4))
    assert max(map(abs, bias.values())) < 1.0


def test_clipping_counts_only_what_was_within_the_range_before() -> None:
    before = volume(np.arange(100, dtype=np.float32).reshape(10, 10))
    changed = before.voxels.copy()
    changed[0, 0, 1] = -5.0  # newly below
    changed[0, 5, 5] = 99.0  # newly at the end
    changed[0, 9, 9] = 120.0  # was at the end before
    assert quality.clipped_fraction(before, before.with_voxels(changed)) == pytest.approx(0.02)


def test_padding_decides_neither_range_nor_clipping() -> None:
    pixels = np.arange(100, dtype=np.float32).reshape(10, 10)
    valid = np.ones((1, 10, 10), np.bool_)
    valid[0, 0, 0] = valid[0, 9, 9] = False
    before = volume(pixels, valid=valid)
    assert quality.measured_range(before) == (1.0, 98.0)
    assert quality.measured_range(volume(pixels, valid=~np.ones((1, 10, 10), np.bool_))) == (0.0, 0.0)
    assert quality.clipped_fraction(before, before) == 0.0


def test_comparing_a_volume_with_itself_finds_no_change_and_is_json() -> None:
    same = volume(noisy(body(256), 8.0), noisy(body(256), 8.0, seed=1))
    report = quality.measure(same, same)
    assert report.noise_before == report.noise_after
    assert report.edge_width_before_px == report.edge_width_after_px
    assert set(report.bias_hu.values()) == set(report.slice_bias_hu.values()) == {0.0}
    assert report.edge_modulation == pytest.approx(1.0)
    assert (report.edge_correlation, report.slice_fit, report.slices_alike) == (None, None, 2)
    assert report.blob is not None
    assert report.blob.strength == 0.0
    assert json.loads(json.dumps(report.as_json()))["clipped_fraction"] == 0.0


def test_hu_bias_is_not_measured_in_other_units() -> None:
    same = volume(noisy(body(), 8.0), unit=ARBITRARY)
    assert quality.measure(same, same).bias_hu == {}


def test_one_slice_among_many_is_enough_to_be_seen() -> None:
    """A shift of 30 HU in one of 20 slices moves the mean of all by 1.5 HU only."""
    before = volume(*(noisy(body(), 8.0, seed) for seed in range(20)))
    changed = before.voxels.copy()
    changed[7] += 30.0
    report = quality.measure(before, before.with_voxels(changed))
    assert report.bias_hu["soft tissue"] == pytest.approx(1.5, abs=0.01)
    assert report.slice_bias_hu["soft tissue"] == pytest.approx(30.0, abs=0.01)


def test_a_report_of_anything_is_json() -> None:
    """A single tiny slice, of another unit, without edges and flat places."""
    same = volume(np.arange(64, dtype=np.float32).reshape(8, 8), unit=ARBITRARY)
    told = quality.measure(same, same).as_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert (told["nps"], told["blob"], told["slice_fit"]) == (None, None, None)
