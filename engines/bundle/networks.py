"""What the ONNX files of a bundle must be before any runtime sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from engines.card import Stage
from engines.errors import BundleError

OPSETS: Final = range(13, 24)
"""Opsets of ONNX's own domain that all runtimes here take."""

OWN_DOMAINS: Final = ("", "ai.onnx")
_FLOAT32: Final = 1
"""TensorProto.FLOAT"""
_EXTERNAL: Final = 1
"""TensorProto.EXTERNAL"""
_INT8: Final = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QuantizeLinear"}
)
"""Operators that compute in int8, whatever a runtime is asked for."""
_DRAWING: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Operators that draw numbers: what is derived must be the same again."""


def check_network(content: bytes, stage: Stage, *, quantised: bool = False) -> None:
    """Raises BundleError where an ONNX file is malformed, brings operators or data of its own from elsewhere, or does
    not have the inputs and outputs that the card says.

    quantised  whether the card says that it computes in int8
    """
    model = parsed(content, stage.file)
    _check_operators(model, stage.file)
    if quantised != any(node.op_type in _INT8 for node in _nodes(model.graph)):
        found = "not quantised" if quantised else "quantised"
        raise BundleError(f"{stage.file} is {found}", 'a card has precisions = ["int8"] where all its networks are')
    _check_constants(model, stage.file)
    _check_inputs(model.graph, stage)
    _check_outputs(model.graph, stage)


def names_of(content: bytes, file: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a network calls its inputs and its outputs; raises BundleError where it is none."""
    graph = parsed(content, file).graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = tuple(value.name for value in graph.input if value.name not in constants)
    return inputs, tuple(value.name for value in graph.output)


def channels_of(content: bytes, stage: Stage) -> dict[str, int]:
    """How many channels each output of a network has, as its file says; 0 where it leaves that open."""
    outputs = parsed(content, stage.file).graph.output
    shapes = {value.name: _shape(stage.file, value.name, value.type) for value in outputs}
    return {name: shape[1] if len(shape) > 1 else 0 for name, shape in shapes.items()}


def parsed(content: bytes, file: str) -> Any:
    """A model that ONNX's own checker passes; raises BundleError. What a bundle may not have is for `check_network`."""
    import onnx  # slow, and needed only where a bundle is taken in

    try:
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, TypeError, MemoryError) as error:
        raise BundleError(f"{file} is no ONNX model ({type(error).__name__})", "export it again") from None
    except Exception as error:
        if type(error).__module__ != "google.protobuf.message":
            raise
        raise BundleError(f"{file} is no ONNX model", "export it again") from None
    return model


def _check_operators(model: Any, file: str) -> None:
    for opset in model.opset_import:
        if opset.domain not in OWN_DOMAINS:
            raise BundleError(f"{file} uses operators of {opset.domain[:60]!r}", "only ONNX's own are computed")
        if opset.version not in OPSETS:
            bounds = f"{OPSETS[0]} to {OPSETS[-1]}"
            raise BundleError(f"{file} is of opset {opset.version}", f"export it with an opset from {bounds}")
    if model.functions:
        raise BundleError(f"{file} brings functions of its own", "inline them (onnx.inliner) and export it again")
    for node in _nodes(model.graph):
        if node.domain not in OWN_DOMAINS:
            raise BundleError(f"{file} uses operators of {node.domain[:60]!r}", "only ONNX's own are computed")
        if node.op_type in _DRAWING:
            raise BundleError(f"{file} draws numbers ({node.op_type})", "the same image must give the same again")


def _check_constants(model: Any, file: str) -> None:
    tensors = [*model.graph.initializer, *(tensor for node in _nodes(model.graph) for tensor in _tensors(node))]
    for graph in (graph for node in _nodes(model.graph) for graph in _subgraphs(node)):
        tensors.extend(graph.initializer)
    if any(tensor.data_location == _EXTERNAL or tensor.external_data for tensor in tensors):
        raise BundleError(f"{file} keeps its weights in another file", "save it with the weights inside")


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of branches and loops too."""
    for node in graph.node:
        yield node
        for subgraph in _subgraphs(node):
            yield from _nodes(subgraph)


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _check_inputs(graph: Any, stage: Stage) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    found = {value.name: value.type for value in graph.input if value.name not in constants}
    channels: Counter[str] = Counter()
    for entry in stage.inputs:
        channels[entry.tensor] += 2 * entry.adjacent + 1
    _check_names(stage.file, "inputs", set(found), set(channels))
    for name, count in channels.items():
        shape = _shape(stage.file, name, found[name])
        _check_axes(stage.file, name, shape)
        if shape[0] != 0:
            raise BundleError(f"{stage.file}: {name} is for a batch of {shape[0]}", "export it with an open batch")
        if shape[1] not in (0, count):
            raise BundleError(f"{stage.file}: {name} has {shape[1]} channels, the card gives it {count}", "change one")


def _check_outputs(graph: Any, stage: Stage) -> None:
    found = {value.name: value.type for value in graph.output}
    _check_names(stage.file, "outputs", set(found), {entry.tensor for entry in stage.outputs})
    for name, kind in found.items():
        shape = _shape(stage.file, name, kind)
        if shape:  # a network need not say what it gives
            _check_axes(stage.file, name, shape)


def _check_axes(file: str, name: str, shape: list[int]) -> None:
    if len(shape) != 4:
        raise BundleError(f"{file}: {name} has {len(shape)} axes", "it must be (batch, channels, rows, columns)")


def _check_names(file: str, what: str, found: set[str], wanted: set[str]) -> None:
    if found != wanted:
        names = ", ".join(sorted(found))[:200]
        raise BundleError(
            f"{file} has the {what} {names}; the card says {', '.join(sorted(wanted))}", "name them alike"
        )


def _shape(file: str, name: str, kind: Any) -> list[int]:
    """Lengths of the axes; 0 where one is open."""
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or tensor.elem_type != _FLOAT32:
        raise BundleError(f"{file}: {name} is no float32", "convert inside the network: it takes and gives float32")
    return [int(axis.dim_value) for axis in tensor.shape.dim]
