"""ONNX Runtime: float32 on processors, and on NVIDIA GPUs by its CUDA execution provider."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from engines.card import Precision
from engines.errors import RuntimeFailedError
from engines.runtimes.base import Resources, Session, Tensors
from engines.runtimes.devices import CPU, cuda_devices, cuda_index
from engines.runtimes.tensors import Shape, check_tensors
from engines.runtimes.words import failed_at, identity, said

if TYPE_CHECKING:
    import onnxruntime

_CUDA: Final = "CUDAExecutionProvider"
_PROCESSOR: Final = "CPUExecutionProvider"
_FATAL_ONLY: Final = 4
"""Its errors are raised too, and its warnings tell how it lays out a network: nothing that a site could act upon."""


class OnnxRuntime:
    """The runtime that takes every network, everywhere. It computes in what the file says: float32."""

    @property
    def name(self) -> str:
        return "onnxruntime"

    def unavailable(self, device: str) -> str:
        try:
            import onnxruntime
        except ImportError:
            return "ONNX Runtime is not installed: pip install onnxruntime"
        if device == CPU:
            return ""
        if _CUDA not in onnxruntime.get_available_providers():
            return "this ONNX Runtime computes on processors only: pip install onnxruntime-gpu in place of onnxruntime"
        if cuda_index(device) >= cuda_devices():
            return f"{device} is not there: see nvidia-smi"
        return ""

    def precisions(self, device: str) -> tuple[Precision, ...]:
        return ("float32",)

    def open(self, model: Path, resources: Resources) -> Session:
        missing = self.unavailable(resources.device)
        if missing:
            raise RuntimeFailedError(f"ONNX Runtime cannot compute on {resources.device}", missing)
        if resources.precision != "float32":
            raise RuntimeFailedError(
                f"ONNX Runtime was asked for {resources.precision}", "it computes in float32 here; OpenVINO in bfloat16"
            )
        return _OnnxSession(_opened(model, resources), _identity(resources))


class _OnnxSession:
    def __init__(self, session: onnxruntime.InferenceSession, identity: str) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._identity = identity
        self._wanted = {entry.name: _shape(entry.shape) for entry in session.get_inputs()}
        self._outputs = [entry.name for entry in session.get_outputs()]

    @property
    def identity(self) -> str:
        return self._identity

    def run(self, tensors: Tensors) -> Tensors:
        if self._session is None:
            raise RuntimeFailedError("the session is closed", "open another one")
        check_tensors(self._wanted, tensors)
        given = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
        try:
            computed = self._session.run(self._outputs, given)
        except _failures() as error:
            raise failed_at(given, said(error)) from None
        return dict(zip(self._outputs, computed, strict=True))

    def close(self) -> None:
        self._session = None


def _opened(model: Path, resources: Resources) -> onnxruntime.InferenceSession:
    import onnxruntime

    providers = _providers(resources.device)
    try:
        session = onnxruntime.InferenceSession(model, _options(resources), providers=providers, enable_fallback=0)
    except _failures() as error:
        raise RuntimeFailedError(
            f"ONNX Runtime does not take {model.name} ({said(error)})", "see: dicomnode engines check"
        ) from None
    if session.get_providers()[0] != providers[0][0]:
        raise RuntimeFailedError(
            f"ONNX Runtime cannot use {resources.device}", "its CUDA and cuDNN must be those that onnxruntime-gpu names"
        )
    return session


def _options(resources: Resources) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = resources.threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other processes want the cores too
    return options


def _providers(device: str) -> list[tuple[str, dict[str, str]]]:
    """Execution providers, the first of which computes what it can. TensorFloat-32 is no float32."""
    if device == CPU:
        return [(_PROCESSOR, {})]
    return [(_CUDA, {"device_id": str(cuda_index(device)), "use_tf32": "0"}), (_PROCESSOR, {})]


def _identity(resources: Resources) -> str:
    import onnxruntime

    where = "" if resources.device == CPU else "-cuda"
    return identity(f"onnxruntime{where}", onnxruntime.__version__, resources.precision)


def _failures() -> tuple[type[Exception], ...]:
    """All that ONNX Runtime raises: each of its status codes is an exception without a common ancestor."""
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    own = (kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError)


def _shape(axes: Sequence[int | str | None]) -> Shape:
    return tuple(axis if isinstance(axis, int) else None for axis in axes)
