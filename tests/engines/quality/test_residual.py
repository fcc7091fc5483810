"""What is taken away is noise, or it is seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from engines.quality.residual import Blob, BlobSearch, EdgeCorrelation
from engines.quality.slices import Pixels, pairs
from engines.volume import Volume
from tests.engines.phantoms import body, noisy, volume

MM = 0.7


def correlation(before: Volume, after: Volume) -> EdgeCorrelation:
    found = EdgeCorrelation()
    for pair in pairs(before, after):
        found.add(pair)
    return found


def blob(before: Volume, after: Volume) -> Blob:
    search = BlobSearch((MM, MM, 1.25))
    for pair in pairs(before, after):
        search.add(pair)
    search.finish()
    assert search.strongest is not None
    return search.strongest


def source(count: int = 7) -> Volume:
    return volume(*(noisy(body(192), 12.0, seed, grain_px=0.7) for seed in range(count)))


def denoised(before: Volume) -> Volume:
    clean = body(192)
    return before.with_voxels((clean + (before.voxels - clean) * np.float32(0.4)).astype(np.float32))


def sphere(shape: tuple[int, ...], place: tuple[int, int, int], diameter_mm: float) -> Pixels:
    axes = [(np.arange(length) - middle) for length, middle in zip(shape, place, strict=True)]
    distance = np.sqrt((1.25 * axes[0][:, None, None]) ** 2 + (MM * axes[1][:, None]) ** 2 + (MM * axes[2]) ** 2)
    filled: Pixels = np.clip((diameter_mm / 2 - distance) / MM + 0.5, 0, 1).astype(np.float32)
    return filled


def test_noise_knows_nothing_of_edges() -> None:
    worst = correlation(source(), denoised(source())).worst
    assert worst is not None
    assert worst < 0.1


@pytest.mark.parametrize("slices", [slice(None), slice(3, 4)])
def test_a_blur_follows_edges_in_every_slice_or_in_one(slices: slice) -> None:
    before, made = source(), denoised(source()).voxels
    for index in range(*slices.indices(7)):
        made[index] = ndimage.gaussian_filter(made[index], 1.0)
    found = correlation(before, before.with_voxels(made))
    assert found.worst is not None
    assert found.worst > 0.6
    if slices.start is not None:
        assert found.index == 3


def test_nothing_stands_out_of_noise() -> None:
    assert blob(source(), denoised(source())).strength < 6.0


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("is_erased", [True, False])
def test_a_nodule_that_is_erased_or_made_up_stands_out_at_its_place(sign: int, is_erased: bool) -> None:
    before = source()
    after = denoised(before)
    nodule = np.float32(150 * sign) * sphere(before.shape, (3, 140, 70), 6.0)
    if is_erased:
        before = before.with_voxels(before.voxels + nodule)
    else:
        after = after.with_voxels(after.voxels + nodule)
    found = blob(before, after)
    assert found.strength > 6.0
    assert abs(found.slice_index - 3) <= 2
    assert np.hypot(found.row - 140, found.column - 70) <= 8
    assert (found.contrast > 0) == ((sign > 0) == is_erased)


def test_a_nodule_in_the_last_slice_is_seen() -> None:
    before = source()
    made = denoised(before).voxels + np.float32(300) * sphere(before.shape, (6, 140, 70), 6.0)
    found = blob(before, before.with_voxels(made))
    assert found.strength > 6.0
    assert found.slice_index >= 5


def test_a_nodule_that_stays_is_not_seen() -> None:
    nodule = np.float32(400) * sphere((7, 192, 192), (3, 140, 70), 6.0)
    before = source()
    with_it = before.with_voxels(before.voxels + nodule)
    assert blob(with_it, with_it.with_voxels(denoised(before).voxels + nodule)).strength < 6.0


def test_an_engine_that_does_nothing_leaves_nothing() -> None:
    assert correlation(source(), source()).worst is None
    assert blob(source(), source()).strength == 0.0


def test_a_trace_stands_out_less_where_the_source_is_noisy() -> None:
    """Of a residual that is next to nothing any trace stands out, and nobody sees it beside the noise of the source."""
    trace = np.zeros((192, 192), np.float32)
    trace[96, 140] = 1.0
    trace = ndimage.gaussian_filter(trace, 0.3 * 6 / MM)
    strengths = []
    for noise_hu in (2.0, 400.0):
        before = volume(*(noisy(body(192), noise_hu, seed, grain_px=0.7) for seed in range(7)))
        removed = np.float32(10.0 / trace.max()) * trace
        strengths.append(blob(before, before.with_voxels(before.voxels - removed)).strength)
    assert strengths[1] < 0.7 * strengths[0]
