"""Projection: its adjoint, and the shadow of a disc, which is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.physics.discs import WATER, chords, disc
from trainers.physics.geometry import Fan, Geometry, Parallel, covering
from trainers.physics.projector import adjoint, gather, project

GEOMETRIES = [Parallel(views=30, readings=40, step=1.0), Fan(views=16, readings=60, step=0.01)]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda one: type(one).__name__)
@given(size_px=st.integers(2, 24), pixel_mm=st.floats(0.4, 3.0), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=15)
def test_adjoint_is_the_transpose_of_project(geometry: Geometry, size_px: int, pixel_mm: float, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(2, size_px, size_px, dtype=torch.float64, generator=rng)
    sinogram = torch.rand(2, geometry.views, geometry.readings, dtype=torch.float64, generator=rng)
    forward = (project(image, pixel_mm, geometry) * sinogram).sum()
    backward = (image * adjoint(sinogram, size_px, pixel_mm, geometry)).sum()
    assert forward.item() == pytest.approx(backward.item(), rel=1e-12)


@pytest.mark.parametrize("geometry", [covering(128, 2.0, 60), Fan(views=48, readings=184, step=4 * Fan().step)])
def test_a_disc_casts_its_known_shadow(geometry: Geometry) -> None:
    shadow = project(disc(128, 2.0, 100.0) * WATER, 2.0, geometry)[0].double()
    wanted = chords(geometry, 100.0) * WATER
    inside = geometry.distances_mm.abs() < 90.0
    assert shadow.mean(0)[inside] == pytest.approx(wanted[inside], rel=0.01)
    assert float((shadow - wanted).abs().mean()) < 0.02  # of 4


def test_a_point_off_the_middle_goes_around_as_a_sine() -> None:
    image = torch.zeros(1, 65, 65)
    image[0, 32, 52] = 1.0  # 20 px to the right
    geometry = Parallel(views=4, readings=65, step=1.0)
    shadow = project(image, 1.0, geometry)[0]
    # at 0, 45, 90 and 135 degrees: 20 cos(angle) from the middle
    assert shadow.argmax(1).tolist() == [52, 46, 32, 18]
    assert shadow.sum(1) == pytest.approx(torch.ones(4), abs=1e-6)


def test_beyond_the_readings_there_is_nothing() -> None:
    narrow = Parallel(views=2, readings=4, step=1.0)
    image = gather(torch.ones(1, 2, 4), 32, 1.0, narrow, lambda source_mm: 1.0)[0]
    assert image[16, 16] == pytest.approx(2.0)
    assert image[0, 0] == 0.0
