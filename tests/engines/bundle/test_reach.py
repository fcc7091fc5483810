"""How far a network looks: told from its graph, and seen by disturbing one column of its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dicomnode.testing.bundles import made
from engines.bundle.reach import Reach, reach_of
from engines.card import Stage, TensorInput, TensorOutput

Node = onnx.NodeProto
SIDE = 64


def stage(multiple_px: int = 1) -> Stage:
    return Stage("net.onnx", (TensorInput("x", "image"),), (TensorOutput("y", "image"),), multiple_px=multiple_px)


def network(nodes: Sequence[Node], constants: dict[str, np.ndarray]) -> bytes:
    """From x to y; each constant is a tensor of that name."""
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("b", 1, "h", "w"))
    given_ = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("b", "c", "i", "j"))
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "made", [taken], [given_], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def seen(content: bytes) -> int:
    """How far a disturbed column is seen, at each column in turn: beyond the pixels of the output that it covers."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    plain = np.zeros((1, 1, 8, SIDE), np.float32)
    before = session.run(None, {"x": plain})[0]
    farthest = 0
    for column in range(SIDE):
        disturbed = plain.copy()
        disturbed[..., column] = 1.0
        changed = np.flatnonzero(np.any(session.run(None, {"x": disturbed})[0] != before, axis=(0, 1, 2)))
        begin = changed * SIDE // before.shape[-1]
        end = np.maximum(begin, -(-(changed + 1) * SIDE // before.shape[-1]) - 1)
        farthest = max([farthest, *(column - end), *(begin - column)])
    return int(farthest)


LAYERS = st.lists(
    st.tuples(st.sampled_from(["Conv", "MaxPool", "Down", "Up", "Resize", "Linear", "Reflect"]), st.integers(1, 3)),
    min_size=1,
    max_size=4,
)


def _layer(kind: str, number: int, value: str, size: int) -> tuple[list[Node], dict[str, np.ndarray]]:
    """One layer that keeps its length, or halves or doubles it; only positive weights, so that nothing cancels."""
    result, weight = f"v{number}", f"w{number}"
    if kind == "Conv":  # an odd kernel of 2 * size + 1, dilated by 2
        kernel = {weight: np.ones((1, 1, 1, 2 * size + 1), np.float32)}
        pads = [0, 2 * size, 0, 2 * size]
        return [helper.make_node("Conv", [value, weight], [result], pads=pads, dilations=[1, 2])], kernel
    if kind == "MaxPool":
        pads = [0, size, 0, size]
        return [helper.make_node("MaxPool", [value], [result], kernel_shape=[1, 2 * size + 1], pads=pads)], {}
    if kind == "Down":
        kernel = {weight: np.ones((1, 1, 1, 2), np.float32)}
        return [helper.make_node("Conv", [value, weight], [result], strides=[1, 2])], kernel
    if kind == "Up":
        kernel = {weight: np.ones((1, 1, 1, 2 + 2 * (size - 1)), np.float32)}
        pads = [0, size - 1, 0, size - 1]
        return [helper.make_node("ConvTranspose", [value, weight], [result], strides=[1, 2], pads=pads)], kernel
    if kind == "Reflect":
        pads_ = {weight: np.array([0, 0, 0, size, 0, 0, 0, size], np.int64)}
        kernel = {f"k{number}": np.ones((1, 1, 1, 2 * size + 1), np.float32)}
        padded = helper.make_node("Pad", [value, weight], [f"p{number}"], mode="reflect")
        return [padded, helper.make_node("Conv", [f"p{number}", f"k{number}"], [result])], pads_ | kernel
    mode = {"mode": "linear"} if kind == "Linear" else {"mode": "nearest", "nearest_mode": "floor"}
    transformation = "half_pixel" if kind == "Linear" else "asymmetric"
    scales = {weight: np.array([1, 1, 1, 2], np.float32)}
    node = helper.make_node(
        "Resize", [value, "", weight], [result], coordinate_transformation_mode=transformation, **mode
    )
    return [node], scales


@settings(max_examples=30, deadline=None)
@given(LAYERS)
@example([("Down", 1), ("Down", 1), ("Resize", 1)])
def test_what_the_graph_tells_is_what_is_seen(layers: list[tuple[str, int]]) -> None:
    nodes: list[Node] = []
    constants: dict[str, np.ndarray] = {}
    value = "x"
    for number, (kind, size) in enumerate(layers):
        more, weights = _layer(kind, number, value, size)
        nodes += more
        constants |= weights
        value = f"v{number}"
    content = network([*nodes, helper.make_node("Identity", [value], ["y"])], constants)
    told = reach_of(content, stage(16))
    assert told.px is not None
    found = seen(content)
    assert found <= told.px <= found + 2 * ("Resize" in dict(layers))


def test_a_skip_and_a_sum_look_as_far_as_the_farther_of_both() -> None:
    weights = {"w": np.ones((1, 1, 5, 5), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["near"], pads=[2, 2, 2, 2]),
        helper.make_node("Conv", ["near", "w"], ["far"], pads=[6, 6, 6, 6], dilations=[3, 3]),
        helper.make_node("Concat", ["x", "far"], ["both"], axis=1),
        helper.make_node("ReduceSum", ["both"], ["y"], keepdims=1),
    ]
    axis = {"axis": np.array([1], np.int64)}
    nodes[-1].input.append("axis")
    assert reach_of(network(nodes, weights | axis), stage()) == Reach(8)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("GlobalAveragePool", ["x"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])],
        [helper.make_node("InstanceNormalization", ["x", "one", "one"], ["y"])],
        [helper.make_node("ReduceMean", ["x", "axes"], ["m"]), helper.make_node("Mul", ["x", "m"], ["y"])],
    ],
)
def test_what_looks_at_the_whole_slice_is_told(nodes: list[Node]) -> None:
    constants: dict[str, np.ndarray] = {"one": np.ones(1, np.float32), "axes": np.array([2, 3], np.int64)}
    assert reach_of(network(nodes, constants), stage()).is_whole


@pytest.mark.parametrize("kind", ["Flatten", "Transpose", "NonZero"])
def test_what_cannot_be_followed_is_named(kind: str) -> None:
    told = reach_of(network([helper.make_node(kind, ["x"], ["y"])], {}), stage())
    assert told == Reach(None, kind)
    assert not told.is_whole


def test_a_branch_is_not_followed() -> None:
    """It takes what is outside of it, without naming it as an input."""
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, ("b", "c", "i", "j"))
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["r"])], "branch", [], [result])
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    assert reach_of(network([node], {"yes": np.array(True)}), stage()) == Reach(None, "If")


def test_a_graph_that_takes_for_ever_is_given_up() -> None:
    weights = {"w": np.ones((1, 1, 1, 1501), np.float32)}
    nodes = [helper.make_node("Conv", [f"v{number}", "w"], [f"v{number + 1}"], pads=[0, 750, 0, 750])
             for number in range(60)]  # fmt: skip
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    assert reach_of(network(nodes, weights), stage()).unknown


HUGE = 2**62
WEIGHTS = {"w": np.ones((1, 1, 3, 3), np.float32)}


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "MaxPool"])
@pytest.mark.parametrize("name", ["strides", "dilations", "kernel_shape"])
@pytest.mark.parametrize("size", [0, -1, HUGE])
def test_sizes_that_are_none_are_not_followed(kind: str, name: str, size: int) -> None:
    said: dict[str, Any] = ({"kernel_shape": [3, 3]} if kind == "MaxPool" else {}) | {name: [size, size]}
    node = helper.make_node(kind, ["x"] if kind == "MaxPool" else ["x", "w"], ["y"], **said)
    assert reach_of(network([node], WEIGHTS), stage()).unknown == "sizes out of bounds"


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=0),
        helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=0),
        helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", dilations=[HUGE, HUGE]),
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[HUGE, HUGE, -HUGE, -HUGE]),
        helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[200_000] * 2, auto_pad="SAME_UPPER"),
    ],
)
def test_blocks_paddings_and_kernels_out_of_bounds_are_not_followed(node: Node) -> None:
    assert reach_of(network([node], WEIGHTS), stage()).unknown == "sizes out of bounds"


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -2.0, 0.0])
def test_a_scale_that_is_none_is_not_followed(scale: float) -> None:
    scales = {"s": np.array([1, 1, scale, scale], np.float32)}
    assert reach_of(network([helper.make_node("Resize", ["x", "", "s"], ["y"])], scales), stage()).unknown == "Resize"


@pytest.mark.parametrize(
    ("kind", "constants"),
    [
        ("Resize", {"": None, "s": np.array(["a", "b", "c", "d"], object)}),
        ("Pad", {"p": np.array([0, 0, np.nan, 0, 0, 0, 0, 0], np.float32)}),
        ("ReduceSum", {"a": np.array([np.nan], np.float32)}),
        ("Slice", {"a": np.array([0]), "b": np.array([9]), "c": np.array([2]), "d": np.array([0])}),
        ("Slice", {"a": np.array([0]), "b": np.array([9]), "c": np.array([2, 3])}),
        ("Slice", {"a": np.array([np.nan], np.float32), "b": np.array([9]), "c": np.array([2])}),
    ],
)
def test_constants_that_fit_nothing_are_not_followed(kind: str, constants: dict[str, np.ndarray | None]) -> None:
    node = helper.make_node(kind, ["x", *constants], ["y"])
    given_ = {name: value for name, value in constants.items() if value is not None}
    assert reach_of(network([node], given_), stage()).unknown == kind


def test_an_operator_of_another_domain_is_not_followed() -> None:
    """Nothing knows what its attributes must be."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides="ab", domain="other")
    model = onnx.load_model_from_string(network([node], WEIGHTS))
    model.opset_import.append(helper.make_opsetid("other", 1))
    assert reach_of(model.SerializeToString(), stage()).unknown == "other.Conv"


def test_an_attribute_that_refers_to_a_function_is_not_followed() -> None:
    model = onnx.load_model_from_string(network([helper.make_node("Conv", ["x", "w"], ["y"], strides=[1, 1])], WEIGHTS))
    attribute = model.graph.node[0].attribute[0]
    del attribute.ints[:]
    attribute.ref_attr_name = "caller"
    assert reach_of(model.SerializeToString(), stage()).unknown == "Conv"


def test_a_network_without_inputs_looks_nowhere() -> None:
    model = onnx.load_model_from_string(network([helper.make_node("Identity", ["w"], ["y"])], WEIGHTS))
    del model.graph.input[:]
    assert reach_of(model.SerializeToString(), stage()) == Reach(0)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[30_000] * 2, auto_pad="SAME_UPPER")],
        [helper.make_node("Concat", ["x"] * 50_000, ["y"], axis=1)],
    ],
)
def test_a_graph_of_many_short_looks_is_given_up(nodes: list[Node]) -> None:
    """Each costs time, however few places it is for."""
    assert reach_of(network(nodes, {}), stage()).unknown == "so many operators"


def test_made_bundles_say_how_far_they_look() -> None:
    for shape in ("denoise", "denoise-large", "adjacent", "two-stages", "super-resolution", "segment-marked", "detect"):
        for one in made(shape).card.stages:
            told = reach_of(made(shape).networks[one.file], one)
            assert told.px is not None and told.px <= one.halo_px, shape
