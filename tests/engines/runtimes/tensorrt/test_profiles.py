"""Which shapes a plan is built for, which profile serves a batch, and how it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.testing import networks
from engines.errors import EngineInputError, RuntimeFailedError
from engines.runtimes.tensorrt.profiles import TensorSpec, fitting, input_specs, open_axes, pieces, plan_profiles

IMAGE = TensorSpec("image", (None, 1, None, None))


def test_the_inputs_of_a_network_are_read_with_their_open_axes() -> None:
    assert input_specs(networks.adjacent_denoiser()) == (TensorSpec("image", (None, 3, None, None)),)


def test_there_is_a_profile_for_slices_of_ct_and_one_for_all_else() -> None:
    slices, others = plan_profiles([IMAGE])
    assert str(slices) == "image from 1 x 1 x 512 x 512 to 4 x 1 x 512 x 512"
    assert str(others) == "image from 1 x 1 x 64 x 64 to 2 x 1 x 1024 x 1024"


def test_a_network_that_fixes_its_shape_has_one_profile() -> None:
    (only,) = plan_profiles([TensorSpec("image", (1, 1, 256, 256))])
    assert only.of("image") == ((1, 1, 256, 256), (1, 1, 256, 256))
    assert open_axes([only]) == {"image": (None, 1, 256, 256)}


@pytest.mark.parametrize("shape", [(None, None, None, None), (None, 3), ()])
def test_what_is_no_image_is_refused(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(RuntimeFailedError, match="channels"):
        plan_profiles([TensorSpec("x", shape)])


@pytest.mark.parametrize(
    ("shape", "number"), [((1, 1, 512, 512), 0), ((300, 1, 512, 512), 0), ((1, 1, 512, 511), 1), ((9, 1, 64, 1024), 1)]
)
def test_the_narrowest_profile_serves(shape: tuple[int, ...], number: int) -> None:
    assert fitting(plan_profiles([IMAGE]), {"image": shape}) == number


@pytest.mark.parametrize("shape", [(1, 1, 63, 512), (1, 1, 512, 1025), (1, 1, 2048, 2048)])
def test_a_shape_outside_says_what_was_given_and_what_was_built(shape: tuple[int, ...]) -> None:
    with pytest.raises(EngineInputError) as refused:
        fitting(plan_profiles([IMAGE]), {"image": shape})
    assert " x ".join(map(str, shape)) in str(refused.value)
    assert "64 x 64 to 2 x 1 x 1024 x 1024" in str(refused.value)
    assert refused.value.hint


def test_open_axes_are_those_that_differ() -> None:
    assert open_axes(plan_profiles([IMAGE])) == {"image": (None, 1, None, None)}


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 64))
def test_pieces_are_the_batch_in_order_and_none_is_too_large(batch: int, largest: int) -> None:
    cuts = pieces(batch, largest)
    assert [index for cut in cuts for index in range(batch)[cut]] == list(range(batch))
    sizes = [cut.stop - cut.start for cut in cuts]
    assert max(sizes) <= largest
    assert len(cuts) >= min(batch, 2)
    assert len(set(sizes[:-1])) <= 1
