"""ct-nlm on made-up slices: what must hold whatever the image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import quality
from engines.classical.nlm import CtNlm, denoise_slice
from engines.errors import EngineInputError, SettingError
from engines.volume import ARBITRARY, Volume
from tests.engines.phantoms import body, disc, noisy, volume

ALL = np.ones((128, 128), dtype=np.bool_)


def run(source: Volume, **chosen: float) -> Volume:
    engine = CtNlm()
    output = engine.run({"image": source}, engine.card.resolve(chosen))["image"]
    assert isinstance(output, Volume)
    return output


@pytest.mark.parametrize("grain_px", [0.0, 0.7])
@pytest.mark.parametrize("strength", [0.4, 0.6, 1.0])
def test_noise_goes_and_hu_stay(strength: float, grain_px: float) -> None:
    source = volume(*(noisy(body(256), 20.0, seed, grain_px) for seed in range(2)))
    report = quality.measure(source, run(source, strength=strength))
    assert report.noise_before is not None
    assert report.noise_after is not None
    low, high = CtNlm().card.limits.noise_ratio or (0, 0)
    assert low < report.noise_after / report.noise_before < high
    assert max(map(abs, report.bias_hu.values())) < 0.5
    assert report.clipped_fraction < 0.001


def test_more_strength_takes_more_noise() -> None:
    source = volume(noisy(body(), 20.0, grain_px=0.7))
    deviations = [quality.measure(source, run(source, strength=strength)).flat_sd_after for strength in (0.4, 0.6, 0.8)]
    assert deviations == sorted(deviations, reverse=True)


def test_strength_adapts_to_the_noise() -> None:
    """Four times the noise on the same body: the share that is removed is the same, within a tenth."""
    shares = []
    for sigma in (8.0, 32.0):
        source = volume(noisy(np.full((128, 128), 40.0, np.float32), sigma, grain_px=0.7))
        report = quality.measure(source, run(source))
        assert report.flat_sd_before is not None
        assert report.flat_sd_after is not None
        shares.append(report.flat_sd_after / report.flat_sd_before)
    assert shares[0] == pytest.approx(shares[1], abs=0.1)


def test_a_slice_depends_on_no_other() -> None:
    slices = [noisy(body(), sigma, seed) for seed, sigma in enumerate((5.0, 15.0, 45.0))]
    together = run(volume(*slices)).voxels
    for index, alone in enumerate(slices):
        assert np.array_equal(together[index], run(volume(alone)).voxels[0])


def test_the_number_of_threads_changes_nothing() -> None:
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        alone = run(volume(noisy(body(), 20.0))).voxels
        cv2.setNumThreads(4)
        assert np.array_equal(run(volume(noisy(body(), 20.0))).voxels, alone)
    finally:
        cv2.setNumThreads(threads)


@pytest.mark.parametrize("padding", [-3024.0, -2000.0, 0.0, 32767.0])
def test_padding_comes_back_unchanged_and_touches_nothing(padding: float) -> None:
    """The same field of view with any padding value gives the same image within."""
    measured = disc(128, 60)
    image = noisy(body(), 20.0)
    padded = np.where(measured, image, np.float32(padding))
    output = run(volume(padded, valid=measured[None])).voxels[0]
    assert (output[~measured] == padding).all()
    reference = run(volume(np.where(measured, image, np.float32(-1024)), valid=measured[None])).voxels[0]
    assert np.array_equal(output[measured], reference[measured])
    assert abs((output - padded)[measured].mean()) < 0.5


@given(offset=st.integers(-30000, 30000))
@settings(deadline=None, max_examples=15)
def test_an_offset_passes_through(offset: int) -> None:
    """No clip and no wrap anywhere in the range of 16-bit HU."""
    image, measured = noisy(np.full((64, 64), 40.0, np.float32), 20.0), ALL[:64, :64]
    moved = denoise_slice(image + np.float32(offset), measured, 0.6) - np.float32(offset)
    # Not the same to the last digit: noise is first measured where values are those of soft tissue.
    assert moved == pytest.approx(denoise_slice(image, measured, 0.6), abs=2.0)


def test_metal_does_not_overflow() -> None:
    image = noisy(body(), 20.0)
    image[60:64, 60:64] = 30000.0
    output = run(volume(image)).voxels[0]
    assert output[60:64, 60:64] == pytest.approx(30000.0, abs=1.0)
    assert abs(output - image)[:50].max() < 150.0


@pytest.mark.parametrize("image", [body(), np.full((128, 128), 40.0, np.float32)])
def test_what_has_no_noise_is_not_altered(image: np.ndarray) -> None:
    assert abs(run(volume(image)).voxels[0] - image).max() < 1.0


def test_a_slice_of_padding_only_comes_back() -> None:
    image = np.full((1, 64, 64), -2000.0, np.float32)
    output = run(Volume(image, np.eye(4), "HU", np.zeros((1, 64, 64), np.bool_)))
    assert np.array_equal(output.voxels, image)


def test_other_units_and_missing_inputs_are_refused() -> None:
    engine = CtNlm()
    with pytest.raises(EngineInputError, match="HU"):
        run(volume(body(), unit=ARBITRARY))
    with pytest.raises(EngineInputError, match="image"):
        engine.run({}, engine.card.resolve({}))
    with pytest.raises(SettingError, match="strength"):
        engine.card.resolve({"strength": 3.0})
