"""What an observer that knows shape and place sees of a planted nodule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.evaluate.bodies import ADDED_HU, SIZE_PX, body, case, views
from trainers.data.patches import Planting
from trainers.evaluate.denoisers import LOW_DOSE, Denoiser, Pixels, Seen
from trainers.evaluate.measures import View, lesion_figures
from trainers.evaluate.nodules import LESIONS, Lesion, lesion_hu, planted_in, site_of, size_of
from trainers.physics.lesions import Imaging, Nodule, nodule_hu

_BRIGHT, _DARK = Lesion(6.0, 50.0), Lesion(10.0, -20.0)
_CASE = case()


@given(
    diameter_mm=st.floats(4.0, 14.0), contrast_hu=st.floats(10, 100) | st.floats(-100, -10), level=st.floats(-900, 900)
)
@settings(deadline=None, max_examples=20)
def test_the_response_is_the_contrast_whatever_the_level(diameter_mm: float, contrast_hu: float, level: float) -> None:
    site = site_of(_CASE, Lesion(diameter_mm, contrast_hu), (128, 60))
    image = np.full((SIZE_PX, SIZE_PX), level, np.float32)
    assert site.response(image) == pytest.approx(0.0, abs=0.05)
    assert site.response(image + site.added) == pytest.approx(abs(contrast_hu), abs=0.05)
    assert site.response(image - site.added) == pytest.approx(-abs(contrast_hu), abs=0.05)


def test_nodules_lie_apart_in_soft_tissue_and_always_in_the_same_places() -> None:
    planted = planted_in(_CASE)
    assert len(planted.sites) == len(LESIONS) == len({str(site.lesion) for site in planted.sites})
    seen = np.zeros((SIZE_PX, SIZE_PX), int)
    for site in planted.sites:
        seen[site.box] += 1
        assert np.all(np.abs(body()[np.abs(site.added) > 1] - 40) < 60)
    assert seen.max() == 1
    assert np.array_equal(planted_in(_CASE).planted, planted.planted)
    assert np.allclose(planted.planted - sum(site.added for site in planted.sites), _CASE.full, atol=1e-3)
    left = [site.response(planted.removed - _CASE.full) for site in planted.sites]  # noise alone
    assert np.sqrt(np.mean(np.square(left))) < 8.0


def test_detectability_of_white_noise_is_what_theory_says() -> None:
    """Three realisations are enough: a place alone would know its variance to a factor of two."""
    one = case(realisations=3)
    found = lesion_figures([views(one, LOW_DOSE, (_BRIGHT, _DARK))])
    for site in planted_in(one, (_BRIGHT, _DARK)).sites:
        variance = ADDED_HU**2 * float(np.square(site.filter).sum())
        assert found[f"{size_of(site.lesion)} variance"] == pytest.approx(variance, rel=0.12)
        assert found[f"{site.lesion} response"] == pytest.approx(abs(site.lesion.contrast_hu), rel=1e-3)


def test_what_takes_half_of_everything_keeps_half_of_the_contrast_and_a_quarter_of_the_variance() -> None:
    full, halved = (
        lesion_figures([views(case(), Denoiser("one", lambda hu, share=share: hu * np.float32(share)), (_BRIGHT,))])
        for share in (1.0, 0.5)
    )
    assert halved["6 mm +50 HU response"] == pytest.approx(25.0, rel=1e-3)
    assert halved["6 mm variance"] == pytest.approx(full["6 mm variance"] / 4, rel=1e-3)


def test_what_is_left_of_a_removed_nodule_is_found() -> None:
    one = case()
    nodules = planted_in(one, (_BRIGHT, _DARK))
    plain = Seen(one.full, one.full, 0.0)
    honest = View(one, nodules, plain, plain, Seen(nodules.removed, nodules.removed, 0.0))
    inventing = View(one, nodules, plain, plain, Seen(one.full, nodules.planted, 0.0))
    assert lesion_figures([[honest]])["left of removed nodules"] == pytest.approx(0.0, abs=1e-3)
    assert lesion_figures([[inventing]])["left of removed nodules"] == pytest.approx(1.0, abs=1e-3)


def test_a_tube_is_no_nodule_of_any_training() -> None:
    """As large as one of 6 mm, and much longer than wide: training's outlines differ from a circle by some tenths."""
    (tube, *_) = (one for one in LESIONS if one.length_mm)
    thin = Imaging(0.25, 0.001, 0.0)
    weights = lesion_hu(tube, (100, 100), (201, 201), thin) / np.float32(tube.contrast_hu)
    assert float(weights.sum()) * 0.25**2 == pytest.approx(math.pi * 3.0**2, rel=0.03)
    spread = np.cov(np.argwhere(np.ones_like(weights)).T, aweights=weights.ravel())
    short, long = np.sqrt(np.linalg.eigvalsh(spread))
    assert long > 3 * short
    wildest = Nodule(100.0, 100.0, 3.0, 1.0, wobble=(Planting().wobble,) * 3)
    spread = np.cov(np.argwhere(np.ones_like(weights)).T, aweights=nodule_hu(wildest, weights.shape, thin).ravel())
    assert np.sqrt(np.linalg.eigvalsh(spread)).max() < 1.5 * np.sqrt(np.linalg.eigvalsh(spread)).min()


def test_a_tube_that_is_lost_is_told_apart_from_a_ball_that_is_kept() -> None:
    """As by a net that knows nodules of training alone."""
    one, lesions = case(), (_BRIGHT, Lesion(3.0, 50.0, 10.0))
    ball, tube = planted_in(one, lesions).sites
    if ball.lesion.length_mm:
        ball, tube = tube, ball
    rows, columns = tube.box

    def knows_balls(low: Pixels) -> Pixels:
        made = low.copy()
        made[rows, columns] = 40.0
        return made

    found = lesion_figures([views(one, Denoiser("one", knows_balls), lesions)])
    assert found["6 mm +50 HU response"] == pytest.approx(50.0, rel=1e-3)
    assert found["tube +50 HU response"] == pytest.approx(0.0, abs=1e-3)


def test_without_room_nothing_is_planted() -> None:
    assert not planted_in(case(), (Lesion(120.0, 50.0),)).sites
