"""OpenVINO: processors, in bfloat16 where they have instructions for it, else in float32."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engines.card import Precision
from engines.errors import RuntimeFailedError
from engines.runtimes.base import Resources, Session, Tensors
from engines.runtimes.devices import CPU
from engines.runtimes.processor import Processor
from engines.runtimes.tensors import Shape, check_tensors
from engines.runtimes.words import failed_at, identity, said

if TYPE_CHECKING:
    import openvino

_DEVICE: Final = "CPU"
_HINTS: Final[dict[Precision, str]] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""What layers that are not quantised are computed in."""

_KEPT_SHAPES: Final = 8
"""What is prepared for so many shapes is kept. By itself OpenVINO keeps 5,000 operators: half a megabyte a shape."""


class OpenVino:
    """`processor` is the one that it computes on."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor

    @property
    def name(self) -> str:
        return "openvino"

    def unavailable(self, device: str) -> str:
        if device != CPU:
            return "OpenVINO is used on processors only"
        try:
            _library()
        except ImportError:
            return "OpenVINO is not installed: pip install openvino"
        return ""

    def precisions(self, device: str) -> tuple[Precision, ...]:
        return ("bfloat16", "float32", "int8") if self._processor.bfloat16 else ("float32", "int8")

    def open(self, model: Path, resources: Resources) -> Session:
        missing = self.unavailable(resources.device)
        if missing:
            raise RuntimeFailedError(f"OpenVINO cannot compute on {resources.device[:40]}", missing)
        offered = self.precisions(resources.device)
        if resources.precision not in offered:
            raise RuntimeFailedError(
                f"OpenVINO does not compute in {resources.precision} here", f"it offers {', '.join(offered)}"
            )
        try:
            return _OpenVinoSession(_compiled(model, resources), resources.precision)
        except RuntimeError as error:  # all that it raises
            raise RuntimeFailedError(
                f"OpenVINO does not take {model.name} ({said(error)})", "see: dicomnode engines check"
            ) from None


class _OpenVinoSession:
    """One request: shapes are open, and what was prepared for a shape is kept for the next batch of it."""

    def __init__(self, compiled: openvino.CompiledModel, precision: Precision) -> None:
        self._wanted = {port.get_any_name(): _shape(port.partial_shape) for port in compiled.inputs}
        self._outputs = {port.get_any_name(): port for port in compiled.outputs}
        self._identity = identity("openvino", _library().__version__, precision)
        self._request: openvino.InferRequest | None = compiled.create_infer_request()

    @property
    def identity(self) -> str:
        return self._identity

    def run(self, tensors: Tensors) -> Tensors:
        if self._request is None:
            raise RuntimeFailedError("the session is closed", "open another one")
        check_tensors(self._wanted, tensors)
        try:
            computed = self._request.infer(dict(tensors), share_inputs=False, share_outputs=False)
        except RuntimeError as error:
            raise failed_at(tensors, said(error)) from None
        given = {name: computed[port] for name, port in self._outputs.items()}
        if not all(values.size for values in given.values()):  # where an operator cannot divide its rows or columns
            raise failed_at(tensors, "it gave nothing")
        return given

    def close(self) -> None:
        self._request = None
        self._outputs = {}


def _library() -> Any:
    """OpenVINO. It tells its makers of every import, unless what it does so with cannot be imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None halts an import (PEP 328)
    import openvino

    return openvino


def _compiled(model: Path, resources: Resources) -> openvino.CompiledModel:
    """Raises RuntimeError."""
    core = _library().Core()
    network = core.read_model(model)
    _check_quantised(network, resources.precision, model.name)
    prepared = _KEPT_SHAPES * len(network.get_ops())
    compiled = core.compile_model(network, _DEVICE, _properties(resources, prepared))
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != _HINTS[resources.precision]:
        raise RuntimeFailedError(
            f"OpenVINO would compute {model.name} in {found}", f"it was asked for {resources.precision}; choose another"
        )
    return compiled


def _properties(resources: Resources, prepared: int) -> dict[str, Any]:
    """Nothing is left to OpenVINO that changes what is computed, or takes what other processes were given.

    prepared  operators that it keeps prepared, each for one shape
    """
    properties = {
        "INFERENCE_PRECISION_HINT": _HINTS[resources.precision],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "INFERENCE_NUM_THREADS": resources.threads,
        "NUM_STREAMS": 1,
        "CPU_RUNTIME_CACHE_CAPACITY": prepared,
        "ENABLE_CPU_PINNING": False,  # each process would pin itself to the same first cores
    }
    return properties if resources.cache is None else {**properties, "CACHE_DIR": str(resources.cache)}


def _check_quantised(network: openvino.Model, precision: Precision, name: str) -> None:
    """A quantised network computes in int8 whatever is hinted: what is derived must say so."""
    quantised = any(node.get_type_name() == "FakeQuantize" for node in network.get_ops())
    if quantised != (precision == "int8"):
        is_not = "" if quantised else "not "
        raise RuntimeFailedError(f"{name} is {is_not}quantised to int8", f"it was to be computed in {precision}")


def _shape(axes: openvino.PartialShape) -> Shape:
    return tuple(axis.get_length() if axis.is_static else None for axis in axes)
