"""How far a network looks: from its ONNX graph, which rows (or columns) of the input each one of an output depends on.

Nothing is computed but places. A slice of one column is followed through the graph: each value of each tensor has the
first and the last input place that it depends on. So strides, dilations, paddings and skips come out exactly, and what
looks at the whole slice (a mean over it, an instance norm) is seen to. Rows and columns are followed apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.bundle.networks import OWN_DOMAINS, parsed
from engines.card import Stage

FARTHEST_PX: Final = 1024
"""The largest halo of a card; what looks farther counts as looking at the whole slice."""

_LENGTH_PX: Final = 2 * FARTHEST_PX + 256
_MOST_NODES: Final = 4000
_LONGEST_PX: Final = 16 * _LENGTH_PX
"""Of a tensor, a kernel, a stride, a dilation or a padding."""

_MOST_STEPS: Final = 20_000_000
"""Places that are looked at: a graph comes from outside, and is to take less than two seconds."""

_LEAST_STEPS: Final = 1024
"""What looking at any tensor counts as, however short it is: the calls cost time too."""

_MOST_VALUES: Final = 16
"""Of a constant that says how an operator works: two for each axis are the most that any needs."""

_CHANNELS: Final = 1
_AXES: Final = 4

_BY_PLACE: Final = frozenset({
    "Abs", "Add", "And", "BatchNormalization", "BitShift", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout",
    "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish",
    "Identity", "IsInf", "IsNaN", "LRN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish",
    "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "QuantizeLinear", "DequantizeLinear", "Reciprocal", "Relu",
    "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tan", "Tanh",
    "ThresholdedRelu", "Where", "Xor",
})  # fmt: skip
"""Operators of which each value depends on the values at its own place alone (LRN: across channels)."""

_OVER_CHANNELS: Final = frozenset({
    "ArgMax", "ArgMin", "Concat", "Gather", "Hardmax", "LogSoftmax", "ReduceL1", "ReduceL2", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Softmax", "Split",
})  # fmt: skip
"""The same where their axis is that of the channels."""

_OVER_SLICE: Final = frozenset(("InstanceNormalization", "MeanVarianceNormalization"))
_TO_ONE: Final = frozenset(("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"))
_POOLS: Final = frozenset(("AveragePool", "LpPool", "MaxPool"))


class _UnknownError(Exception):
    """Where a value of this operator comes from cannot be told."""


@dataclass(frozen=True, eq=False)
class _Places:
    """Of each place of a tensor along one axis the first and the last place of the input that it depends on."""

    first: NDArray[np.int32]
    last: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Reach:
    """How far a pixel of a network's outputs looks.

    px       on each side, in pixels of the input; None where that cannot be told, or is the whole slice
    unknown  name of the operator that could not be followed, or ""
    coarsest how many pixels of the input one of the network's coarsest tensor is for: rows and columns should be a
             multiple of it
    """

    px: int | None
    unknown: str = ""
    coarsest: int = 1

    @property
    def is_whole(self) -> bool:
        """Each pixel depends on all of the slice: it cannot be computed in tiles."""
        return self.px is None and not self.unknown


def reach_of(content: bytes, stage: Stage) -> Reach:
    """How far the network of a stage looks. Raises BundleError where it is none."""
    model = parsed(content, stage.file)
    length = -(-_LENGTH_PX // stage.multiple_px) * stage.multiple_px
    graphs = [_Graph(model.graph, axis, length) for axis in (2, 3)]
    try:
        px = max(graph.reach() for graph in graphs)
    except _UnknownError as unknown:
        return Reach(None, str(unknown)[:60])
    coarsest = max(graph.coarsest for graph in graphs)
    return Reach(px if px <= FARTHEST_PX else None, coarsest=coarsest)


class _Graph:
    """The places of all tensors of a graph along one axis of the input's (2: rows, 3: columns)."""

    def __init__(self, graph: Any, axis: int, length: int) -> None:
        self._axis = axis
        self._length = length
        self._graph = graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        own = np.arange(length, dtype=np.int32)
        self._places = {value.name: _Places(own, own) for value in graph.input if value.name not in self._constants}
        self._left = _MOST_STEPS

    def reach(self) -> int:
        if len(self._graph.node) > _MOST_NODES:
            raise _UnknownError("so many operators")
        for node in self._graph.node:
            self._follow(node)
        outputs = {one.name for one in self._graph.output}
        return max((self._looks(self._places[name]) for name in outputs if name in self._places), default=0)

    @property
    def coarsest(self) -> int:
        """Pixels of the input for one of the coarsest tensor that is an image still."""
        return self._length // min(
            (len(places) for places in self._places.values() if len(places) > 1), default=self._length
        )

    def _follow(self, node: Any) -> None:
        if node.domain not in OWN_DOMAINS:
            raise _UnknownError(f"{node.domain}.{node.op_type}")  # nothing has checked its attributes
        if node.op_type == "Constant":
            self._keep_constant(node)
            return
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise _UnknownError(node.op_type)  # a branch may take any tensor from outside of it
        taken = [self._places[name] for name in node.input if name in self._places]
        if not taken or node.op_type in ("Shape", "Size"):
            return  # it hangs on weights and sizes alone
        for places in taken:
            self._look(len(places))
        places = self._made(node, taken)
        self._places.update(dict.fromkeys(node.output, places))

    def _keep_constant(self, node: Any) -> None:
        for attribute in node.attribute:
            if attribute.name == "value":
                self._constants[node.output[0]] = attribute.t

    def _made(self, node: Any, taken: Sequence[_Places]) -> _Places:
        kind = node.op_type
        if kind in _BY_PLACE or (kind in _OVER_CHANNELS and self._axes(node) == [_CHANNELS]):
            return _joined(taken)
        if kind in _OVER_SLICE:
            return _spread(taken[0], len(taken[0]))
        if kind in _TO_ONE or (kind.startswith("Reduce") and set(self._axes(node)) <= {1, 2, 3} and _keeps(node)):
            return _spread(taken[0], 1) if kind in _TO_ONE or self._axis in self._axes(node) else taken[0]
        follow = _SPATIAL.get("Pool" if kind in _POOLS else kind)
        if follow is None:
            raise _UnknownError(kind)
        return follow(self, node, taken[0])

    def _axes(self, node: Any) -> list[int]:
        """The axes that an operator works over, from 0 on."""
        axes = self.attribute(node, "axes", None)
        if axes is None and node.op_type.startswith("Reduce") and len(node.input) > 1:
            axes = self.values(node.input[1])
        if axes is None and node.op_type.startswith("Reduce"):
            axes = range(_AXES)
        if axes is None:
            axes = [self.attribute(node, "axis", _DEFAULT_AXIS.get(node.op_type, 1))]
        return [int(axis) % _AXES for axis in axes]

    def _looks(self, places: _Places) -> int:
        """How far the farthest look goes, beyond the input's own pixels of each place."""
        self._look(len(places))
        place = np.arange(len(places), dtype=np.int64)
        begin = place * self._length // len(places)
        end = np.maximum(begin, -(-(place + 1) * self._length // len(places)) - 1)
        return int(max((begin - places.first).max(), (places.last - end).max(), 0))

    def attribute(self, node: Any, name: str, default: Any) -> Any:
        import onnx

        found = next((one for one in node.attribute if one.name == name), None)
        if found is not None and found.ref_attr_name:
            raise _UnknownError(node.op_type)  # it is said by a function that calls it: there is none
        return default if found is None else onnx.helper.get_attribute_value(found)

    def along(self, node: Any, name: str, default: int) -> int:
        """What an attribute of one value for rows and one for columns says along this axis."""
        values = self.attribute(node, name, None)
        if values is not None and len(values) != 2:
            raise _UnknownError(node.op_type)
        return default if values is None else int(values[self._axis - 2])

    def pads(self, node: Any) -> tuple[int, int]:
        """(before, after) along this axis."""
        values = self.attribute(node, "pads", (0, 0, 0, 0))
        if len(values) != 4:
            raise _UnknownError(node.op_type)
        return _padding(int(values[self._axis - 2])), _padding(int(values[self._axis]))

    def values(self, name: str) -> list[Any] | None:
        """A constant's finite values; None where it is none, or has others, or many."""
        from onnx import numpy_helper

        tensor = self._constants.get(name)
        if tensor is None or math.prod(tensor.dims) > _MOST_VALUES or tensor.data_location == tensor.EXTERNAL:
            return None
        try:
            values = [float(one) for one in numpy_helper.to_array(tensor).ravel()]
        except (ValueError, TypeError):  # texts, or fewer values than it says
            return None
        return values if np.isfinite(values).all() else None

    def kernel(self, node: Any) -> int:
        """The length of a convolution's kernel along this axis, or of a pool's."""
        if self.attribute(node, "kernel_shape", None) is not None:
            return self.along(node, "kernel_shape", 1)
        weights = self._constants.get(node.input[1]) if len(node.input) > 1 else None
        if weights is None or len(weights.dims) != _AXES:
            raise _UnknownError(node.op_type)
        return int(weights.dims[self._axis])

    def gathered(self, places: _Places, taps: Iterable[NDArray[np.int64]], length: int) -> _Places:
        """Places that each depend on several of `places`: one of each of `taps`, as far as it lies inside. What
        depends on padding alone counts as depending on the nearest."""
        first = np.full(length, np.iinfo(np.int32).max, dtype=np.int32)
        last = np.full(length, -1, dtype=np.int32)
        nearest = np.zeros(length, dtype=np.int64)
        for tap in taps:
            self._look(length)
            inside = (tap >= 0) & (tap < len(places))
            first[inside] = np.minimum(first[inside], places.first[tap[inside]])
            last[inside] = np.maximum(last[inside], places.last[tap[inside]])
            nearest = np.clip(tap, 0, len(places) - 1)
        empty = last < 0
        first[empty], last[empty] = places.first[nearest[empty]], places.last[nearest[empty]]
        return _Places(first, last)

    def _look(self, length: int) -> None:
        self._left -= max(length, _LEAST_STEPS)
        if self._left < 0:
            raise _UnknownError("so many operators")

    @property
    def axis(self) -> int:
        return self._axis


def _joined(taken: Sequence[_Places]) -> _Places:
    """Of several tensors at one place; one of length 1 is spread over the others."""
    lengths = {len(places) for places in taken} - {1}
    if len(lengths) > 1:
        raise _UnknownError("sizes that differ")
    first, last = taken[0].first, taken[0].last
    for places in taken[1:]:
        first, last = np.minimum(first, places.first), np.maximum(last, places.last)
    return _Places(first, last)


def _spread(places: _Places, length: int) -> _Places:
    return _Places(
        np.full(length, places.first.min(), dtype=np.int32), np.full(length, places.last.max(), dtype=np.int32)
    )


def _convolved(graph: _Graph, node: Any, places: _Places) -> _Places:
    kernel, dilation = _bounded(graph.kernel(node)), _bounded(graph.along(node, "dilations", 1))
    stride, (before, after) = _bounded(graph.along(node, "strides", 1)), graph.pads(node)
    span = dilation * (kernel - 1) + 1
    automatic = graph.attribute(node, "auto_pad", b"NOTSET")
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        surplus = max((-(-len(places) // stride) - 1) * stride + span - len(places), 0)
        before = surplus // 2 if automatic == b"SAME_UPPER" else -(-surplus // 2)
        after = surplus - before
    room = len(places) + before + after - span
    rounded = -(-room // stride) if graph.attribute(node, "ceil_mode", 0) else room // stride
    length = _bounded(rounded + 1)
    place = np.arange(length) * stride - before
    return graph.gathered(places, (place + dilation * tap for tap in range(kernel)), length)


def _deconvolved(graph: _Graph, node: Any, places: _Places) -> _Places:
    kernel, dilation = _bounded(graph.kernel(node)), _bounded(graph.along(node, "dilations", 1))
    stride, (before, after) = _bounded(graph.along(node, "strides", 1)), graph.pads(node)
    given = ("output_shape", "auto_pad")
    if any(graph.attribute(node, name, b"NOTSET") != b"NOTSET" for name in given):
        raise _UnknownError(node.op_type)
    span = dilation * (kernel - 1) + 1
    length = _bounded((len(places) - 1) * stride + span + graph.along(node, "output_padding", 0) - before - after)
    place = np.arange(length) + before
    taps = (np.divmod(place - dilation * tap, stride) for tap in range(kernel))
    return graph.gathered(places, (np.where(rest == 0, whole, -1) for whole, rest in taps), length)


def _padded(graph: _Graph, node: Any, places: _Places) -> _Places:
    pads = graph.values(node.input[1]) if len(node.input) > 1 else graph.attribute(node, "pads", None)
    if pads is None or len(pads) != 2 * _AXES or (len(node.input) > 3 and node.input[3]):
        raise _UnknownError(node.op_type)
    before, after = _padding(int(pads[graph.axis])), _padding(int(pads[graph.axis + _AXES]))
    place = np.arange(_bounded(len(places) + before + after)) - before
    mode, most = graph.attribute(node, "mode", b"constant"), len(places) - 1
    if mode == b"reflect":
        place = np.abs(place)
        place = np.where(place > most, 2 * most - place, place)
    elif mode == b"wrap":
        place = place % len(places)
    return graph.gathered(places, [np.clip(place, 0, most)], len(place))


def _resized(graph: _Graph, node: Any, places: _Places) -> _Places:
    scales = graph.values(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if node.op_type == "Upsample":
        scales = graph.values(node.input[1]) if len(node.input) > 1 else None
    if scales is None or len(scales) != _AXES:
        raise _UnknownError(node.op_type)
    finer = scales[graph.axis]
    if finer <= 0:
        raise _UnknownError(node.op_type)
    place = np.arange(_bounded(int(len(places) * finer)))
    half = graph.attribute(node, "coordinate_transformation_mode", b"half_pixel")
    if half not in (b"half_pixel", b"pytorch_half_pixel", b"asymmetric"):
        raise _UnknownError(node.op_type)
    source = place / finer if half == b"asymmetric" else (place + 0.5) / finer - 0.5
    mode = graph.attribute(node, "mode", b"nearest")
    beside = {b"nearest": 0, b"linear": 0, b"cubic": 1}.get(mode)
    if beside is None:
        raise _UnknownError(node.op_type)
    low = np.floor(source).astype(np.int64)
    taken = [low + tap for tap in range(-beside, 2 + beside)]
    if np.array_equal(low, source):
        taken = [low]
    elif mode == b"nearest" and graph.attribute(node, "nearest_mode", b"round_prefer_floor") == b"floor":
        taken = [low, np.floor(source.astype(np.float32)).astype(np.int64)]  # runtimes compute places in float32
    return graph.gathered(places, [np.clip(each, 0, len(places) - 1) for each in taken], len(place))


def _shuffled(graph: _Graph, node: Any, places: _Places) -> _Places:
    """DepthToSpace."""
    block = _bounded(graph.attribute(node, "blocksize", 1))
    length = _bounded(len(places) * block)
    return graph.gathered(places, [np.arange(length) // block], length)


def _folded(graph: _Graph, node: Any, places: _Places) -> _Places:
    """SpaceToDepth."""
    block = _bounded(graph.attribute(node, "blocksize", 1))
    length = _bounded(len(places) // block)
    return graph.gathered(places, (np.arange(length) * block + tap for tap in range(block)), length)


def _sliced(graph: _Graph, node: Any, places: _Places) -> _Places:
    given = [graph.values(name) if name else None for name in node.input[1:]]
    starts, ends, axes, steps = [*given, None, None, None][:4]
    if starts is None or ends is None or axes is None:
        raise _UnknownError(node.op_type)
    steps = steps or [1.0] * len(axes)
    if not len(starts) == len(ends) == len(axes) == len(steps) or not all(int(step) for step in steps):
        raise _UnknownError(node.op_type)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if int(axis) % _AXES == graph.axis:
            chosen = np.arange(len(places))[slice(int(start), int(end), int(step))]
            if not len(chosen):
                raise _UnknownError(node.op_type)
            places = _Places(places.first[chosen], places.last[chosen])
    return places


def _bounded(length: int) -> int:
    """A length of something; raises _UnknownError where it is below 1, or longer than anything sound."""
    if not 0 < length <= _LONGEST_PX:
        raise _UnknownError("sizes out of bounds")
    return length


def _padding(px: int) -> int:
    """The same of a padding: it may be 0, and below 0 where it cuts off."""
    _bounded(abs(px) + 1)
    return px


def _keeps(node: Any) -> bool:
    return all(attribute.i == 1 for attribute in node.attribute if attribute.name == "keepdims")


_Follow = Callable[[_Graph, Any, _Places], _Places]

_SPATIAL: Final[Mapping[str, _Follow]] = {
    "Conv": _convolved, "Pool": _convolved, "ConvTranspose": _deconvolved, "Pad": _padded, "Resize": _resized,
    "Upsample": _resized, "DepthToSpace": _shuffled, "SpaceToDepth": _folded, "Slice": _sliced,
}  # fmt: skip

_DEFAULT_AXIS: Final = {
    "ArgMax": 0,
    "ArgMin": 0,
    "Gather": 0,
    "Split": 0,
    "Softmax": -1,
    "LogSoftmax": -1,
    "Hardmax": -1,
}
