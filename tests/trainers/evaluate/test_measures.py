"""Figures of denoisers whose doing is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engines.quality.slices import blurred
from tests.trainers.evaluate.bodies import ADDED_HU, OWN_HU, SIZE_PX, body, case, views
from trainers.evaluate.denoisers import LOW_DOSE, Denoiser, Pixels
from trainers.evaluate.measures import EDGES_HU, body_places, figures, removed_by_slope
from trainers.evaluate.nodules import LESIONS

_CASE = case()


def _figures(name: str, run: object = None, dose: float = 0.5) -> dict[str, float]:
    denoiser = LOW_DOSE if run is None else Denoiser(name, run)  # type: ignore[arg-type]
    return figures([views(_CASE, denoiser, LESIONS, dose)])


def _clean(low: Pixels) -> Pixels:
    """Knows what is there: takes half of what is noise."""
    return (low + body()) / 2


def test_the_input_itself_is_moved_nowhere() -> None:
    found = _figures("input")
    assert {found[f"bias {band}"] for band in ("lung", "fat", "soft tissue", "bone")} == {0.0}
    assert found["strong edges before"] == found["strong edges after"] and found["strong edges modulation"] == 1.0
    assert found["noise"] == pytest.approx(math.hypot(OWN_HU, ADDED_HU), rel=0.1)
    assert "removed by slope" not in found and found["removed"] == 0.0 and found["left of removed nodules"] == 0.0


def test_half_the_noise_is_half_the_noise() -> None:
    before, after = _figures("input"), _figures("clean", _clean)
    assert after["noise"] == pytest.approx(before["noise"] / 2, rel=0.01)
    assert after["nps 0.30"] == pytest.approx(before["nps 0.30"] / 4, rel=0.1)
    assert after["psnr abdomen"] > before["psnr abdomen"] + 4 and after["ssim abdomen"] > before["ssim abdomen"]
    assert abs(after["removed by slope"]) < 0.1


def test_a_tissue_that_is_moved_is_told_with_its_sign() -> None:
    found = _figures("bright bone", lambda low: low + np.where(body() > 300, np.float32(5), np.float32(0)))
    assert found["bias bone"] == pytest.approx(5.0, abs=0.2)
    assert found["bias soft tissue"] == pytest.approx(0.0, abs=0.01)


def test_where_tissue_is_looked_for_does_not_follow_from_the_noise() -> None:
    down, across = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float32) / 10
    quiet, loud = (_figures("slope", lambda low: low + down + across, dose) for dose in (0.5, 0.01))
    for band in ("lung", "fat", "soft tissue", "bone"):
        assert loud[f"bias {band}"] == pytest.approx(quiet[f"bias {band}"], abs=1e-3)


def test_where_edges_are_looked_for_does_not_follow_from_the_noise() -> None:
    quiet, loud = (_figures("knows all", lambda low: body(), dose) for dose in (0.5, 0.01))
    for edges in EDGES_HU:
        assert loud[f"{edges} edges after"] == quiet[f"{edges} edges after"] < 1.5


def test_a_blur_is_told_by_edges_and_by_what_it_removes() -> None:
    sharp, soft = _figures("input"), _figures("blur", lambda low: blurred(low, 1.5))
    assert soft["strong edges after"] > 1.3 * soft["strong edges before"]
    assert soft["strong edges modulation"] < 0.7 < sharp["strong edges modulation"]
    assert soft["removed by slope"] > 0.3
    assert soft["6 mm +50 HU response"] < 45 < sharp["6 mm +50 HU response"]


def test_noise_knows_nothing_of_slopes() -> None:
    noise = np.random.default_rng(3).normal(0, 20, body().shape).astype(np.float32)
    assert abs(removed_by_slope(body(), noise)) < 0.1
    assert removed_by_slope(body(), body() - blurred(body(), 3.0)) > 0.3
    assert math.isnan(removed_by_slope(body(), np.zeros_like(noise)))


def test_the_table_is_no_part_of_the_body() -> None:
    with_table = body()
    with_table[246:251, 20:236] = 100.0
    places = body_places(with_table)
    assert not places[:, :4].any() and not places[248, 24]
    assert places[128, 128] and places[70, 170]  # the lung is inside
    assert not body_places(np.full((40, 40), -1000, np.float32)).any()
