"""Unit noise of a slice: its magnitude, its spectrum, its places; and low dose made of it against photons counted."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from engines.quality.flat import noise
from trainers.physics.beam import Beam
from trainers.physics.dose import Scan, at_dose, noise_factor, simulated, unit_noise
from trainers.physics.filtered import Kernel
from trainers.physics.geometry import Fan
from trainers.physics.noise import (
    Flat,
    edge_blur_px,
    expected_spectrum,
    filled,
    flat_noise,
    matched_kernel,
    mean_frequency,
)

SIZE_PX = 128
SCAN = Scan(2.0, Kernel("hann", 0.8))
Pixels = NDArray[np.float32]


def away_mm() -> Pixels:
    axis = (np.arange(SIZE_PX) - (SIZE_PX - 1) / 2) * SCAN.pixel_mm
    return np.hypot(axis[:, None], axis).astype(np.float32)


def noisy_water(deviation_hu: float = 12.0) -> Pixels:
    """A disc of water with noise on it."""
    rng = np.random.default_rng(0)
    grain = gaussian_filter(rng.standard_normal((SIZE_PX, SIZE_PX)), 0.7)
    return np.where(away_mm() < 100.0, 40.0 + deviation_hu * grain / grain.std(), -1000.0).astype(np.float32)


@pytest.fixture(scope="module", name="fields")
def _fields() -> Pixels:
    hu = noisy_water()
    return unit_noise(hu, flat_noise(hu), SCAN, 4, seed=1)


def test_half_dose_has_twice_the_variance_and_any_dose_its_own(fields: Pixels) -> None:
    hu = noisy_water()
    flat = flat_noise(hu)
    assert [noise(field, flat.places) for field in fields] == pytest.approx([flat.noise_hu] * 4, rel=1e-4)
    for dose in (0.5, 0.25, 0.1):
        low = noise(at_dose(hu, fields[0], dose), flat.places)
        assert low == pytest.approx(flat.noise_hu / dose**0.5, rel=0.06)
    assert noise_factor(1.0) == 0.0


def test_fields_are_independent_and_the_seed_decides(fields: Pixels) -> None:
    hu = noisy_water()
    inside = away_mm() < 90.0
    assert abs(np.corrcoef(fields[0][inside], fields[1][inside])[0, 1]) < 0.05
    again, other = (unit_noise(hu, flat_noise(hu), SCAN, 1, seed) for seed in (1, 2))
    assert not np.array_equal(again[0], other[0])
    assert np.array_equal(again, unit_noise(hu, flat_noise(hu), SCAN, 1, 1))
    assert abs(float(fields[:, inside].mean())) < 0.3


def test_noise_is_larger_where_rays_are_weaker(fields: Pixels) -> None:
    middle, rim, air = (
        float(fields[:, place].std())
        for place in (away_mm() < 30, (away_mm() > 80) & (away_mm() < 98), away_mm() > 120)
    )
    assert middle > rim > air


def test_few_photons_keep_the_bow_tie() -> None:
    """Without electronics a noisier slice has the same noise, but for its magnitude: every ray keeps its share."""
    hu = noisy_water()
    places, scan = flat_noise(hu).places, Scan(2.0, Kernel("hann", 0.8), Beam(electronic=0.0))
    quiet, loud = (unit_noise(hu, Flat(places, deviation_hu), scan, 1, 3) for deviation_hu in (10.0, 400.0))
    assert loud == pytest.approx(40.0 * quiet, rel=1e-3, abs=0.1)


def test_the_slices_own_noise_tells_how_many_photons_there_were() -> None:
    """The beam's number is but a first guess. Of few photons the electronics make more noise, above all in the middle,
    where most is absorbed."""
    hu = noisy_water()
    places = flat_noise(hu).places

    def shape(deviation_hu: float, photons: float) -> Pixels:
        scan = Scan(2.0, Kernel("hann", 0.8), Beam(photons=photons, electronic=100.0))
        return unit_noise(hu, Flat(places, deviation_hu), scan, 1, 3) / np.float32(deviation_hu)

    quiet, guessed, loud = shape(6.0, 2.25e5), shape(6.0, 5e4), shape(48.0, 2.25e5)
    assert guessed == pytest.approx(quiet, abs=0.004)
    middle, rim = away_mm() < 30, (away_mm() > 80) & (away_mm() < 98)
    assert loud[:, middle].std() / loud[:, rim].std() > 1.05 * quiet[:, middle].std() / quiet[:, rim].std()


@pytest.mark.parametrize("kernel", [Kernel("hann", 0.5), Kernel("hann", 0.8), Kernel("ramp")], ids=str)
def test_the_spectrum_has_the_ramps_and_the_kernels_shape(kernel: Kernel) -> None:
    hu = noisy_water()
    made = unit_noise(hu, flat_noise(hu), Scan(2.0, kernel), 20, seed=5)
    window = np.pad(np.hanning(64)[:, None] * np.hanning(64), (0, 64))
    part = np.pad(made[:, 32:96, 32:96], ((0, 0), (0, 64), (0, 64))) * window
    power = (np.abs(np.fft.fft2(part)) ** 2).mean(0)
    axis = np.fft.fftfreq(128, SCAN.pixel_mm)
    frequency = np.hypot(axis[:, None], axis)
    covariance = np.fft.ifft2(expected_spectrum(kernel, SCAN.pixel_mm, frequency))
    cut = np.fft.ifft2(np.abs(np.fft.fft2(window)) ** 2)  # what the window does to any covariance
    wanted = np.fft.fft2(covariance * cut).real
    ring = np.digitize(frequency, np.linspace(0.0, 0.25, 9))
    found_mean, wanted_mean = (np.array([one[ring == at].mean() for at in range(1, 9)]) for one in (power, wanted))
    assert found_mean / found_mean.sum() == pytest.approx(wanted_mean / wanted_mean.sum(), abs=0.04)


@pytest.mark.parametrize("cutoff", [0.5, 0.8, 1.5])
def test_the_kernel_is_found_again_from_its_noise(cutoff: float) -> None:
    hu = noisy_water()
    made = unit_noise(hu, flat_noise(hu), Scan(2.0, Kernel("hann", cutoff)), 6, seed=7)
    even = 40.0 + made[:, 32:96, 32:96]
    found = mean_frequency(even, (2.0, 2.0))
    assert found is not None
    assert matched_kernel(found, 2.0).cutoff == pytest.approx(cutoff, rel=0.15)


def test_the_kernel_is_found_in_a_slice_without_flat_squares() -> None:
    """As in a chest: no square of 32 px is flat as a whole, and all squares of that size hold edges of 300 HU."""
    hu = noisy_water()
    made = unit_noise(hu, flat_noise(hu), Scan(2.0, Kernel("hann", 0.8)), 1, seed=7)[0]
    vessels = np.zeros_like(hu)
    vessels[::20], vessels[:, ::20] = 300.0, 300.0
    found = mean_frequency((40.0 + gaussian_filter(vessels, 1.0) + made)[None, 32:96, 32:96], (2.0, 2.0))
    assert found is not None
    assert matched_kernel(found, 2.0).cutoff == pytest.approx(0.8, rel=0.15)


def test_unit_noise_is_what_counted_photons_add() -> None:
    """Full dose counted, and the noise of a quarter added: the same deviation as a quarter counted, within 8 %."""
    clean = np.where(away_mm() < 100.0, 0.0, -1000.0).astype(np.float32)
    scan = Scan(2.0, Kernel("hann", 0.8), Beam(photons=2e5))
    full, quarter = (simulated(clean, scan, dose, seed) for dose, seed in ((1.0, 1), (0.25, 2)))
    flat = flat_noise(full)
    low = at_dose(full, unit_noise(full, flat, scan, 1, 3)[0], 0.25)
    inside = away_mm() < 85.0
    assert float(low[inside].std()) == pytest.approx(float(quarter[inside].std()), rel=0.08)
    assert float(full[inside].mean()) == pytest.approx(0.0, abs=1.0)


@pytest.mark.parametrize("metal_hu", [12_000.0, 30_710.0])
@pytest.mark.parametrize("fan", [None, Fan(views=144, readings=246, step=3 * Fan().step)], ids=["parallel", "fan"])
def test_metal_leaves_noise_within_bounds(metal_hu: float, fan: Fan | None) -> None:
    hu = noisy_water()
    hu[56:72, 20:36] = hu[56:72, 92:108] = metal_hu
    flat = flat_noise(hu)
    made = unit_noise(hu, flat, Scan(2.0, Kernel("hann", 0.8), fan=fan), 1, seed=4)[0]
    assert noise(made, flat.places) == pytest.approx(flat.noise_hu, rel=1e-4)
    assert float(np.abs(made).max()) < 2000.0


def test_a_fan_makes_noise_of_the_same_magnitude() -> None:
    hu = noisy_water()
    flat = flat_noise(hu)
    fan = Fan(views=144, readings=246, step=3 * Fan().step)
    made = unit_noise(hu, flat, Scan(2.0, Kernel("hann", 0.8), fan=fan), 1, seed=4)[0]
    assert noise(made, flat.places) == pytest.approx(flat.noise_hu, rel=1e-4)


def test_slices_that_are_not_square_keep_their_shape() -> None:
    hu = noisy_water()[10:120, 3:]
    assert unit_noise(hu, flat_noise(hu), SCAN, 1, 1).shape == (1, *hu.shape)


def test_where_nothing_is_flat_nothing_is_added() -> None:
    air = np.full((64, 64), -1000.0, np.float32)
    assert flat_noise(air).noise_hu == 0.0
    assert not unit_noise(air, flat_noise(air), SCAN, 1, 1).any()


def test_slices_without_a_figure_take_the_median_of_the_others() -> None:
    assert filled([0.0, 3.0, 5.0, 4.0]).tolist() == [4.0, 3.0, 5.0, 4.0]
    assert filled([0.0]).tolist() == [0.0]


def test_the_blur_of_edges_is_measured() -> None:
    for sigma_px in (0.8, 1.6):
        sharp = np.kron(np.where(away_mm() < 90.0, 0.0, -1000.0), np.ones((4, 4)))
        blurred = gaussian_filter(sharp, 4 * sigma_px).reshape(SIZE_PX, 4, SIZE_PX, 4).mean((1, 3))
        assert edge_blur_px(blurred[None].astype(np.float32)) == pytest.approx(sigma_px, rel=0.2)
