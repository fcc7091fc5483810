"""Nodules: how much they add, where they fit, and that a removed one leaves nothing but noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.physics.lesions import Imaging, Nodule, nodule_hu, removed, roomy_places

SHARP = Imaging(pixel_mm=0.7, thickness_mm=0.001, edge_px=0.0)


@given(radius_mm=st.floats(1.2, 12.0), row=st.floats(20, 44), column=st.floats(20, 44), edge_px=st.floats(0.0, 1.5))
@settings(deadline=None, max_examples=25)
def test_a_nodule_adds_its_area_times_its_contrast(radius_mm: float, row: float, column: float, edge_px: float) -> None:
    added = nodule_hu(Nodule(row, column, radius_mm, 50.0), (64, 64), Imaging(0.7, 0.001, edge_px))
    area_mm2 = float(added.sum()) / 50.0 * 0.7**2
    assert area_mm2 == pytest.approx(math.pi * radius_mm**2, rel=0.06)
    weights = added / added.sum()
    rows, columns = np.mgrid[:64, :64]
    assert (float((weights * rows).sum()), float((weights * columns).sum())) == pytest.approx((row, column), abs=0.1)


def test_slices_through_a_sphere_add_up_to_its_volume() -> None:
    thick = Imaging(pixel_mm=0.7, thickness_mm=2.5, edge_px=0.9)
    depths = np.arange(-4, 5) * 2.5
    total = sum(
        float(nodule_hu(Nodule(32, 32, 6.0, 1.0, depth_mm=float(depth)), (64, 64), thick).sum()) for depth in depths
    )
    assert total * 0.7**2 * 2.5 == pytest.approx(4 / 3 * math.pi * 6.0**3, rel=0.03)


def test_a_small_nodule_in_a_thick_slice_loses_contrast() -> None:
    peaks = [float(nodule_hu(Nodule(32, 32, 1.5, 100.0), (64, 64), Imaging(0.7, mm, 0.9)).max()) for mm in (0.5, 5.0)]
    assert peaks[0] > 1.5 * peaks[1] > 0
    assert nodule_hu(Nodule(32, 32, 5.0, 100.0), (64, 64), SHARP)[32, 32] == pytest.approx(100.0)


def test_a_nodule_over_the_border_is_cut() -> None:
    whole = nodule_hu(Nodule(40.0, 40.0, 8.0, 50.0), (80, 80), SHARP)
    assert np.array_equal(nodule_hu(Nodule(0.0, 0.0, 8.0, 50.0), (80, 80), SHARP)[:40, :40], whole[40:, 40:])
    assert not nodule_hu(Nodule(-50.0, 10.0, 8.0, 50.0), (80, 80), SHARP).any()


def test_a_wobbling_outline_keeps_to_its_amplitude() -> None:
    round_, bent = (
        nodule_hu(Nodule(32, 32, 8.0, 1.0, wobble=wobble), (64, 64), SHARP) > 0.5
        for wobble in ((0.0, 0.0, 0.0), (0.1, 0.1, 0.1))
    )
    assert 0 < np.count_nonzero(round_ ^ bent) < 0.4 * np.count_nonzero(round_)


def test_places_have_room_in_the_tissue_alone() -> None:
    hu = np.full((64, 64), -850.0, np.float32)
    hu[10:50, 10:50] = 40.0
    places = roomy_places(hu, 6.0, (0.0, 100.0))
    assert len(places)
    assert places.min() >= 10 + 6
    assert places.max() < 50 - 6
    assert not len(roomy_places(hu, 25.0, (0.0, 100.0)))


def test_a_removed_nodule_leaves_the_level_and_the_noise() -> None:
    rng = np.random.default_rng(0)
    clean = (40.0 + 0.2 * np.arange(96)[:, None] + rng.normal(0, 10, (96, 96))).astype(np.float32)
    nodule = Nodule(48.0, 48.0, 6.0, 80.0)
    added = nodule_hu(nodule, (96, 96), Imaging(0.7, 1.0, 0.9))
    mask = added > 0.5
    made = removed(clean + added, mask, rng)
    assert np.array_equal(made[~mask], (clean + added)[~mask])
    assert float(made[mask].mean() - clean[mask].mean()) == pytest.approx(0.0, abs=4.0)
    assert float(made[mask].std()) == pytest.approx(float(clean[mask].std()), rel=0.3)


def test_a_nodule_as_large_as_the_slice_cannot_be_removed() -> None:
    with pytest.raises(ValueError, match="no place"):
        removed(np.zeros((32, 32), np.float32), np.ones((32, 32), np.bool_), np.random.default_rng(0))
