"""Bone that is cut off, far below the end of the range."""

from __future__ import annotations

import numpy as np

from engines import quality
from engines.volume import ARBITRARY, Volume
from tests.engines.phantoms import body, noisy, volume


def source(unit: str = "HU") -> Volume:
    return volume(*(noisy(body(192), 15.0, seed) for seed in range(3)), unit=unit)


def denoised(before: Volume) -> Volume:
    return before.with_voxels((body(192) + (before.voxels - body(192)) / 2).astype(np.float32))


def test_bone_cut_off_in_one_slice_is_seen_and_bone_that_is_not_is_not() -> None:
    before = source()
    made = denoised(before).voxels
    assert (quality.measure(before, before.with_voxels(made)).clipped_bone or 0.0) < 0.01
    made[1] = np.minimum(made[1], np.float32(600.0))
    assert (quality.measure(before, before.with_voxels(made)).clipped_bone or 0.0) > 0.3


def test_what_the_source_had_clipped_already_is_not_counted() -> None:
    before = source()
    before = before.with_voxels(np.minimum(before.voxels, np.float32(805.0)))
    assert (quality.measure(before, before).clipped_bone or 0.0) == 0.0


def test_there_is_no_bone_without_hu() -> None:
    assert quality.measure(source(ARBITRARY), denoised(source(ARBITRARY))).clipped_bone is None
