"""Edge widths against steps whose width is known: the middle 50 % of a Gaussian step spans 1.349 sigma."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, special

from engines.quality.edges import edge_response, edge_width_px, find_edges
from tests.engines.phantoms import Pixels, body, noisy

ALL = np.ones((128, 128), dtype=np.bool_)


def step(sigma: float, height: float = 400.0) -> Pixels:
    across = np.arange(128) - 63.3
    line = -100.0 + height / 2 * (1 + special.erf(across / sigma / np.sqrt(2)))
    return np.tile(line.astype(np.float32), (128, 1))


@pytest.mark.parametrize("sigma", [1.0, 1.5])
def test_width_of_a_gaussian_step(sigma: float) -> None:
    widths = edge_width_px([(step(sigma), step(sigma), ALL)])
    assert widths == pytest.approx((1.349 * sigma, 1.349 * sigma), rel=0.04)


def test_blur_adds_in_squares() -> None:
    widths = edge_width_px([(step(1.0), ndimage.gaussian_filter(step(1.0), 1.0), ALL)])
    assert widths is not None
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(2.0), rel=0.03)


def test_noise_does_not_make_an_edge_sharper() -> None:
    widths = edge_width_px([(noisy(body(256), 15.0, grain_px=0.6), body(256), np.ones((256, 256), np.bool_))])
    assert widths is not None
    assert widths[0] == pytest.approx(widths[1], rel=0.03)


def test_edges_next_to_padding_or_outside_the_heights_asked_for_do_not_count() -> None:
    measured = ALL.copy()
    measured[:, 60] = False
    assert len(find_edges(step(1.0), ALL, (100.0, 1e9)).row) > 50
    assert len(find_edges(step(1.0), measured, (100.0, 1e9)).row) == 0
    assert len(find_edges(step(1.0), ALL, (500.0, 1e9)).row) == 0
    assert edge_width_px([(step(1.0, 50.0), step(1.0, 50.0), ALL)]) is None


def test_edges_point_from_dark_to_bright() -> None:
    edges = find_edges(step(1.0)[:, ::-1].copy(), ALL, (100.0, 1e9))
    assert (edges.across < -0.99).all()
    assert edges.step == pytest.approx(np.full(len(edges.row), 400.0), rel=0.03)


def test_a_flat_slice_has_no_edges() -> None:
    assert edge_width_px([(np.zeros((128, 128), np.float32),) * 2 + (ALL,)]) is None


@pytest.mark.parametrize("blur", [0.5, 1.0])
def test_modulation_falls_as_the_transform_of_the_blur(blur: float) -> None:
    found = edge_response([(step(1.0), ndimage.gaussian_filter(step(1.0), blur), ALL)])
    assert found is not None
    assert found.half_per_px == pytest.approx(np.sqrt(np.log(2) / 2) / np.pi, abs=0.012)
    assert found.modulation == pytest.approx(np.exp(-2 * (np.pi * blur * found.half_per_px) ** 2), rel=0.05)
