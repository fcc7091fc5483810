"""What a network costs and what a machine can do."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dicomnode.testing import networks
from engines.errors import EngineInputError
from engines.runtimes.base import Resources
from engines.runtimes.cost import gflop
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.runtimes.roof import measured_roof


def network(operator: str, weights: tuple[int, ...], **attributes: Any) -> bytes:
    """One operator between "image" (any sizes) and "given"."""
    constant = numpy_helper.from_array(np.ones(weights, dtype=np.float32), "weights")
    axes = [f"axis_{number}" for number in range(len(weights))]
    taken = helper.make_tensor_value_info("image", TensorProto.FLOAT, axes)
    given = helper.make_tensor_value_info("given", TensorProto.FLOAT, axes)
    node = helper.make_node(operator, ["image", "weights"], ["given"], **attributes)
    graph = helper.make_graph([node], "one", [taken], [given], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    onnx.checker.check_model(content)
    return content


@pytest.mark.parametrize(
    ("content", "size", "multiplications"),
    [
        (network("Conv", (5, 3, 3, 3)), (2, 3, 10, 12), 2 * 5 * 8 * 10 * 27),
        (network("Conv", (6, 1, 3, 3), group=3), (1, 3, 5, 5), 6 * 3 * 3 * 9),
        (network("ConvTranspose", (3, 5, 2, 2)), (1, 3, 7, 7), 3 * 49 * 5 * 4),
        (network("MatMul", (4, 6)), (7, 4), 7 * 4 * 6),
        (network("Gemm", (4, 6), transA=1), (4, 7), 7 * 4 * 6),
        (network("Add", (1, 1, 1, 1)), (1, 1, 8, 8), 0),
    ],
    ids=["convolution", "groups", "transposed", "matrices", "turned", "nothing multiplied"],
)
def test_operations_are_counted(content: bytes, size: tuple[int, ...], multiplications: int) -> None:
    assert gflop(content, {"image": size}) == pytest.approx(multiplications * 2e-9)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(networks.denoiser(), 16.8), (networks.dilated_denoiser(), 117.4), (networks.detector(), 0.0)],
    ids=["half resolution", "full resolution", "two outputs"],
)
def test_what_the_benchmarks_networks_cost(content: bytes, expected: float) -> None:
    assert gflop(content, {"image": (1, 1, 512, 512)}) == pytest.approx(expected, abs=0.3)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(EngineInputError):
        gflop(network("MatMul", (4, 6)), {"image": (7, 5)})
    with pytest.raises(EngineInputError):
        gflop(network("MatMul", (4, 6)), {"image": (0, 7, 5)})


def test_a_machine_does_something() -> None:
    roof = measured_roof(OnnxRuntime(), Resources(), seconds=0.0)
    assert roof.gflop_s > 0.1
    assert roof.memory_bytes_s > 1e7
