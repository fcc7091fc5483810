"""The constancy report of a uniform phantom."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.core.figures import figures_of
from engines.errors import EngineInputError
from engines.quality.constancy import limits_of, measure_phantom
from engines.volume import ARBITRARY, HU, Volume


def phantom(
    water_hu: float = 1.0, noise_hu: float = 8.0, cupping_hu: float = 2.0, slices: int = 3, spacing_mm: float = 0.8
) -> Volume:
    """A water cylinder of 200 mm in air; its rim is `cupping_hu` darker than its middle."""
    size = 320
    down, across = np.mgrid[:size, :size] - (size - 1) / 2
    radius_mm = np.hypot(down, across - 10.0) * spacing_mm
    clean = np.where(radius_mm < 100, water_hu - cupping_hu * (radius_mm / 85) ** 4, -1000.0)
    noise = np.random.default_rng(1).normal(0.0, noise_hu, (slices, size, size))
    return volume((clean + noise).astype(np.float32), spacing_mm)


def volume(voxels: NDArray[np.float32], spacing_mm: float = 0.8, unit: str = HU) -> Volume:
    return Volume(voxels, np.diag([spacing_mm, spacing_mm, 5.0, 1.0]), unit)


def test_water_noise_and_uniformity_are_those_of_the_phantom() -> None:
    report = measure_phantom(phantom())
    assert report.water_hu == pytest.approx(1.0, abs=0.2)
    assert report.noise_hu == pytest.approx(8.0, rel=0.03)
    assert report.uniformity_hu == pytest.approx(2.0, abs=0.8)
    assert report.diameter_mm == pytest.approx(200, abs=2)
    assert report.slices == 3
    assert report.nps is not None
    assert report.nps.area_before == pytest.approx(64, rel=0.15)


def test_its_figures_are_kept_like_those_of_an_engine() -> None:
    report = measure_phantom(phantom())
    found = figures_of(json.loads(json.dumps(report.as_json())))
    assert list(found) == ["water", "noise", "uniformity", "nps_mean", "nps_peak"]
    assert found["noise"] == pytest.approx(report.noise_hu, abs=1e-3)


def test_the_texture_of_the_noise_is_told_apart() -> None:
    sharp, soft = phantom(), phantom()
    kernel = np.ones(3) / 3
    blurred = np.apply_along_axis(np.convolve, 2, soft.voxels, kernel, "same")
    smooth = volume(np.apply_along_axis(np.convolve, 1, blurred, kernel, "same").astype(np.float32))
    found = [figures_of(measure_phantom(one).as_json())["nps_mean"] for one in (sharp, smooth)]
    assert found[1] < 0.8 * found[0]


def test_slices_with_inserts_are_left_out() -> None:
    made = phantom()
    made.voxels[1, 150:180, 150:180] = 300.0
    assert measure_phantom(made).slices == 2


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (volume(phantom().voxels, unit=ARBITRARY), "measured in HU"),
        (volume(np.full((2, 64, 64), -1000, np.float32)), "no slice shows"),
        (volume(phantom().voxels[:, 100:], 0.8), "no slice shows"),
        (volume(phantom().voxels, 0.2), "no slice shows"),
        (volume(np.full((1, 8, 8), np.nan, np.float32)), "no slice shows"),
        (volume(np.full((1, 1, 1), 0, np.float32), 100.0), "no slice shows"),
    ],
    ids=["no HU", "air", "cut off", "too small", "no numbers", "one pixel"],
)
def test_what_is_no_phantom_is_refused(made: Volume, message: str) -> None:
    with pytest.raises(EngineInputError, match=message):
        measure_phantom(made)


def test_water_and_rim_have_bounds() -> None:
    assert limits_of({"water": -3.0, "uniformity": 3.0, "noise": 99.0}) == ()
    assert limits_of({"water": -5.0, "uniformity": 6.0}) == (
        "water is -5.0 HU, at most 4 HU from 0 is allowed",
        "rim and middle differ by 6.0 HU, at most 4 HU is allowed",
    )
