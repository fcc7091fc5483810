"""Each output slice is nearer to its own source slice than to any other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.quality.order import Fit
from engines.quality.slices import pairs
from engines.volume import Volume
from tests.engines.phantoms import body, noisy, volume


def fit(before: Volume, after: Volume) -> Fit:
    found = Fit()
    for pair in pairs(before, after):
        found.add(pair)
    found.finish()
    return found


def noisy_slices(count: int = 6) -> Volume:
    """One anatomy in every slice: only noise tells them apart."""
    return volume(*(noisy(body(), 20.0, seed, grain_px=0.8) for seed in range(count)))


def half_the_noise(before: Volume) -> Volume:
    return before.with_voxels((body() + (before.voxels - body()) / 2).astype(np.float32))


def test_a_denoised_volume_fits() -> None:
    worst = fit(noisy_slices(), half_the_noise(noisy_slices())).worst
    assert worst is not None
    assert worst < 0.7


@given(one=st.integers(0, 5), other=st.integers(0, 5))
@settings(deadline=None, max_examples=15)
def test_two_slices_that_changed_places_are_found(one: int, other: int) -> None:
    before = noisy_slices()
    order = list(range(6))
    order[one], order[other] = other, one
    found = fit(before, half_the_noise(before).with_voxels(half_the_noise(before).voxels[order]))
    assert found.worst is not None
    assert (found.worst > 0.9) == (one != other)
    if one != other:
        assert found.index in (one, other)


def test_a_repeated_slice_is_found() -> None:
    before = noisy_slices()
    made = half_the_noise(before).voxels[[0, 1, 2, 2, 4, 5]]
    found = fit(before, before.with_voxels(made))
    assert found.index == 3
    assert found.worst is not None
    assert found.worst > 1.0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flipped_axis_is_found(axis: int) -> None:
    before = noisy_slices()
    found = fit(before, before.with_voxels(np.flip(half_the_noise(before).voxels, axis).copy()))
    assert found.worst is not None
    assert found.worst > 0.9


def test_a_single_slice_has_no_neighbours_but_may_be_flipped() -> None:
    before = noisy_slices(1)
    assert (fit(before, half_the_noise(before)).worst or 0.0) < 0.7
    assert (fit(before, before.with_voxels(before.voxels[:, ::-1].copy())).worst or 0.0) > 1.0


def test_slices_that_are_one_image_are_not_told_apart() -> None:
    same = volume(body(), body(), body())
    assert fit(same, same).worst is None
