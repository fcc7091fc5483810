"""contrast-glcae: its parts against hand and brute force, the whole for what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.card import SettingValue
from engines.classical import clahe
from engines.classical.glcae import ContrastGlcae, fuse, tone_curve, tone_distortion, window_of, windowed
from engines.errors import EngineInputError, SettingError
from engines.volume import ARBITRARY, HU, Volume
from tests.engines.classical.test_clahe import texture
from tests.engines.phantoms import body, disc, noisy, volume


def run(source: Volume, **chosen: SettingValue) -> Volume:
    engine = ContrastGlcae()
    output = engine.run({"image": source}, engine.card.resolve(chosen))["image"]
    assert isinstance(output, Volume)
    return output


@given(counts=st.lists(st.integers(0, 50), min_size=256, max_size=256).filter(any), blend=st.floats(0, 2))
@settings(deadline=None, max_examples=50)
def test_tone_distortion_is_what_every_pair_says(counts: list[int], blend: float) -> None:
    shares = np.array(counts) / sum(counts)
    curve = clahe.curve((shares + blend / 256) / (1 + blend), 256)
    tones = np.floor(255 * curve[1:] + 0.5)
    occupied = np.flatnonzero(shares)
    slow = max(int(j - i) for i in occupied for j in occupied if tones[i] == tones[j])
    assert tone_distortion(curve, shares) == slow


def test_a_crowded_histogram_is_spread_but_no_tones_are_lost() -> None:
    shares = np.exp(-(((np.arange(256) - 100) / 8.0) ** 2)) + 1e-4
    shares /= shares.sum()
    curve = tone_curve(shares)
    assert np.diff(curve)[95:105].mean() * 256 > 2.0
    assert tone_distortion(curve, shares) < tone_distortion(clahe.curve(shares, 256), shares)


@pytest.mark.parametrize("shape", [(64, 64), (70, 113), (256, 256)])
def test_fusing_an_image_with_itself_gives_it_back(shape: tuple[int, int]) -> None:
    image = texture()[: shape[0], : shape[1]]
    assert fuse(image, image) == pytest.approx(image, abs=1e-5)


def test_fusing_prefers_the_version_with_contrast() -> None:
    flat = np.full((256, 256), 0.5, np.float32)
    assert abs(fuse(texture(), flat) - texture()).mean() < abs(fuse(texture(), flat) - flat).mean() / 2


@pytest.mark.parametrize(
    ("window", "unit", "chosen", "wanted"),
    [
        (None, HU, {}, (40.0, 400.0)),
        ((-600.0, 1500.0), HU, {}, (-600.0, 1500.0)),
        ((30.0, 0.0), HU, {}, (40.0, 400.0)),
        ((-600.0, 1500.0), HU, {"window": "bone"}, (500.0, 2000.0)),
        (None, ARBITRARY, {}, (50.0, 99.0)),
        ((300.0, 600.0), ARBITRARY, {}, (300.0, 600.0)),
        (None, ARBITRARY, {"window": "custom", "window_center": 7.0, "window_width": 3.0}, (7.0, 3.0)),
    ],
)  # fmt: skip
def test_which_window_is_shown(window: object, unit: str, chosen: dict[str, SettingValue], wanted: object) -> None:
    values = np.arange(101, dtype=np.float32).reshape(1, 1, 101)
    source = Volume(values, np.eye(4), unit, window=window)  # type: ignore[arg-type]
    assert window_of(source, ContrastGlcae.card.resolve(chosen)) == pytest.approx(wanted)


def test_a_preset_in_hu_is_refused_for_other_units() -> None:
    with pytest.raises(SettingError, match="HU"):
        run(volume(body(), unit=ARBITRARY), window="lung")


def test_a_window_without_content_is_refused() -> None:
    with pytest.raises(EngineInputError, match="window"):
        run(volume(body()), window="custom", window_center=20000.0, window_width=10.0)


def test_windowing_is_linear_within_and_flat_outside() -> None:
    values = np.array([[-500.0, -160.0, 40.0, 240.0, 900.0]], np.float32)
    assert windowed(values, 40.0, 400.0) == pytest.approx(np.array([[0, 0, 0.5, 1, 1]]))


def test_the_output_is_a_presentation_image_with_more_contrast() -> None:
    soft = disc(256, 30) & ~disc(256, 20)
    image = np.full((256, 256), 40.0, np.float32)
    image[soft] = 60.0
    image = noisy(image, 3.0)
    out = run(volume(image, image), window="soft")
    assert out.unit == ARBITRARY
    assert out.window == (2047.5, 4095.0)
    assert (out.voxels.min() >= 0.0) and (out.voxels.max() <= 4095.0)
    gained = out.voxels[0][soft].mean() - out.voxels[0][disc(256, 18)].mean()
    assert gained > 1.3 * 20.0 / 400.0 * 4095.0
    assert len(np.unique(out.voxels)) > 4096  # no 8-bit step, nor a 12-bit one


def test_padding_is_black_and_does_not_decide() -> None:
    measured = np.broadcast_to(disc(128, 60), (1, 128, 128))
    image = noisy(body(), 5.0)
    outputs = []
    for padding in (-3024.0, 0.0, 32767.0):
        source = volume(np.where(measured[0], image, np.float32(padding)), valid=measured)
        outputs.append(run(source).voxels)
        assert (outputs[-1][~measured] == 0.0).all()
    assert np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])


def test_scaling_the_grey_values_changes_nothing_in_arbitrary_units() -> None:
    image = texture() * 1000
    one, other = run(volume(image, unit=ARBITRARY)), run(volume(image * 16 + 100, unit=ARBITRARY))
    assert one.voxels == pytest.approx(other.voxels, abs=8.0)
