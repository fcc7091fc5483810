"""A float32 network rewritten for float16 and bfloat16: its types hold together, and it gives nearly the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from dicomnode.testing import networks
from dicomnode.testing.runtimes import image
from engines.card import Precision
from engines.errors import RuntimeFailedError
from engines.runtimes.tensorrt.precision import retype
from engines.runtimes.tensorrt.profiles import input_specs
from engines.runtimes.tensorrt.selftest import Load, made_network

NETWORKS = {
    "half resolution": networks.denoiser(channels=8, layers=3),
    "dilated, two skips": networks.dilated_denoiser(channels=8),
    "adjacent slices": networks.adjacent_denoiser(),
    "two outputs": networks.two_outputs(),
    "another grid": networks.super_resolver(),
    "three inputs": networks.segmenter(inputs=3),
    "boxes": networks.detector(),
    "numbers": networks.predictor(),
    "self-test": made_network(Load(channels=8, layers=3)),
}
LOW: tuple[Precision, ...] = ("float16", "bfloat16")


def network(nodes: list[Any], weights: dict[str, Any], outputs: tuple[str, ...] = ("y",)) -> bytes:
    shape = ["n", 2, "h", "w"]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs]
    initial = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "made", [image], given, initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def conv(taken: str, given: str, weights: str = "w") -> Any:
    return helper.make_node("Conv", [taken, weights], [given], name=f"conv {given}", pads=[1] * 4)


def kernel(scale: float = 0.1) -> Any:
    return np.random.default_rng(0).normal(0, scale, (2, 2, 3, 3)).astype(np.float32)


def run(model: bytes, tensors: dict[str, Any]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, tensors), strict=True))


def run_openvino(model: bytes, tensors: dict[str, Any]) -> dict[str, Any]:
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [value.name for value in onnx.load_model_from_string(model).graph.output]
    return dict(zip(names, compiled(tensors).values(), strict=True))


def types(model: bytes) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(
        onnx.load_model_from_string(model), check_type=True, strict_mode=True
    ).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    return {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_types_hold_together_and_both_ends_stay_float32(name: str, precision: Precision) -> None:
    """ONNX's own checker finds what a strongly typed parser would: two types at one operator."""
    retyped = retype(NETWORKS[name], precision)
    model = onnx.load_model_from_string(retyped.model)
    onnx.checker.check_model(model, full_check=True)
    found = types(retyped.model)
    ends = [value.name for value in (*model.graph.input, *model.graph.output)]
    assert {found[end] for end in ends} == {TensorProto.FLOAT}
    low = TensorProto.FLOAT16 if precision == "float16" else TensorProto.BFLOAT16
    assert {found[node.output[0]] for node in model.graph.node if node.op_type == "Conv"} == {low}
    kept = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    convs = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input}
    assert convs.isdisjoint(kept)


@pytest.mark.parametrize(("precision", "bound"), [("float16", 4e-3), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_gives_nearly_the_same(name: str, precision: Precision, bound: float) -> None:
    """Computed on a processor, in the types that the file has: float16 by ONNX Runtime, bfloat16 by OpenVINO."""
    compute = run if precision == "float16" else run_openvino
    taken = input_specs(NETWORKS[name])
    given = {spec.name: image(2, 64, 64, spec.shape[1] or 1, seed=1) for spec in taken}
    expected, found = run(NETWORKS[name], given), compute(retype(NETWORKS[name], precision).model, given)
    assert expected.keys() == found.keys()
    for output, values in expected.items():
        assert found[output].dtype == np.float32
        different = np.abs(found[output] - values) > bound * max(1.0, float(np.abs(values).max()))
        assert different.mean() < 0.002, output  # a threshold may fall the other way


def test_float32_is_left_as_it_is() -> None:
    retyped = retype(NETWORKS["two outputs"], "float32")
    assert retyped.model == NETWORKS["two outputs"]
    assert retyped.kept == ()


def test_what_adds_the_input_itself_stays_in_float32() -> None:
    """HU / 1000 up to 3 in float16 is rounded to 2 HU: the image must not pass through it."""
    model = network([conv("x", "r"), helper.make_node("Sub", ["x", "r"], ["y"], name="residual")], {"w": kernel(1e-3)})
    retyped = retype(model, "float16")
    assert retyped.kept == ("Sub residual",)
    bone = np.random.default_rng(1).uniform(2.0, 3.0, (1, 2, 16, 16)).astype(np.float32)
    apart = np.abs(run(retyped.model, {"x": bone})["y"] - run(model, {"x": bone})["y"]).max()
    assert apart < 1e-4


def test_an_operator_that_is_not_known_stays_in_float32_between_casts() -> None:
    nodes = [conv("x", "a"), helper.make_node("Softmax", ["a"], ["b"], name="soft", axis=1), conv("b", "y")]
    retyped = retype(network(nodes, {"w": kernel()}), "float16")
    assert retyped.kept == ("Softmax soft",)
    assert types(retyped.model)["b"] == TensorProto.FLOAT
    operators = [node.op_type for node in onnx.load_model_from_string(retyped.model).graph.node]
    assert operators == ["Cast", "Conv", "Cast", "Softmax", "Cast", "Conv", "Cast"]


def test_weights_that_float16_cannot_hold_keep_their_operator_in_float32() -> None:
    weights = kernel()
    weights[0, 0, 0, 0] = 7e4
    model = network([conv("x", "y")], {"w": weights})
    assert retype(model, "float16").kept == ("Conv conv y",)
    assert retype(model, "bfloat16").kept == ()


def test_an_output_that_is_used_inside_too_leaves_in_float32() -> None:
    model = network([conv("x", "y"), conv("y", "z")], {"w": kernel()}, ("y", "z"))
    retyped = retype(model, "float16")
    ones = np.ones((1, 2, 8, 8), np.float32)
    for name, values in run(model, {"x": ones}).items():
        assert np.abs(run(retyped.model, {"x": ones})[name] - values).max() < 1e-2


def test_scales_of_a_resize_stay_float32_as_onnx_wants_them() -> None:
    nodes = [conv("x", "a"), helper.make_node("Resize", ["a", "", "s"], ["y"], name="twice", mode="nearest")]
    retyped = retype(network(nodes, {"w": kernel(), "s": np.array([1, 1, 2, 2], np.float32)}), "float16")
    assert retyped.kept == ()
    assert run(retyped.model, {"x": np.ones((1, 2, 4, 4), np.float32)})["y"].shape == (1, 2, 8, 8)


def test_one_weight_that_two_types_want_is_there_twice() -> None:
    nodes = [conv("x", "a"), helper.make_node("Mul", ["a", "k"], ["b"]), helper.make_node("Pow", ["b", "k"], ["y"])]
    model = onnx.load_model_from_string(retype(network(nodes, {"w": kernel(), "k": np.float32(2)}), "float16").model)
    assert sorted(tensor.data_type for tensor in model.graph.initializer) == [
        TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT16,
    ]  # fmt: skip


def test_bfloat16_is_written_in_an_opset_that_has_it() -> None:
    model = onnx.load_model_from_string(retype(NETWORKS["half resolution"], "bfloat16").model)
    assert [opset.version for opset in model.opset_import] == [22]


def test_what_is_not_rewritten_is_refused() -> None:
    with pytest.raises(RuntimeFailedError, match="int8"):
        retype(NETWORKS["two outputs"], "int8")
    then = helper.make_graph([helper.make_node("Neg", ["x"], ["t"])], "then", [], [_value("t")])
    other = helper.make_graph([helper.make_node("Abs", ["x"], ["e"])], "else", [], [_value("e")])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    with pytest.raises(RuntimeFailedError, match="branches") as refused:
        retype(network([branch], {"c": np.array(True)}), "float16")
    assert refused.value.hint


def _value(name: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
