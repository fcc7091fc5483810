"""Local equalisation: what must hold for any values, and OpenCV's own where that works (8 bit)."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engines.classical import clahe

SHARES = hnp.arrays(np.float64, clahe.CLASSES, elements=st.floats(0, 1)).filter(lambda x: x.sum() > 0)


def texture(seed: int = 0) -> np.ndarray:
    """Bright and dark parts with fine grain, 0...1."""
    down, across = np.indices((256, 256)) / 256
    waves = 0.5 + 0.25 * np.sin(6 * down) * np.cos(4 * across)
    grained = waves + np.random.default_rng(seed).normal(0, 0.04, waves.shape)
    return grained.clip(0, 1).astype(np.float32)


@given(shares=SHARES, clip=st.floats(1, 8))
@settings(deadline=None)
def test_a_curve_increases_from_0_to_1_no_steeper_than_the_clip_allows(shares: np.ndarray, clip: float) -> None:
    curve = clahe.curve(shares / shares.sum(), clip)
    slopes = np.diff(curve) * clahe.CLASSES
    assert curve[0] == 0.0
    assert curve[-1] == pytest.approx(1.0)
    assert slopes.min() >= -1e-9
    assert slopes.max() <= clip + 1.0 + 1e-9  # what is given back comes on top, at most one


def test_a_uniform_histogram_changes_nothing() -> None:
    assert clahe.curve(np.full(256, 1 / 256), 2.0) == pytest.approx(np.linspace(0, 1, 257))
    assert clahe.histogram(np.array([])) == pytest.approx(np.full(256, 1 / 256))


@pytest.mark.parametrize("clip", [2.0, 4.0])
def test_agrees_with_opencv_where_that_counts_256_levels(clip: float) -> None:
    image = (
        texture()
    )  # tiles of 128 x 128: in small ones OpenCV gives what does not divide by 256 to the darkest classes
    levels = np.rint(image * 255).astype(np.uint8)
    theirs = cv2.createCLAHE(clip, (2, 2)).apply(levels) / 255
    ours = clahe.equalise(image, np.ones(image.shape, np.bool_), clip, 2)
    assert abs(ours - theirs).mean() < 0.01


def test_no_level_is_lost() -> None:
    image = np.linspace(0.2, 0.21, 256 * 256, dtype=np.float32).reshape(256, 256)
    out = clahe.equalise(image, np.ones(image.shape, np.bool_), 2.0, 2)
    assert len(np.unique(out)) > 20_000


def test_padding_does_not_count() -> None:
    image, measured = texture(), np.ones((256, 256), np.bool_)
    measured[:, 200:] = False
    one, other = image.copy(), image.copy()
    one[~measured], other[~measured] = 0.0, 1.0
    equalised = [clahe.equalise(pixels, measured, 2.0, 8)[measured] for pixels in (one, other)]
    assert np.array_equal(*equalised)


def test_any_size_of_image_and_grid() -> None:
    image = texture()[:70, :113]
    out = clahe.equalise(image, np.ones(image.shape, np.bool_), 2.0, 16)
    assert out.shape == image.shape
    assert out.min() >= 0.0
    assert out.max() <= 1.0
