"""TensorRT and CUDA in plain Python, for the runtime's own logic: what is called is recorded, and really computed.

It offers nothing that the published bindings lack: `test_bindings.py` holds it to them. Networks are computed
by ONNX Runtime. A stream does nothing until it is waited for, as a slow GPU would: who reads or overwrites a buffer too
early is found out. `refuse` names functions that fail as the real ones do: with None, False or a CUDA error.
"""

from __future__ import annotations

import ctypes
import enum
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class BuilderFlag(enum.IntEnum):
    TF32 = 3


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class ExecutionContextAllocationStrategy(enum.IntEnum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._model = b""


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content or b"timings"


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        if not all(low <= best <= high for low, best, high in zip(min, opt, max, strict=True)):
            raise ValueError("inconsistent")
        self._shapes[input] = [tuple(min), tuple(opt), tuple(max)]


class IBuilderConfig:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._profiles: list[dict[str, list[tuple[int, ...]]]] = []
        self._flags = {BuilderFlag.TF32}
        self._workspace = 0
        self.builder_optimization_level = 3

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        assert pool is MemoryPoolType.WORKSPACE
        self._workspace = pool_size

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return cache._content in (b"", b"timings")

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if "add_optimization_profile" in self._machine.refuse:
            return -1
        self._profiles.append(profile._shapes)
        return len(self._profiles) - 1


class ParserError:
    def desc(self) -> str:
        return "no importer registered\nfor it"

    def node_name(self) -> str:
        return "conv1"

    def node_operator(self) -> str:
        return "Conv"


class IExecutionContext:
    def __init__(self, machine: Machine, plan: dict[str, Any]) -> None:
        self._machine = machine
        self._plan = plan
        self._session = onnxruntime.InferenceSession(bytes.fromhex(plan["model"]), providers=["CPUExecutionProvider"])
        self._profile: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = self._plan["profiles"][profile_index]
        return "set_optimization_profile_async" not in self._machine.refuse

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._profile[name]
        inside = all(a <= length <= b for a, length, b in zip(low, shape, high, strict=True))
        self._shapes[name] = tuple(shape)
        return inside and "set_input_shape" not in self._machine.refuse

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if "get_tensor_shape" in self._machine.refuse:
            return (-1, 4)
        return self._inferred()[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory % 64 == 0

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._machine.called.append("execute_async_v3")
        shapes = dict(self._shapes)

        def compute() -> None:
            given = {name: self._machine.view(self._addresses[name], shape).copy() for name, shape in shapes.items()}
            for name, values in self._run(given).items():
                self._machine.view(self._addresses[name], values.shape)[...] = values

        self._machine.streams[stream_handle].do(compute)
        return "execute_async_v3" not in self._machine.refuse

    def _inferred(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs, from those for two small images: large ones would take long."""
        small, large = (
            self._run({name: np.zeros((1, shape[1], side, side), np.float32) for name, shape in self._shapes.items()})
            for side in (32, 64)
        )
        (batch, _, rows, columns) = next(iter(self._shapes.values()))
        wanted = {2: rows, 3: columns}
        return {
            name: tuple(
                batch if axis == 0 else a + (b - a) * (wanted.get(axis, 32) - 32) // 32
                for axis, (a, b) in enumerate(zip(small[name].shape, large[name].shape, strict=True))
            )
            for name in small
        }

    def _run(self, given: dict[str, Any]) -> dict[str, Any]:
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, given), strict=True))


class ICudaEngine:
    def __init__(self, machine: Machine, plan: dict[str, Any]) -> None:
        self._machine = machine
        self._plan = plan

    @property
    def num_io_tensors(self) -> int:
        return len(self._plan["tensors"])

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._plan["profiles"])

    def get_tensor_name(self, index: int) -> str:
        return str(self._plan["tensors"][index])

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._plan["profiles"][0] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.HALF if "get_tensor_dtype" in self._machine.refuse else DataType.FLOAT

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._plan["profiles"][profile_index][name]]

    def create_execution_context(self, strategy: Any) -> IExecutionContext | None:
        assert strategy is ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        if self._machine.refuses("create_execution_context", "out of memory"):
            return None
        return IExecutionContext(self._machine, self._plan)


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorInvalidDevice = 101
    cudaErrorStreamCaptureUnsupported = 900


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class cudaDeviceProp:
    name = b"NVIDIA Double\0"
    major = 9
    minor = 0
    multiProcessorCount = 132
    totalGlobalMem = 80 * 2**30
    l2CacheSize = 50 * 2**20


class _Stream:
    def __init__(self) -> None:
        self._queue: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None

    def do(self, work: Callable[[], None]) -> None:
        (self._queue if self.captured is None else self.captured).append(work)

    def finish(self) -> None:
        for work in self._queue:
            work()
        self._queue.clear()


class Machine:
    """What both modules share: memory, streams, and which functions are to fail.

    busiest  how many streams had work at the same time
    """

    def __init__(self) -> None:
        self.refuse: dict[str, cudaError_t] = {}
        self.called: list[str] = []
        self.streams: dict[int, _Stream] = {}
        self.memory: dict[int, Any] = {}
        self.busiest = 0
        self.log: Any = None

    def refuses(self, name: str, reason: str) -> bool:
        if name in self.refuse:
            self.log.log(ILogger.Severity.WARNING, "a warning")
            self.log.log(ILogger.Severity.ERROR, reason)
            return True
        return False

    def view(self, address: int, shape: tuple[int, ...]) -> Any:
        size = int(np.prod(shape)) * 4
        return np.frombuffer((ctypes.c_ubyte * size).from_address(address), np.float32).reshape(shape)


class TensorRtDouble:
    """The module `tensorrt`."""

    ILogger = ILogger
    DataType = DataType
    TensorIOMode = TensorIOMode
    BuilderFlag = BuilderFlag
    MemoryPoolType = MemoryPoolType
    NetworkDefinitionCreationFlag = NetworkDefinitionCreationFlag
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy

    def __init__(self, machine: Machine, version: str = "11.4.0.106") -> None:
        self.__version__ = version

        class Builder:
            def __init__(self, logger: Any) -> None:
                machine.log = logger
                machine.called.append("Builder")
                if machine.refuses("Builder", "CUDA initialization failure with error: 35"):
                    raise TypeError("pybind11::init(): factory function returned nullptr")

            def create_network(self, flags: int) -> INetworkDefinition:
                assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
                return INetworkDefinition(flags)

            def create_builder_config(self) -> IBuilderConfig:
                return IBuilderConfig(machine)

            def create_optimization_profile(self) -> IOptimizationProfile:
                return IOptimizationProfile()

            def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
                assert config._flags == set()
                assert config._workspace
                if machine.refuses("build_serialized_network", "Could not find any implementation for node conv1"):
                    return None
                graph = onnx.load_model_from_string(network._model).graph
                plan = {
                    "model": network._model.hex(),
                    "tensors": [value.name for value in (*graph.input, *graph.output)],
                    "profiles": config._profiles,
                }
                return json.dumps(plan).encode()

        class OnnxParser:
            def __init__(self, network: INetworkDefinition, logger: Any) -> None:
                self._network = network

            @property
            def num_errors(self) -> int:
                return 1

            def get_error(self, index: int) -> ParserError:
                return ParserError()

            def parse(self, model: bytes) -> bool:
                assert isinstance(model, bytes)
                self._network._model = model
                return "parse" not in machine.refuse

        class Runtime:
            def __init__(self, logger: Any) -> None:
                machine.log = logger
                if machine.refuses("Runtime", "CUDA initialization failure with error: 35"):
                    raise TypeError("pybind11::init(): factory function returned nullptr")

            def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
                machine.called.append("deserialize_cuda_engine")
                if machine.refuses("deserialize_cuda_engine", "Version tag does not match"):
                    return None
                return ICudaEngine(machine, json.loads(serialized_engine))

        self.Builder, self.OnnxParser, self.Runtime = Builder, OnnxParser, Runtime


class CudaDouble:
    """The module `cuda.bindings.runtime`: each function gives (error, values...)."""

    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def _done(self, name: str, *values: Any) -> tuple[Any, ...]:
        self._machine.called.append(name)
        error = self._machine.refuse.get(name, cudaError_t.cudaSuccess)
        return (error, *(values if error == cudaError_t.cudaSuccess else (None,) * len(values)))

    def cudaGetErrorString(self, error: Any) -> tuple[Any, ...]:
        return cudaError_t.cudaSuccess, f"text of {error.name}".encode()

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return self._done("cudaDriverGetVersion", 13010)

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return self._done("cudaGetDeviceCount", 1)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        return self._done("cudaGetDeviceProperties", cudaDeviceProp())

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        return self._done("cudaSetDevice")

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        taken = sum(len(block) for block in self._machine.memory.values())
        return self._done("cudaMemGetInfo", cudaDeviceProp.totalGlobalMem - taken, cudaDeviceProp.totalGlobalMem)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._taken("cudaMalloc", size)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        return self._taken("cudaHostAlloc", size)

    def _taken(self, name: str, size: int) -> tuple[Any, ...]:
        if name in self._machine.refuse:
            return self._done(name, None)
        block = (ctypes.c_ubyte * (size + 64))()
        address = -(-ctypes.addressof(block) // 64) * 64
        self._machine.memory[address] = block
        return self._done(name, address)

    def cudaFree(self, devPtr: int) -> tuple[Any, ...]:
        del self._machine.memory[devPtr]
        return self._done("cudaFree")

    def cudaFreeHost(self, ptr: int) -> tuple[Any, ...]:
        del self._machine.memory[ptr]
        return self._done("cudaFreeHost")

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: Any) -> tuple[Any, ...]:
        self._machine.streams[int(stream)].do(lambda: ctypes.memmove(dst, src, count) and None)
        return self._done("cudaMemcpyAsync")

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == self.cudaStreamNonBlocking
        handle = len(self._machine.called) + 1
        self._machine.streams[handle] = _Stream()
        return self._done("cudaStreamCreateWithFlags", handle)

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:
        busy = sum(bool(each._queue) for each in self._machine.streams.values())
        self._machine.busiest = max(self._machine.busiest, busy)
        self._machine.streams[int(stream)].finish()
        return self._done("cudaStreamSynchronize")

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any, ...]:
        del self._machine.streams[int(stream)]
        return self._done("cudaStreamDestroy")

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any, ...]:
        assert not self._machine.streams[int(stream)]._queue
        self._machine.streams[int(stream)].captured = []
        return self._done("cudaStreamBeginCapture")

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        taken = self._machine.streams[int(stream)]
        graph, taken.captured = taken.captured, None
        return self._done("cudaStreamEndCapture", graph)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        return self._done("cudaGraphInstantiate", list(graph))

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> tuple[Any, ...]:
        for work in graphExec:
            self._machine.streams[int(stream)].do(work)
        return self._done("cudaGraphLaunch")

    def cudaGraphExecDestroy(self, graphExec: Any) -> tuple[Any, ...]:
        graphExec.clear()
        return self._done("cudaGraphExecDestroy")

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        return self._done("cudaGraphDestroy")
