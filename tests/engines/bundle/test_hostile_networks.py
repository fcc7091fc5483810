"""What an ONNX file must be before any runtime sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.bundle.networks import OPSETS, check_network
from engines.card import Stage, TensorInput, TensorOutput
from engines.errors import BundleError

STAGE = Stage("net.onnx", (TensorInput("x", "image", adjacent=1),), (TensorOutput("y", "image"),))


def network() -> onnx.ModelProto:
    """Three channels in, one out: a convolution."""
    weights = numpy_helper.from_array(np.zeros((1, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "r", "c"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, "r", "c"])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _custom(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.evil", version=1)
    model.graph.node[0].domain = "com.evil"


def _hidden(model: onnx.ModelProto) -> None:
    """An operator of its own in a branch of an If."""
    node = helper.make_node("Own", ["x"], ["z"], domain="ai.onnx.ml")
    branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
    condition = numpy_helper.from_array(np.array(True), "condition")
    model.graph.initializer.append(condition)
    model.graph.node.append(helper.make_node("If", ["condition"], ["v"], then_branch=branch, else_branch=branch))


def _opset(version: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def _output(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = "z"
    model.graph.output[0].name = "z"


def _three_axes(model: onnx.ModelProto) -> None:
    model.graph.node[0].CopyFrom(helper.make_node("Identity", ["x"], ["y"]))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "r"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, "r"]))


def _drawing(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = "z"
    model.graph.node.append(helper.make_node("RandomNormalLike", ["z"], ["y"]))


def _one_slice(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _two_axes(model: onnx.ModelProto) -> None:
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1]))


def test_a_network_as_the_card_says_is_taken() -> None:
    check_network(network().SerializeToString(), STAGE)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_external, "net.onnx"),
        (_custom, "com.evil"),
        (_hidden, "net.onnx"),
        (_opset(OPSETS[0] - 1), f"opset {OPSETS[0] - 1}"),
        (_opset(OPSETS[-1] + 1), f"opset {OPSETS[-1] + 1}"),
        (_output, "has the outputs z; the card says y"),
        (_three_axes, "x has 3 axes"),
        (_two_axes, "y has 2 axes"),
        (_one_slice, "x is for a batch of 1"),
        (_drawing, "draws numbers"),
        (lambda model: model.graph.ClearField("node"), "no ONNX model"),
    ],
)
def test_any_other_is_refused(spoil: Callable[[onnx.ModelProto], None], message: str) -> None:
    model = network()
    spoil(model)
    with pytest.raises(BundleError) as error:
        check_network(model.SerializeToString(), STAGE)
    assert message in str(error.value)
    assert error.value.hint


def test_channels_are_counted() -> None:
    with pytest.raises(BundleError, match="3 channels, the card gives it 1"):
        check_network(network().SerializeToString(), replace(STAGE, inputs=(TensorInput("x", "image"),)))
    several = tuple(TensorInput("x", name) for name in ("a", "b", "c"))
    check_network(network().SerializeToString(), replace(STAGE, inputs=several))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04", bytes(range(256))])
def test_what_is_no_onnx_at_all_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match="no ONNX model"):
        check_network(content, STAGE)
