"""What a network costs, counted from its file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from engines.errors import EngineInputError

_MULTIPLYING: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def gflop(content: bytes, sizes: Mapping[str, Sequence[int]]) -> float:
    """10^9 operations of one run: two for each multiplication of convolutions and matrices; the rest is not counted.

    content  an ONNX file
    sizes    lengths of the axes of each of its inputs
    Raises EngineInputError where the sizes of what is inside cannot be told from that.
    """
    import onnx  # slow, and needed only to count

    model = onnx.load_model_from_string(content)
    _set_sizes(model.graph, sizes)
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise EngineInputError(f"the network does not take such sizes ({str(error)[:100]!r})", "see its card") from None
    known = {value.name: _lengths(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    known |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    try:
        return sum(_multiplications(node, known) for node in graph.node if node.op_type in _MULTIPLYING) * 2e-9
    except KeyError as error:
        raise EngineInputError(
            f"the size of {str(error)[:60]} inside the network is not known", "see its card"
        ) from None


def _set_sizes(graph: Any, sizes: Mapping[str, Sequence[int]]) -> None:
    """Sizes of inputs as given; those of all else forgotten, since names of axes would hide what is known now."""
    for value in graph.input:
        for axis, length in zip(value.type.tensor_type.shape.dim, sizes.get(value.name, ()), strict=False):
            axis.dim_value = length
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


def _lengths(value: Any) -> list[int]:
    return [int(axis.dim_value) for axis in value.type.tensor_type.shape.dim]


def _multiplications(node: Any, known: Mapping[str, Sequence[int]]) -> int:
    taken, weights, given = known[node.input[0]], known[node.input[1]], known[node.output[0]]
    if node.op_type == "Conv":
        return math.prod(given) * math.prod(weights[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(taken) * math.prod(weights[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(given) * taken[-2 if transposed else -1]
