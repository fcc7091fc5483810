"""A plan, ready to compute."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.card import Precision
from engines.errors import EngineInputError, RuntimeFailedError
from engines.runtimes.base import Tensors
from engines.runtimes.tensorrt.building import created
from engines.runtimes.tensorrt.libraries import Libraries
from engines.runtimes.tensorrt.profiles import Bounds, Profile, fitting, open_axes, pieces
from engines.runtimes.tensorrt.slots import Loaded, Slot
from engines.runtimes.tensors import check_tensors

_SLOTS: Final = 2
"""While one computes, the other copies."""


class TensorRtSession:
    """A `Session` of a plan. Contexts are made at the first batch that needs them."""

    def __init__(self, libraries: Libraries, plan: bytes, device: int, precision: Precision) -> None:
        self._device = device
        self._precision = precision
        self._libraries = libraries
        self._loaded: Loaded | None = _load(libraries, plan, device)
        self._slots: dict[int, list[Slot]] = {}
        self._lock = threading.Lock()  # a context is one thread's at a time, whatever a caller does

    @property
    def identity(self) -> str:
        major, minor, *_ = self._libraries.version
        return f"tensorrt-{major}.{minor}/{self._precision}"

    @property
    def graphs(self) -> int:
        """How many CUDA graphs are ready."""
        return sum(slot.has_graph for slots in self._slots.values() for slot in slots)

    def run(self, tensors: Tensors) -> Tensors:
        with self._lock:
            if self._loaded is None:
                raise RuntimeFailedError("the session is closed", "open another")
            check_tensors(open_axes(self._loaded.profiles), tensors)
            batch = _batch(tensors)
            number = fitting(self._loaded.profiles, {name: tensor.shape for name, tensor in tensors.items()})
            self._use_device()
            cuts = pieces(batch, self._loaded.profiles[number].largest_batch)
            return self._run_pieces(self._slots_for(number, len(cuts)), tensors, cuts)

    def close(self) -> None:
        with self._lock:
            if self._loaded is None:
                return
            self._libraries.cuda.cudaSetDevice(self._device)  # where the device is lost, there is nothing to give back
            for slots in self._slots.values():
                for slot in slots:
                    slot.close()
            self._slots = {}
            self._loaded = None

    def _use_device(self) -> None:
        """CUDA's current device is each thread's own."""
        self._libraries.value(self._libraries.cuda.cudaSetDevice(self._device), f"using cuda:{self._device}")

    def _slots_for(self, profile: int, wanted: int) -> Sequence[Slot]:
        assert self._loaded is not None
        slots = self._slots.setdefault(profile, [])
        while len(slots) < min(wanted, _SLOTS):
            slots.append(Slot(self._loaded, profile))
        return slots

    @staticmethod
    def _run_pieces(slots: Sequence[Slot], tensors: Tensors, cuts: Sequence[slice]) -> Tensors:
        """Piece by piece, in turn on the slots; a slot's last piece is fetched right before its next one."""
        gathered: dict[str, NDArray[np.float32]] = {}
        for number in range(len(cuts) + len(slots)):
            slot = slots[number % len(slots)]
            if 0 <= number - len(slots) < len(cuts):
                _gather(gathered, cuts[number - len(slots)], cuts[-1].stop, slot.result())
            if number < len(cuts):
                slot.submit({name: tensor[cuts[number]] for name, tensor in tensors.items()})
        return gathered


def _load(libraries: Libraries, plan: bytes, device: int) -> Loaded:
    libraries.value(libraries.cuda.cudaSetDevice(device), f"using cuda:{device}")
    libraries.messages.clear()
    runtime = created(libraries, "runtime", lambda: libraries.trt.Runtime(libraries.logger))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise RuntimeFailedError(
            f"TensorRT does not take the plan: {libraries.said()}", "build it anew: dicomnode engines build"
        )
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    for name in names:
        if engine.get_tensor_dtype(name) != libraries.trt.DataType.FLOAT:
            raise RuntimeFailedError(f"{name} of the plan is no float32", "build it anew: dicomnode engines build")
    inputs = tuple(name for name in names if engine.get_tensor_mode(name) == libraries.trt.TensorIOMode.INPUT)
    profiles = tuple(
        Profile(tuple(_bounds(engine.get_tensor_profile_shape(name, number), name) for name in inputs))
        for number in range(engine.num_optimization_profiles)
    )
    return Loaded(libraries, engine, profiles, inputs, tuple(name for name in names if name not in inputs))


def _bounds(shapes: Sequence[Sequence[int]], name: str) -> Bounds:
    low, best, high = (tuple(int(length) for length in shape) for shape in shapes)
    return Bounds(name, low, best, high)


def _batch(tensors: Tensors) -> int:
    batches = {len(tensor) for tensor in tensors.values()}
    if len(batches) != 1:
        raise EngineInputError(f"the inputs have {sorted(batches)} slices", "give all inputs the same number")
    return batches.pop()


def _gather(
    gathered: dict[str, NDArray[np.float32]], cut: slice, batch: int, found: dict[str, NDArray[np.float32]]
) -> None:
    for name, values in found.items():
        if values.shape[:1] != (cut.stop - cut.start,):
            raise RuntimeFailedError(f"{name} does not have one entry a slice", "another runtime computes this engine")
        if name not in gathered:
            gathered[name] = np.empty((batch, *values.shape[1:]), np.float32)
        gathered[name][cut] = values
