"""Which shapes a plan is built for, which profile serves a batch, and how it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dicomnode.testing import networks
from engines.errors import EngineInputError, RuntimeFailedError
from engines.runtimes.tensorrt.profiles import (
    SLICES,
    Range,
    Sizes,
    TensorSpec,
    fitting,
    input_specs,
    open_axes,
    other_sizes,
    pieces,
    plan_profiles,
    profiles_of,
)

IMAGE = TensorSpec("image", (None, 1, None, None))
WANTED = (SLICES, Sizes(Range(1, 1, 2), Range(64, 512, 1024)))


def test_the_inputs_of_a_network_are_read_with_their_open_axes() -> None:
    assert input_specs(networks.adjacent_denoiser()) == (TensorSpec("image", (None, 3, None, None)),)


def test_there_is_a_profile_for_slices_of_ct_and_one_for_all_else() -> None:
    slices, others = profiles_of(networks.denoiser(channels=2, layers=3))
    assert str(slices) == "image from 1 x 1 x 512 x 512 to 4 x 1 x 512 x 512"
    assert str(others) == "image from 1 x 1 x 16 x 16 to 2 x 1 x 1152 x 1152"


def test_a_network_that_halves_its_images_is_built_for_multiples() -> None:
    nodes, value = [], "image"
    for level in range(6):  # 64 becomes 1, and is grown and joined again
        nodes.append(helper.make_node("MaxPool", [value], [f"p{level}"], kernel_shape=[2, 2], strides=[2, 2]))
        value = f"p{level}"
    scales = numpy_helper.from_array(np.array([1, 1, 64, 64], np.float32), "scales")
    nodes.append(helper.make_node("Resize", [value, "", "scales"], ["grown"], mode="nearest"))
    nodes.append(helper.make_node("Concat", ["image", "grown"], ["joined"], axis=1))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "h", "w"])
    joined = helper.make_tensor_value_info("joined", TensorProto.FLOAT, ["n", 2, "h", "w"])
    graph = helper.make_graph(nodes, "pyramid", [image], [joined], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert other_sizes(model.SerializeToString()).side.low == 64


def test_a_network_that_fixes_its_shape_has_one_profile() -> None:
    (only,) = plan_profiles([TensorSpec("image", (1, 1, 256, 256))], WANTED)
    assert only.of("image") == ((1, 1, 256, 256), (1, 1, 256, 256))
    assert open_axes([only]) == {"image": (None, 1, 256, 256)}


@pytest.mark.parametrize("shape", [(None, None, None, None), (None, 3), ()])
def test_what_is_no_image_is_refused(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(RuntimeFailedError, match="channels"):
        plan_profiles([TensorSpec("x", shape)], WANTED)


@pytest.mark.parametrize(
    ("shape", "number"), [((1, 1, 512, 512), 0), ((300, 1, 512, 512), 0), ((1, 1, 512, 511), 1), ((9, 1, 64, 1024), 1)]
)
def test_the_narrowest_profile_serves(shape: tuple[int, ...], number: int) -> None:
    assert fitting(plan_profiles([IMAGE], WANTED), {"image": shape}) == number


@pytest.mark.parametrize("shape", [(1, 1, 63, 512), (1, 1, 512, 1025), (1, 1, 2048, 2048)])
def test_a_shape_outside_says_what_was_given_and_what_was_built(shape: tuple[int, ...]) -> None:
    with pytest.raises(EngineInputError) as refused:
        fitting(plan_profiles([IMAGE], WANTED), {"image": shape})
    assert " x ".join(map(str, shape)) in str(refused.value)
    assert "64 x 64 to 2 x 1 x 1024 x 1024" in str(refused.value)
    assert refused.value.hint


def test_open_axes_are_those_that_differ() -> None:
    assert open_axes(plan_profiles([IMAGE], WANTED)) == {"image": (None, 1, None, None)}


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 64))
def test_pieces_are_the_batch_in_order_and_none_is_too_large(batch: int, largest: int) -> None:
    cuts = pieces(batch, largest)
    assert [index for cut in cuts for index in range(batch)[cut]] == list(range(batch))
    sizes = [cut.stop - cut.start for cut in cuts]
    assert max(sizes) <= largest
    assert len(cuts) >= min(batch, 2)
    assert len(set(sizes[:-1])) <= 1
