"""What this machine can do at most, measured: operations a second of a runtime, and bytes a second of its memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from engines.runtimes.base import Resources, Runtime
from engines.runtimes.cost import gflop

_CHANNELS: Final = 128
_LAYERS: Final = 4
_SIDE_PX: Final = 96
"""A chain of 3 x 3 convolutions whose values stay in the caches: of all that was tried it came nearest to the limit of
the arithmetic, in each runtime. 10.9 GFLOP."""

_COPIED_BYTES: Final = 128 * 2**20
"""Of one copy: more than any cache holds."""


@dataclass(frozen=True)
class Roof:
    """gflop_s: 10^9 operations a second; memory_bytes_s: bytes read and written a second by copying."""

    gflop_s: float
    memory_bytes_s: float


def measured_roof(runtime: Runtime, resources: Resources, seconds: float = 1.0) -> Roof:
    """The fastest of as many runs as fit `seconds`, for either figure. Raises RuntimeFailedError.

    What other processes take of the machine meanwhile is missing from it.
    """
    return Roof(_fastest_gflop_s(runtime, resources, seconds), _fastest_copy(resources.threads, seconds))


def _fastest_gflop_s(runtime: Runtime, resources: Resources, seconds: float) -> float:
    content = _convolutions()
    image = np.random.default_rng(1).normal(size=(1, _CHANNELS, _SIDE_PX, _SIDE_PX)).astype(np.float32)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "roof.onnx"
        path.write_bytes(content)
        session = runtime.open(path, resources)
    try:
        session.run({"image": image})
        return gflop(content, {"image": image.shape}) / _fastest_s(lambda: session.run({"image": image}), seconds)
    finally:
        session.close()


def _fastest_copy(threads: int, seconds: float) -> float:
    parts = [np.ones(_COPIED_BYTES // threads, dtype=np.uint8) for _ in range(threads)]
    copies = [part.copy() for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        return 2 * _COPIED_BYTES / _fastest_s(lambda: list(pool.map(np.copyto, copies, parts)), seconds)


def _fastest_s(run: Callable[[], object], seconds: float) -> float:
    """Of one run, once at least."""
    end = time.perf_counter() + seconds
    fastest = float("inf")
    while fastest == float("inf") or time.perf_counter() < end:
        began = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - began)
    return fastest


def _convolutions() -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draws = np.random.default_rng(0)
    spread = np.sqrt(2.0 / (_CHANNELS * 9))
    names = ["image", *(f"v{layer}" for layer in range(_LAYERS - 1)), "last"]
    weights = [draws.normal(0.0, spread, (_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32) for _ in range(_LAYERS)]
    constants = [numpy_helper.from_array(values, f"w{layer}") for layer, values in enumerate(weights)]
    nodes = [
        helper.make_node("Conv", [taken, constant.name], [given], pads=[1, 1, 1, 1])
        for taken, constant, given in zip(names, constants, names[1:], strict=False)
    ]
    axes = [1, _CHANNELS, _SIDE_PX, _SIDE_PX]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "roof", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
