"""A slot: one execution context with a stream and buffers of its own. Two of them copy and compute at the same time."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineInputError, RuntimeFailedError
from engines.runtimes.tensorrt import bindings as of
from engines.runtimes.tensorrt.libraries import Libraries
from engines.runtimes.tensorrt.profiles import Profile, Shape

Arrays = Mapping[str, NDArray[np.float32]]

_ITEM_BYTES: Final = 4


@dataclass(frozen=True)
class Loaded:
    """A plan on its device. `profiles` as the plan itself tells them."""

    libraries: Libraries
    engine: of.ICudaEngine
    profiles: tuple[Profile, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class _Staged:
    """Room for one tensor on both sides: pinned on the host, so that a copy needs nobody's attention."""

    def __init__(self, libraries: Libraries, largest: Shape, undo: ExitStack) -> None:
        cuda, size = libraries.cuda, math.prod(largest) * _ITEM_BYTES
        self.host = int(libraries.value(cuda.cudaHostAlloc(size, cuda.cudaHostAllocDefault), f"pinning {size} bytes"))
        undo.callback(cuda.cudaFreeHost, self.host)
        self.device = int(libraries.value(cuda.cudaMalloc(size), f"taking {size} bytes of the GPU"))
        undo.callback(cuda.cudaFree, self.device)
        pinned = (ctypes.c_float * math.prod(largest)).from_address(self.host)
        self._values: NDArray[np.float32] = np.ctypeslib.as_array(pinned)

    def view(self, shape: Shape) -> NDArray[np.float32]:
        return self._values[: math.prod(shape)].reshape(shape)


class Slot:
    """For one profile, and one thread at a time. After `submit` comes `result`.

    A shape that comes again is captured as a CUDA graph, which starts all its kernels at once; with another shape the
    graph is given up, for it holds addresses and settings of the context.
    """

    def __init__(self, loaded: Loaded, profile: int) -> None:
        self._loaded = loaded
        self._cuda = loaded.libraries.cuda
        self._shapes: tuple[Shape, ...] = ()
        self._given: dict[str, Shape] = {}
        self._runs = 0
        self._graph: Any = None
        with ExitStack() as undo:  # in this order reversed; what CUDA says to it no longer matters
            self._stream = self._value(
                self._cuda.cudaStreamCreateWithFlags(self._cuda.cudaStreamNonBlocking), "making a stream"
            )
            undo.callback(self._cuda.cudaStreamDestroy, self._stream)
            self._context = self._made_context(profile)
            largest = {bounds.name: bounds.high for bounds in loaded.profiles[profile].bounds}
            self._set_shapes(tuple(largest[name] for name in loaded.inputs))
            largest |= self._given
            self._staged = {name: _Staged(loaded.libraries, shape, undo) for name, shape in largest.items()}
            for name, staged in self._staged.items():
                self._must(self._context.set_tensor_address(name, staged.device), f"the address of {name}")
            undo.callback(self._give_up_graph)
            undo.callback(self._cuda.cudaStreamSynchronize, self._stream)
            self._undo = undo.pop_all()

    @property
    def has_graph(self) -> bool:
        return self._graph is not None

    def submit(self, tensors: Arrays) -> None:
        """Begin with these tensors; they may be changed as soon as this returns."""
        shapes = tuple(tensors[name].shape for name in self._loaded.inputs)
        if shapes != self._shapes:
            self._give_up_graph()
            self._set_shapes(shapes)
            self._runs = 0
        for name in self._loaded.inputs:
            np.copyto(self._staged[name].view(tensors[name].shape), tensors[name])
        if self._graph is not None:
            self._value(self._cuda.cudaGraphLaunch(self._graph, self._stream), "starting the graph")
            return
        self._enqueue()
        self._runs += 1
        if self._runs == 2:  # the first run of a shape does what is put off until then: it must not be captured
            self._graph = self._captured()

    def result(self) -> dict[str, NDArray[np.float32]]:
        """The outputs of what was submitted, once they are there."""
        self._value(self._cuda.cudaStreamSynchronize(self._stream), "computing")
        return {name: self._staged[name].view(shape).copy() for name, shape in self._given.items()}

    def close(self) -> None:
        """Wait for the device, and give everything back. Again, it does nothing."""
        self._undo.close()
        self._staged = {}

    def _made_context(self, profile: int) -> of.IExecutionContext:
        strategy = self._loaded.libraries.trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        context = self._loaded.engine.create_execution_context(strategy)
        if context is None:
            raise RuntimeFailedError(
                f"TensorRT made no execution context: {self._loaded.libraries.said()}",
                "the GPU's memory may be full: see nvidia-smi",
            )
        self._must(context.set_optimization_profile_async(profile, int(self._stream)), f"profile {profile}")
        self._value(self._cuda.cudaStreamSynchronize(self._stream), "choosing the profile")
        return context

    def _set_shapes(self, shapes: Sequence[Shape]) -> None:
        for name, shape in zip(self._loaded.inputs, shapes, strict=True):
            if not self._context.set_input_shape(name, tuple(shape)):
                raise EngineInputError(f"the plan does not take {name} {shape}: {self._loaded.libraries.said()}")
        self._given = {name: tuple(self._context.get_tensor_shape(name)) for name in self._loaded.outputs}
        if any(length < 0 for shape in self._given.values() for length in shape):
            raise RuntimeFailedError(
                "the shape of an output depends on the pixels", "TensorRT is not used for such networks here"
            )
        self._shapes = tuple(shapes)

    def _enqueue(self) -> None:
        cuda, kinds = self._cuda, self._cuda.cudaMemcpyKind
        for name, shape in zip(self._loaded.inputs, self._shapes, strict=True):
            staged, size = self._staged[name], math.prod(shape) * _ITEM_BYTES
            copied = cuda.cudaMemcpyAsync(staged.device, staged.host, size, kinds.cudaMemcpyHostToDevice, self._stream)
            self._value(copied, "copying to the GPU")
        self._must(self._context.execute_async_v3(int(self._stream)), "the start of the network")
        for name, shape in self._given.items():
            staged, size = self._staged[name], math.prod(shape) * _ITEM_BYTES
            copied = cuda.cudaMemcpyAsync(staged.host, staged.device, size, kinds.cudaMemcpyDeviceToHost, self._stream)
            self._value(copied, "copying from the GPU")

    def _captured(self) -> Any:
        """What `_enqueue` does, recorded for the next time; None where the network does something that cannot be. In
        this thread only: other sessions go on allocating."""
        cuda = self._cuda
        self._value(cuda.cudaStreamSynchronize(self._stream), "computing")
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._value(cuda.cudaStreamBeginCapture(self._stream, mode), "capturing a graph")
        try:
            self._enqueue()
            graph = self._value(cuda.cudaStreamEndCapture(self._stream), "capturing a graph")
        except RuntimeFailedError:  # each run is then started kernel by kernel; a fault of the device shows there
            cuda.cudaStreamEndCapture(self._stream)
            return None
        made = self._value(cuda.cudaGraphInstantiate(graph, 0), "making a graph")
        cuda.cudaGraphDestroy(graph)
        return made

    def _give_up_graph(self) -> None:
        if self._graph is not None:
            self._cuda.cudaStreamSynchronize(self._stream)  # what it would say, the next call says too
            self._cuda.cudaGraphExecDestroy(self._graph)
            self._graph = None

    def _value(self, result: of.CudaResult, doing: str) -> Any:
        return self._loaded.libraries.value(result, doing)

    def _must(self, done: bool, what: str) -> None:
        if not done:
            raise RuntimeFailedError(
                f"TensorRT refused {what}: {self._loaded.libraries.said()}", "run: dicomnode engines selftest"
            )
