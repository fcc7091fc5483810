"""A float32 network rewritten for float16 or bfloat16: TensorRT computes each tensor in the type it has in the file.

Inputs and outputs stay float32; there is a Cast at the entry and at the exit. Operators of `LOWERED` are computed in
the lower type, all others stay in float32 between two Casts, and `Retyped.kept` names them. Two rules keep Hounsfield
units apart from each other, which float16 cannot where they are large (one part in 2048): an operator that adds the
network's input itself to something, or takes it away, stays in float32; and so does one whose weights float16 cannot
hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.card import Precision
from engines.errors import RuntimeFailedError

RECIPE: Final = 1
"""Counts up with every change of what comes out: plans made by another recipe are built anew."""

# fmt: off
LOWERED: Final = frozenset({
    "Abs", "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Div", "Elu", "Flatten",
    "Gemm", "GlobalAveragePool", "HardSigmoid", "Identity", "LeakyRelu", "MatMul", "Max", "MaxPool", "Min", "Mul",
    "Neg", "PRelu", "Pad", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub",
    "Tanh", "Transpose", "Unsqueeze",
})
# fmt: on
"""Operators that give the type that they take, and lose little by it."""

_SKIPS: Final = frozenset({"Add", "Sub"})
_ANY_TYPE: Final = frozenset({"Cast", "Shape", "Size"})  # take any type; what they give does not change with it
_FLOAT32_INPUTS: Final = {"Resize": frozenset({1, 2})}  # regions and scales, ONNX: float32 whatever is resized

_FLOAT: Final = 1  # TensorProto.FLOAT, FLOAT16 and BFLOAT16
_TYPES: Final = {"float16": 10, "bfloat16": 16}
_LARGEST: Final = {"float16": 65504.0, "bfloat16": 3.3895e38}
_LOWEST_OPSET: Final = {"float16": 13, "bfloat16": 22}


@dataclass(frozen=True)
class Retyped:
    """kept: what is left in float32, as `operator name`."""

    model: bytes
    kept: tuple[str, ...] = ()


def retype(model: bytes, precision: Precision) -> Retyped:
    """The ONNX file so that a strongly typed build computes in `precision`.

    Raises RuntimeFailedError for int8, for a network with branches or loops, and where ONNX finds the types at odds.
    """
    if precision == "float32":
        return Retyped(model)
    if precision not in _TYPES:
        raise RuntimeFailedError(f"TensorRT is not given networks in {precision}", "float32, float16 and bfloat16 are")
    import onnx

    loaded = _of_opset(onnx.load_model_from_string(model), _LOWEST_OPSET[precision])
    rewriting = _Rewriting(loaded.graph, _float_names(loaded), precision)
    nodes = list(rewriting.nodes())
    del loaded.graph.node[:], loaded.graph.value_info[:]
    loaded.graph.node.extend(nodes)
    _drop_unused(loaded.graph)
    try:
        onnx.checker.check_model(loaded, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        text = str(error).splitlines()[0][:200]
        raise RuntimeFailedError(f"the network cannot be written in {precision}: {text}", "use float32") from None
    return Retyped(loaded.SerializeToString(), tuple(rewriting.kept))


def _of_opset(model: Any, lowest: int) -> Any:
    """The model in an opset that has the type. Operators take bfloat16 from opset 22 on."""
    import onnx

    if any(attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute):
        raise RuntimeFailedError("the network has branches or loops, which are not rewritten", "use float32")
    own = [opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    return model if own[0] >= lowest else onnx.version_converter.convert_version(model, lowest)


def _float_names(model: Any) -> set[str]:
    """All float32 tensors of the network."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    names = {value.name for value in values if value.type.tensor_type.elem_type == _FLOAT}
    return names | {tensor.name for tensor in graph.initializer if tensor.data_type == _FLOAT}


class _Rewriting:
    """One pass over the nodes, which ONNX keeps in the order of computation."""

    def __init__(self, graph: Any, floats: set[str], precision: Precision) -> None:
        self.kept: list[str] = []
        self._graph = graph
        self._floats = floats
        self._precision = precision
        self._low = _TYPES[precision]
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._inputs = {value.name for value in graph.input} - self._weights.keys()
        self._outputs = {value.name for value in graph.output}
        self._lowered: set[str] = set()  # tensors that are computed in the lower type
        self._copies: dict[tuple[str, int], str] = {}

    def nodes(self) -> Iterator[Any]:
        for node in self._graph.node:
            lower = self._is_lowered(node)
            if not lower and node.op_type not in _ANY_TYPE and self._touches_floats(node):
                self.kept.append(f"{node.op_type} {node.name or node.output[0]}")
            yield from self._with_inputs(node, lower)
            yield node
            yield from self._with_outputs(node, lower)

    def _is_lowered(self, node: Any) -> bool:
        if node.op_type not in LOWERED or not self._touches_floats(node):
            return False
        if node.op_type in _SKIPS and not self._inputs.isdisjoint(node.input):
            return False
        return all(self._holds(name) for name in node.input if name in self._weights)

    def _touches_floats(self, node: Any) -> bool:
        return not self._floats.isdisjoint((*node.input, *node.output))

    def _holds(self, name: str) -> bool:
        tensor = self._weights[name]
        return name not in self._floats or _peak(tensor) <= _LARGEST[self._precision]

    def _with_inputs(self, node: Any, lower: bool) -> Iterator[Any]:
        """Casts that the node needs before it, with its inputs renamed to what they give."""
        if node.op_type in _ANY_TYPE:
            return
        stay = _FLOAT32_INPUTS.get(node.op_type, frozenset())
        for index, name in enumerate(node.input):
            if name not in self._floats:
                continue
            wanted = self._low if lower and index not in stay else _FLOAT
            if wanted == (self._low if name in self._lowered else _FLOAT):
                continue
            if (name, wanted) not in self._copies:
                self._copies[name, wanted] = f"{name}__as_{self._precision if wanted == self._low else 'float32'}"
                yield from self._copy(name, wanted)
            node.input[index] = self._copies[name, wanted]

    def _copy(self, name: str, wanted: int) -> Iterator[Any]:
        copy = self._copies[name, wanted]
        if name in self._weights:
            self._graph.initializer.append(_converted(self._weights[name], copy, wanted))
        else:
            yield _cast(name, copy, wanted)

    def _with_outputs(self, node: Any, lower: bool) -> Iterator[Any]:
        """Marks what the node gives, and casts at once what leaves the network."""
        if not lower:
            return
        for index, name in enumerate(node.output):
            if name not in self._floats:
                continue
            self._lowered.add(name)
            if name in self._outputs:
                inner = f"{name}__as_{self._precision}"
                node.output[index] = self._copies[name, self._low] = inner
                self._lowered.discard(name)  # under its own name it is the float32 that leaves
                yield _cast(inner, name, _FLOAT)


def _cast(name: str, copy: str, wanted: int) -> Any:
    from onnx import helper

    return helper.make_node("Cast", [name], [copy], name=f"cast {copy}", to=wanted)


def _converted(tensor: Any, name: str, wanted: int) -> Any:
    """Weights in another type, rounded to the nearest."""
    from onnx import helper, numpy_helper

    values: NDArray[np.float32] = numpy_helper.to_array(tensor)
    return numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(wanted)), name)


def _peak(tensor: Any) -> float:
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    return float(np.abs(values).max()) if values.size else 0.0


def _drop_unused(graph: Any) -> None:
    """Weights that only their copies in another type are left of; old files name weights among the inputs too."""
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    unused = {tensor.name for tensor in graph.initializer} - used
    for entries in (graph.initializer, graph.input):
        left = [entry for entry in entries if entry.name not in unused]
        del entries[:]
        entries.extend(left)
