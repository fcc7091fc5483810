"""Weights of an ONNX file in float16: half the size. What is computed stays in float32."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

_FEWEST: Final = 64
"""Smaller tensors are scales and shapes: nothing is saved there."""
_SUFFIX: Final = "_float16"


def weights_in_float16(content: bytes) -> bytes:
    """The same network, with a cast to float32 behind each stored weight: runtimes do it once, as they load."""
    import onnx

    model = onnx.load_model_from_string(content)
    graph = model.graph
    casts: list[Any] = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _FEWEST:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), name + _SUFFIX))
        casts.append(onnx.helper.make_node("Cast", [name + _SUFFIX], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    return bytes(model.SerializeToString())
