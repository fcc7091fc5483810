"""Slabs and tiles: they cover everything once, and what is computed in them is what is computed at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from engines.errors import EngineInputError
from engines.runtimes.base import Tensors
from engines.tiling import Tiling, computed, padded, reflected, slabs, spans, uncut

lengths = st.integers(1, 150)
tilings = st.builds(
    Tiling, st.integers(0, 9), st.sampled_from([1, 2, 3, 4]), st.integers(1, 60), st.integers(1, 3)
)  # fmt: skip


def local(reach_px: int, factor: int = 1, shuffle_px: int = 1) -> object:
    """A network that looks `reach_px` far (a mean), after it has put pixels together by `shuffle_px`."""

    def network(tensors: Tensors) -> Tensors:
        images = tensors["image"]
        rows, columns = images.shape[2:]
        assert rows % shuffle_px == 0 and columns % shuffle_px == 0
        blocks = images.reshape(*images.shape[:2], rows // shuffle_px, shuffle_px, columns // shuffle_px, shuffle_px)
        steps = np.broadcast_to(blocks.mean(axis=(3, 5), keepdims=True), blocks.shape).reshape(images.shape)
        seen = ndimage.uniform_filter(
            steps.astype(np.float64), (0, 0, 2 * reach_px + 1, 2 * reach_px + 1), mode="constant"
        )
        return {"out": seen.repeat(factor, axis=2).repeat(factor, axis=3).astype(np.float32)}

    return network


def images(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@given(count=st.integers(1, 3000), size=st.integers(1, 40), halo=st.integers(0, 5))
@settings(deadline=None)
def test_slabs_cover_each_slice_once_and_read_their_halo(count: int, size: int, halo: int) -> None:
    found = slabs(count, size, halo)
    assert [index for slab in found for index in slab.slices] == list(range(count))
    assert max(len(slab.slices) for slab in found) <= size
    assert max(len(slab.slices) for slab in found) - min(len(slab.slices) for slab in found) <= 1
    for slab in found:
        assert slab.reads.start == max(0, slab.slices.start - halo)
        assert slab.reads.stop == min(count, slab.slices.stop + halo)


@given(pieces=lengths, tiling=tilings)
@settings(deadline=None)
def test_tiles_cover_an_axis_once_in_windows_of_one_size(pieces: int, tiling: Tiling) -> None:
    length = pieces * tiling.multiple_px
    found = spans(length, tiling)
    assert [place for span in found for place in range(span.first, span.last)] == list(range(length))
    assert len({span.end - span.begin for span in found}) == 1
    for span in found:
        assert span.begin % tiling.multiple_px == 0
        assert span.begin >= 0 and span.end <= length
        assert span.begin == 0 or span.first - span.begin >= tiling.halo_px
        assert span.end == length or span.end - span.last >= tiling.halo_px


@given(length=st.integers(1, 20), more=st.integers(0, 50))
def test_reflection_is_numpys(length: int, more: int) -> None:
    assert np.array_equal(reflected(length, length + more), np.pad(np.arange(length), (0, more), mode="reflect"))


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), multiple=st.integers(1, 16))
def test_padding_keeps_what_was_there(rows: int, columns: int, multiple: int) -> None:
    values = images(2, 1, rows, columns)
    grown = padded(values, multiple)
    assert grown.shape[2] % multiple == grown.shape[3] % multiple == 0
    assert np.array_equal(grown[:, :, :rows, :columns], values)
    assert set(grown.ravel()) == set(values.ravel())


@given(rows=lengths, columns=lengths, tiling=tilings, factor=st.sampled_from([1, 2]))
@settings(deadline=None, max_examples=40)
def test_tiled_equals_whole(rows: int, columns: int, tiling: Tiling, factor: int) -> None:
    network = local(tiling.halo_px, factor, tiling.multiple_px)
    tensors = {"image": images(3, 1, rows, columns)}
    whole = computed(network, tensors, Tiling(tiling.halo_px, tiling.multiple_px, 10_000, 3))["out"]
    tiled = computed(network, tensors, tiling)["out"]
    assert tiled.shape == whole.shape == (3, 1, factor * rows, factor * columns)
    assert np.abs(tiled - whole).max() <= 1e-6


def test_a_halo_that_is_too_small_shows() -> None:
    network, tensors = local(6), {"image": images(1, 1, 100, 100)}
    whole = computed(network, tensors, Tiling(6, tile_px=1000))["out"]
    assert np.abs(computed(network, tensors, Tiling(3, tile_px=40))["out"] - whole).max() > 1e-3


def test_a_coarser_output_is_put_together_too() -> None:
    def network(tensors: Tensors) -> Tensors:
        return {"out": tensors["image"][:, :, ::4, ::4]}

    tensors = {"image": images(2, 1, 50, 33)}
    tiled = computed(network, tensors, Tiling(4, 4, 20))["out"]
    assert tiled.shape == (2, 1, 13, 9)
    assert np.array_equal(tiled, padded(tensors["image"], 4)[:, :, ::4, ::4])


def test_a_network_that_is_never_cut_may_give_anything() -> None:
    sizes = []

    def network(tensors: Tensors) -> Tensors:
        sizes.append(tensors["image"].shape)
        return {"number": tensors["image"].mean(axis=(2, 3), keepdims=True), "image": tensors["image"]}

    tensors = {"image": images(5, 1, 70, 33)}
    found = uncut(network, tensors, Tiling(4, 4, 20, 2))
    assert sizes == [(2, 1, 72, 36), (2, 1, 72, 36), (1, 1, 72, 36)]
    assert found["number"].shape == (5, 1, 1, 1)
    assert np.array_equal(found["image"], tensors["image"])


@pytest.mark.parametrize(("step", "across"), [(3, 3), (2, 1)])
def test_an_output_of_another_size_is_refused(step: int, across: int) -> None:
    def network(tensors: Tensors) -> Tensors:
        return {"out": tensors["image"][:, :, ::step, ::across]}

    with pytest.raises(EngineInputError, match=r"the network gives out as \d+ x \d+ for \d+ x \d+") as error:
        computed(network, {"image": images(1, 1, 64, 64)}, Tiling(4, 4, 20))
    assert "multiple_px" in error.value.hint


@pytest.mark.parametrize("cut", [computed, uncut])
@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (2,), (2, 1), (2, 1, 8, 8, 1)])
def test_an_output_of_another_batch_or_form_is_refused(cut: Callable[..., object], shape: tuple[int, ...]) -> None:
    """One slice for two would be spread over both."""
    with pytest.raises(EngineInputError, match="the network gives out as"):
        cut(lambda _: {"out": np.ones(shape, np.float32)}, {"image": images(2, 1, 8, 8)}, Tiling(batch=2))
