"""Each output slice is nearer to its own source slice than to any other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.quality.order import Fit
from engines.quality.slices import pairs
from engines.volume import Volume
from tests.engines.phantoms import Pixels, body, disc, noisy, volume


def fit(before: Volume, after: Volume) -> Fit:
    found = Fit()
    for pair in pairs(before, after):
        found.add(pair)
    found.finish()
    return found


def anatomy(index: int) -> Pixels:
    """A body with something in it that goes on by 4 pixels from slice to slice."""
    return np.asarray(body() + np.roll(300.0 * disc(128, 12), (index * 4 - 40, 20), axis=(0, 1)), dtype=np.float32)


def noisy_slices(count: int = 6) -> Volume:
    return volume(*(noisy(anatomy(index), 20.0, index, grain_px=0.8) for index in range(count)))


def uniform(count: int = 6, grain_px: float = 0.8) -> Volume:
    """One anatomy in every slice: only noise tells them apart."""
    return volume(*(noisy(body(256), 20.0, seed, grain_px) for seed in range(count)))


def half_the_noise(before: Volume) -> Volume:
    clean = np.stack([anatomy(index) for index in range(len(before.voxels))])
    return before.with_voxels((clean + (before.voxels - clean) / 2).astype(np.float32))


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
    found = fit(same, same)
    assert found.worst is None
    assert found.alike == 3


@pytest.mark.parametrize("grain_px", [0.0, 0.8, 1.5])
@pytest.mark.parametrize("count", [2, 6, 20])
def test_slices_of_a_uniform_phantom_are_not_judged_by_their_noise(count: int, grain_px: float) -> None:
    """An engine that leaves no noise is no worse than one that leaves some."""
    before = uniform(count, grain_px)
    found = fit(before, before.with_voxels(np.stack([body(256)] * count)))
    assert found.worst is None
    assert found.alike == count


def test_where_a_uniform_part_ends_its_slices_are_not_judged_by_each_other() -> None:
    ends = np.concatenate([uniform(12).voxels, uniform(12).voxels + np.float32(200) * disc(256, 40)])
    before = volume(*ends)
    clean = np.concatenate([[body(256)] * 12, [body(256) + np.float32(200) * disc(256, 40)] * 12])
    assert fit(before, before.with_voxels(clean.astype(np.float32))).alike == 24


def test_two_slices_far_apart_in_little_dose_are_told_from_each_other() -> None:
    """What neighbours differ by is nearly all noise; they are judged all the same, for further ones differ by more."""
    clean = np.stack([anatomy(index) for index in range(20)])
    before = volume(*(noisy(each, 40.0, index, grain_px=0.8) for index, each in enumerate(clean)))
    order = [*range(9), 10, 9, *range(11, 20)]
    made = (clean + (before.voxels - clean) / 2)[order].astype(np.float32)
    found = fit(before, before.with_voxels(made))
    assert found.alike == 0
    assert found.worst is not None
    assert found.worst > 0.9
