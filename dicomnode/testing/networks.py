"""Small ONNX networks with random weights, of every shape that an engine bundle may have: for tests and benchmarks.

They are made of `onnx.helper` and a seed; nothing is trained. So that what they give is tame (the gates after an engine
can pass), each does something simple and known, and adds a little of its random layers to it: a denoiser takes away
some of what a 3 x 3 mean takes away, but nothing at an edge; a segmenter compares with thresholds; a detector looks
for what is bright. The random layers cost what the layers of a trained network cost.

Values go in as HU / 1000, so that water is 0 and bfloat16 is fine where it matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INPUT: Final = "image"
"""The input of every network, (batch, channels, rows, columns)."""

_OPSET: Final = 18
_IR_VERSION: Final = 10
_GAIN: Final = 1e-4  # what the random layers add: about 0.1 HU
_LARGEST_STEP: Final = 0.03  # 30 HU: what differs more from its surroundings is no noise
_DILATIONS: Final = (2, 3, 4, 3)


class _Graph:
    """A network being written: nodes and weights, with names made up in turn."""

    def __init__(self, seed: int) -> None:
        self._draws = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, values: NDArray[np.generic]) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(values, name))
        return name

    def layer(
        self, value: str, channels: tuple[int, int], kernel: int = 3, dilation: int = 1, gain: float = 1.0
    ) -> str:
        """Convolution with random weights (He et al., 2015) of `channels` (in, out); rows and columns stay."""
        taken, given = channels
        spread = gain * np.sqrt(2.0 / (taken * kernel * kernel))
        weights = self._draws.normal(0.0, spread, (given, taken, kernel, kernel)).astype(np.float32)
        reach = dilation * (kernel // 2)
        return self.node("Conv", value, self.constant(weights), pads=[reach] * 4, dilations=[dilation] * 2)

    def relu_layer(self, value: str, channels: tuple[int, int], kernel: int = 3, dilation: int = 1) -> str:
        return self.node("Relu", self.layer(value, channels, kernel, dilation))

    def mixed(self, value: str, weights: NDArray[np.floating], bias: NDArray[np.floating] | None = None) -> str:
        """Pixelwise: each output channel a weighted sum of the input's; `weights` (out, in), `bias` (out)."""
        given = self.constant(weights.astype(np.float32)[:, :, None, None])
        biases = () if bias is None else (self.constant(bias.astype(np.float32)),)
        return self.node("Conv", value, given, *biases)

    def mean(self, value: str, size_px: int) -> str:
        """Of the pixels around; at the edge of those that are there."""
        reach = size_px // 2
        rows = self.node("AveragePool", value, kernel_shape=[size_px, 1], pads=[reach, 0, reach, 0])
        return self.node("AveragePool", rows, kernel_shape=[1, size_px], pads=[0, reach, 0, reach])

    def high_pass(self, value: str) -> str:
        """One channel, minus its 3 x 3 mean."""
        return self.node("Sub", value, self.mean(value, 3))

    def number(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def cut(self, value: str, bound: float) -> str:
        return self.node("Clip", value, self.number(-bound), self.number(bound))

    def noise(self, value: str) -> str:
        """What a careful smoothing takes away from one channel: half the high-pass where that is small, nothing where
        it is large or the image varies more widely than noise does."""
        fine = self.high_pass(value)
        doubled = self.node("Mul", self.cut(fine, _LARGEST_STEP), self.number(2.0))
        small = self.node("Sub", doubled, self.cut(fine, 2 * _LARGEST_STEP))
        wide = self.node("Sub", self.mean(value, 3), self.mean(value, 9))
        structure = self.mean(self.node("Abs", wide), 3)
        weight = self.node("Sub", self.number(0.5), self.node("Mul", structure, self.number(0.5 / _LARGEST_STEP)))
        return self.node("Mul", small, self.node("Relu", weight))

    def bytes(self, channels: int, outputs: Mapping[str, tuple[str, int]]) -> bytes:
        """The file. `outputs`: by the output's name the value that it is, and its channels."""
        nodes = [*self._nodes, *(helper.make_node("Identity", [value], [name]) for name, (value, _) in outputs.items())]
        given = [_tensor(name, count, name) for name, (_, count) in outputs.items()]
        graph = helper.make_graph(nodes, "random", [_tensor(INPUT, channels, "")], given, self._weights)
        opset = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="dicomnode.testing")
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


def denoiser(channels: int = 48, layers: int = 8, seed: int = 0, gain: float = _GAIN) -> bytes:
    """A plain residual denoiser at half resolution: "image" -> "residual", what is to be taken away.

    Pixels are unshuffled by 2, so rows and columns must be even. With 48 channels and 8 layers it costs 16.8 GFLOP for
    512 x 512 and looks 17 pixels far.
    """
    graph = _Graph(seed)
    value = graph.relu_layer(graph.node("SpaceToDepth", INPUT, blocksize=2), (4, channels))
    for _ in range(layers - 2):
        value = graph.relu_layer(value, (channels, channels))
    value = graph.node("DepthToSpace", graph.layer(value, (channels, 4), gain=gain), blocksize=2, mode="CRD")
    return graph.bytes(1, {"residual": (graph.node("Add", value, graph.noise(INPUT)), 1)})


def dilated_denoiser(channels: int = 64, seed: int = 0, gain: float = _GAIN) -> bytes:
    """A dilated residual denoiser at full resolution, of the layers of Ataei et al. (2020): "image" -> "residual".

    With 64 channels it costs 117 GFLOP for 512 x 512 and looks 18 pixels far.
    """
    graph = _Graph(seed)
    first = value = graph.relu_layer(INPUT, (1, channels), kernel=5)
    kept = []
    for dilation in _DILATIONS:
        value = graph.relu_layer(value, (channels, channels), dilation=dilation)
        kept.append(value)
    value = graph.node("Concat", value, kept[0], axis=1)
    value = graph.relu_layer(value, (2 * channels, channels), dilation=2)
    value = graph.layer(graph.node("Concat", value, first, axis=1), (2 * channels, 1))
    value = graph.layer(value, (1, 1), gain=gain)
    return graph.bytes(1, {"residual": (graph.node("Add", value, graph.noise(INPUT)), 1)})


def adjacent_denoiser(slices: int = 3, channels: int = 8, seed: int = 0) -> bytes:
    """A denoiser that sees a slice and its neighbours as channels, the slice in the middle: "image" -> "residual"."""
    graph = _Graph(seed)
    middle = graph.mixed(INPUT, np.eye(slices)[slices // 2][None])
    value = graph.layer(graph.relu_layer(INPUT, (slices, channels)), (channels, 1), gain=_GAIN)
    return graph.bytes(slices, {"residual": (graph.node("Add", value, graph.noise(middle)), 1)})


def enhancer(channels: int = 8, seed: int = 1, gain: float = _GAIN) -> bytes:
    """Somewhat more of the high-pass: "image" -> "enhanced", an image. For a second stage."""
    graph = _Graph(seed)
    return graph.bytes(1, {"enhanced": (_sharpened(graph, channels, gain), 1)})


def two_outputs(channels: int = 8, seed: int = 2) -> bytes:
    """One network that gives both: "image" -> "residual" (noise to be taken away) and "enhanced" (an image)."""
    graph = _Graph(seed)
    sharpened = _sharpened(graph, channels, _GAIN)
    return graph.bytes(1, {"residual": (graph.noise(INPUT), 1), "enhanced": (sharpened, 1)})


def super_resolver(factor: int = 2, channels: int = 8, seed: int = 3) -> bytes:
    """Each pixel becomes `factor` x `factor`, then the steps are smoothed: "image" -> "image_out" on a finer grid."""
    graph = _Graph(seed)
    trunk = graph.layer(graph.relu_layer(INPUT, (1, channels)), (channels, factor * factor), gain=_GAIN)
    copies = graph.mixed(INPUT, np.ones((factor * factor, 1)))
    grown = graph.node("DepthToSpace", graph.node("Add", copies, trunk), blocksize=factor, mode="CRD")
    return graph.bytes(1, {"image_out": (graph.node("Sub", grown, graph.high_pass(grown)), 1)})


def segmenter(inputs: int = 3, thresholds: Sequence[float] = (-0.3, 0.3), channels: int = 8, seed: int = 4) -> bytes:
    """Labels by thresholds on the mean of the input's channels: "image" -> "labels", softmax over 1 + thresholds."""
    graph = _Graph(seed)
    labels = len(thresholds) + 1
    mean = graph.mixed(INPUT, np.full((1, inputs), 1 / inputs))
    steps = np.concatenate(([0.0], np.cumsum(thresholds)))
    scores = graph.mixed(mean, 20.0 * np.arange(labels)[:, None], -20.0 * steps)
    trunk = graph.layer(graph.relu_layer(INPUT, (inputs, channels)), (channels, labels), gain=_GAIN)
    return graph.bytes(inputs, {"labels": (graph.node("Softmax", graph.node("Add", scores, trunk), axis=1), labels)})


def detector(labels: int = 1, stride: int = 4, threshold: float = 0.5, seed: int = 5) -> bytes:
    """Looks for what is bright, on a grid of every `stride` pixels.

    "image" -> "scores" (labels, 0...1) and "boxes" (left, top, right, bottom: distances in pixels from the centre of
    the place to the sides of its box, as in Tian et al., FCOS, 2019).
    """
    graph = _Graph(seed)
    coarse = graph.node("AveragePool", INPUT, kernel_shape=[stride] * 2, strides=[stride] * 2)
    trunk = graph.relu_layer(coarse, (1, 8))
    score = graph.mixed(coarse, np.full((labels, 1), 10.0), -10.0 * threshold * np.arange(1, labels + 1))
    score = graph.node("Sigmoid", graph.node("Add", score, graph.layer(trunk, (8, labels), gain=_GAIN)))
    boxes = graph.mixed(coarse, np.zeros((4, 1)), np.full(4, 2.0 * stride))
    boxes = graph.node("Relu", graph.node("Add", boxes, graph.layer(trunk, (8, 4), gain=_GAIN)))
    return graph.bytes(1, {"scores": (score, labels), "boxes": (boxes, 4)})


def predictor(parameters: Sequence[str] = ("clip", "grid"), channels: int = 8, seed: int = 6) -> bytes:
    """One number 0...1 of the whole slice for each parameter: "image" -> an output (1, 1, 1) of each name."""
    graph = _Graph(seed)
    seen = graph.node("GlobalAveragePool", graph.relu_layer(INPUT, (1, channels)))
    numbers = {name: graph.node("Sigmoid", graph.layer(seen, (channels, 1), kernel=1)) for name in parameters}
    return graph.bytes(1, {name: (value, 1) for name, value in numbers.items()})


def quantised() -> bytes:
    """A network that computes in int8: "image" -> "rounded", to eighths."""
    graph = _Graph(0)
    scale, zero = graph.constant(np.array(0.125, dtype=np.float32)), graph.constant(np.array(0, dtype=np.int8))
    whole = graph.node("QuantizeLinear", INPUT, scale, zero)
    return graph.bytes(1, {"rounded": (graph.node("DequantizeLinear", whole, scale, zero), 1)})


def _sharpened(graph: _Graph, channels: int, gain: float) -> str:
    more = graph.node("Mul", graph.high_pass(INPUT), graph.number(0.3))
    trunk = graph.layer(graph.relu_layer(INPUT, (1, channels)), (channels, 1), gain=gain)
    return graph.node("Add", graph.node("Add", INPUT, more), trunk)


def _tensor(name: str, channels: int, prefix: str) -> onnx.ValueInfoProto:
    """float32 (batch, channels, rows, columns) of any batch and size; an input's sizes have names of their own."""
    batch, rows, columns = (f"{prefix}_{axis}".lstrip("_") for axis in ("batch", "rows", "columns"))
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, channels, rows, columns])
