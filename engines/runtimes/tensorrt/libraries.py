"""The two libraries of NVIDIA, found, checked for their version, and with a logger that outlives all."""

from __future__ import annotations

import functools
import importlib
import re
from collections import deque
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, Protocol, cast

from engines.errors import RuntimeFailedError
from engines.runtimes.tensorrt import bindings as of

INSTALL_HINT: Final = "docs/tensorrt.md tells how a site installs TensorRT: pip install 'dicomnode-router[tensorrt]'"

_LOWEST: Final = (10, 13)
_BELOW: Final = (12, 0)
_KEPT_MESSAGES: Final = 50
_SAID_MESSAGES: Final = 3
_SAID_CHARACTERS: Final = 600

_NEXT_STEP: Final = {
    "cudaErrorInsufficientDriver": "no NVIDIA driver, or one too old: nvidia-smi shows it; CUDA 13 needs r580 or newer",
    "cudaErrorNoDevice": "no GPU is visible: see nvidia-smi; in a container, give it one (--gpus all)",
    "cudaErrorInvalidDevice": "there is no GPU of this number: nvidia-smi lists them, from 0",
    "cudaErrorMemoryAllocation": "the GPU's memory is full: nvidia-smi shows by what; a smaller batch needs less",
    "cudaErrorSystemDriverMismatch": "driver and CUDA libraries differ: restart the machine after a driver's update",
}


class TensorRtModule(Protocol):
    """What is used of the module `tensorrt`."""

    @property
    def __version__(self) -> str: ...
    @property
    def ILogger(self) -> of.LoggerClass: ...
    @property
    def NetworkDefinitionCreationFlag(self) -> of.NetworkDefinitionCreationFlag: ...
    @property
    def BuilderFlag(self) -> of.BuilderFlag: ...
    @property
    def MemoryPoolType(self) -> of.MemoryPoolType: ...
    @property
    def TensorIOMode(self) -> of.TensorIOMode: ...
    @property
    def DataType(self) -> of.DataType: ...
    @property
    def ExecutionContextAllocationStrategy(self) -> of.ExecutionContextAllocationStrategy: ...
    def Builder(self, logger: of.ILogger) -> of.Builder: ...
    def OnnxParser(self, network: of.INetworkDefinition, logger: of.ILogger) -> of.OnnxParser: ...
    def Runtime(self, logger: of.ILogger) -> of.Runtime: ...


class CudaModule(Protocol):
    """What is used of the module `cuda.bindings.runtime`."""

    @property
    def cudaError_t(self) -> of.cudaError_t: ...
    @property
    def cudaMemcpyKind(self) -> of.cudaMemcpyKind: ...
    @property
    def cudaStreamCaptureMode(self) -> of.cudaStreamCaptureMode: ...
    @property
    def cudaHostAllocDefault(self) -> int: ...
    @property
    def cudaStreamNonBlocking(self) -> int: ...
    def cudaGetErrorString(self, error: Any) -> of.CudaResult: ...
    def cudaDriverGetVersion(self) -> of.CudaResult: ...
    def cudaGetDeviceCount(self) -> of.CudaResult: ...
    def cudaGetDeviceProperties(self, device: int) -> of.CudaResult: ...
    def cudaSetDevice(self, device: int) -> of.CudaResult: ...
    def cudaMemGetInfo(self) -> of.CudaResult: ...
    def cudaMalloc(self, size: int) -> of.CudaResult: ...
    def cudaFree(self, devPtr: int) -> of.CudaResult: ...
    def cudaHostAlloc(self, size: int, flags: int) -> of.CudaResult: ...
    def cudaFreeHost(self, ptr: int) -> of.CudaResult: ...
    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: Any) -> of.CudaResult: ...
    def cudaStreamCreateWithFlags(self, flags: int) -> of.CudaResult: ...
    def cudaStreamSynchronize(self, stream: Any) -> of.CudaResult: ...
    def cudaStreamDestroy(self, stream: Any) -> of.CudaResult: ...
    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> of.CudaResult: ...
    def cudaStreamEndCapture(self, stream: Any) -> of.CudaResult: ...
    def cudaGraphInstantiate(self, graph: Any, flags: int) -> of.CudaResult: ...
    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> of.CudaResult: ...
    def cudaGraphExecDestroy(self, graphExec: Any) -> of.CudaResult: ...
    def cudaGraphDestroy(self, graph: Any) -> of.CudaResult: ...


@dataclass(frozen=True)
class Libraries:
    """TensorRT and CUDA, and what TensorRT complains of: its functions fail with None, and say why only there."""

    trt: TensorRtModule
    cuda: CudaModule
    logger: of.ILogger
    messages: deque[str]

    @property
    def version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", self.trt.__version__))

    def said(self) -> str:
        """The last errors, for an error's text. They name layers and files of NVIDIA's, never a patient's."""
        text = "; ".join(list(self.messages)[-_SAID_MESSAGES:]) or "it did not say why"
        return "".join(character if character.isprintable() else " " for character in text)[:_SAID_CHARACTERS]

    def value(self, result: of.CudaResult, doing: str) -> Any:
        """What a CUDA function gave; raises RuntimeFailedError with CUDA's words and the next step."""
        error, *values = result
        if error != self.cuda.cudaError_t.cudaSuccess:
            text = self.cuda.cudaGetErrorString(error)[1].decode(errors="replace")
            hint = _NEXT_STEP.get(
                error.name, "see nvidia-smi and the kernel's log; then run: dicomnode engines selftest"
            )
            raise RuntimeFailedError(f"{doing}: CUDA says {error.name} ({text})", hint)
        return values[0] if values else None


def assemble(trt: TensorRtModule, cuda: CudaModule) -> Libraries:
    """Both with a logger that keeps the last errors."""
    messages: deque[str] = deque(maxlen=_KEPT_MESSAGES)

    def log(_self: object, severity: Any, msg: str) -> None:  # from any thread: short, and never raises
        if severity <= trt.ILogger.Severity.ERROR:
            messages.append(msg)

    logger = type("Log", (cast(Any, trt.ILogger),), {"log": log})()
    return Libraries(trt, cuda, logger, messages)


@functools.cache
def load() -> Libraries:
    """The installed libraries, once a process. Raises RuntimeFailedError that says what is missing."""
    trt, cuda = _imported("tensorrt", "tensorrt_bindings"), _imported("cuda.bindings.runtime")
    libraries = assemble(trt, cuda)
    if not _LOWEST <= libraries.version[:2] < _BELOW:
        raise RuntimeFailedError(f"TensorRT {trt.__version__} is installed; 10.13 to 11 are known here", INSTALL_HINT)
    return libraries


def installed_packages() -> tuple[str, ...]:
    """Name and version of the packages that TensorRT's libraries came with: for CUDA 12 and 13 they differ."""
    found = (metadata.distributions(name=f"tensorrt-{build}-libs") for build in ("cu12", "cu13"))
    return tuple(sorted(f"{package.name} {package.version}" for packages in found for package in packages))


def _imported(*names: str) -> Any:
    reasons = []
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError as error:  # also where a shared library is missing that it is linked to
            reasons.append(str(error))
    raise RuntimeFailedError(f"{names[0]} cannot be imported ({reasons[-1]})", INSTALL_HINT)
