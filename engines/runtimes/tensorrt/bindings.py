"""All that is used of the Python bindings of TensorRT and CUDA: names, arguments and members of enumerations.

They come without types. These protocols give them some, so that mypy holds the runtime to what is written here, and
`tests/engines/runtimes/tensorrt/test_bindings.py` holds what is written here to the published bindings of several
versions. A class is named as in the bindings, and so are arguments. Numbers of enumerations differ between versions:
only names are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Shape = tuple[int, ...]
CudaResult = tuple[Any, ...]
"""(cudaError_t, values...): no function of CUDA raises."""


class ILogger(Protocol):
    """Called from threads of TensorRT. Must outlive all that was made with it."""

    def log(self, severity: Any, msg: str) -> None: ...


class Severity(Protocol):
    ERROR: Any


class LoggerClass(Protocol):
    Severity: Severity


class NetworkDefinitionCreationFlag(Protocol):
    STRONGLY_TYPED: Any


class BuilderFlag(Protocol):
    TF32: Any


class MemoryPoolType(Protocol):
    WORKSPACE: Any


class TensorIOMode(Protocol):
    INPUT: Any


class DataType(Protocol):
    FLOAT: Any


class ExecutionContextAllocationStrategy(Protocol):
    ON_PROFILE_CHANGE: Any


class INetworkDefinition(Protocol):
    """Only handed on."""


class ITimingCache(Protocol):
    def serialize(self) -> bytes: ...


class IOptimizationProfile(Protocol):
    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None: ...


class IBuilderConfig(Protocol):
    builder_optimization_level: int

    def set_flag(self, flag: Any) -> None: ...
    def clear_flag(self, flag: Any) -> None: ...
    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...
    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...


class Builder(Protocol):
    def create_network(self, flags: int) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None: ...


class ParserError(Protocol):
    def desc(self) -> str: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class OnnxParser(Protocol):
    @property
    def num_errors(self) -> int: ...
    def get_error(self, index: int) -> ParserError: ...
    def parse(self, model: bytes) -> bool: ...


class IExecutionContext(Protocol):
    """For one thread at a time."""

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool: ...
    def set_input_shape(self, name: str, shape: Shape) -> bool: ...
    def get_tensor_shape(self, name: str) -> Sequence[int]: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class ICudaEngine(Protocol):
    @property
    def num_io_tensors(self) -> int: ...
    @property
    def num_optimization_profiles(self) -> int: ...
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> Any: ...
    def get_tensor_dtype(self, name: str) -> Any: ...
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Sequence[int]]: ...
    def create_execution_context(self, strategy: Any) -> IExecutionContext | None: ...


class Runtime(Protocol):
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...


class cudaError_t(Protocol):
    cudaSuccess: Any


class cudaMemcpyKind(Protocol):
    cudaMemcpyHostToDevice: Any
    cudaMemcpyDeviceToHost: Any


class cudaStreamCaptureMode(Protocol):
    cudaStreamCaptureModeThreadLocal: Any


class cudaDeviceProp(Protocol):
    name: bytes
    major: int
    minor: int
    multiProcessorCount: int
    totalGlobalMem: int
    l2CacheSize: int
