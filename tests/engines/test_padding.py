"""What stands in for padding."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from engines.padding import fill_padding, filled_slices
from engines.volume import HU, Volume


@given(measured=hnp.arrays(np.bool_, (16, 16)))
@settings(deadline=None, max_examples=50)
def test_padding_is_filled_with_measured_values_only(measured: np.ndarray) -> None:
    pixels = np.arange(256, dtype=np.float32).reshape(16, 16)
    filled = fill_padding(pixels, measured)
    assert np.array_equal(filled[measured], pixels[measured])
    if measured.any():
        assert set(filled.ravel()) <= set(pixels[measured])


def test_the_nearest_measured_value_stands_in() -> None:
    pixels = np.array([[1.0, 0.0, 0.0, 4.0], [5.0, 0.0, 0.0, 8.0]], dtype=np.float32)
    filled = fill_padding(pixels, pixels > 0)
    assert filled.tolist() == [[1.0, 1.0, 4.0, 4.0], [5.0, 5.0, 8.0, 8.0]]
    assert pixels[0, 1] == 0.0


@given(valid=hnp.arrays(np.bool_, (4, 8, 8)), first=hnp.arrays(np.bool_, (8, 8)))
@settings(deadline=None, max_examples=50)
def test_slices_are_filled_each_by_its_own_padding(valid: np.ndarray, first: np.ndarray) -> None:
    valid[:2] = first
    voxels = np.arange(256, dtype=np.float32).reshape(4, 8, 8)
    slices = list(filled_slices(Volume(voxels, np.eye(4), HU, valid), range(1, 4)))
    for index, pixels in zip(range(1, 4), slices, strict=True):
        assert np.array_equal(pixels, fill_padding(voxels[index], valid[index]))


def test_without_padding_nothing_is_copied() -> None:
    voxels = np.zeros((2, 3, 3), np.float32)
    (pixels,) = filled_slices(Volume(voxels, np.eye(4), HU), range(1, 2))
    assert np.shares_memory(pixels, voxels)
