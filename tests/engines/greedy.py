"""A network that asks for more memory than any machine here has."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def greedy(network: bytes) -> bytes:
    """The network, with the sum of 160 GB of zeros added to the first of what it gives."""
    model = onnx.load_model_from_string(network)
    graph, output = model.graph, model.graph.output[0]
    last = next(node for node in graph.node if output.name in node.output)
    last.output[list(last.output).index(output.name)] = "before"
    graph.initializer.append(numpy_helper.from_array(np.array([200_000, 200_000], np.int64), "size"))
    graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["before", "nothing"], [output.name]),
        ]
    )
    return bytes(model.SerializeToString())
