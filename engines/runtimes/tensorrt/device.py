"""The GPU that a plan is made for."""

from __future__ import annotations

from dataclasses import dataclass

from engines.card import Precision
from engines.runtimes.devices import cuda_index
from engines.runtimes.tensorrt import bindings as of
from engines.runtimes.tensorrt.libraries import Libraries


@dataclass(frozen=True)
class Gpu:
    """What of a GPU and its driver decides whether a plan is the right one for it.

    capability  compute capability, such as (9, 0)
    driver      newest CUDA version that the driver knows, as CUDA counts: 13010 is 13.1
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int
    l2_bytes: int
    driver: int

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What it has tensor cores for, the fastest first. bfloat16 came with compute capability 8.0 (Ampere)."""
        return ("float16", "bfloat16", "float32") if self.capability >= (8, 0) else ("float16", "float32")


def describe(libraries: Libraries, device: str) -> Gpu:
    """Raises RuntimeFailedError where there is no such GPU, or no driver."""
    cuda, number = libraries.cuda, cuda_index(device)
    driver = int(libraries.value(cuda.cudaDriverGetVersion(), "asking for the driver"))
    libraries.value(cuda.cudaGetDeviceCount(), "looking for GPUs")
    found: of.cudaDeviceProp = libraries.value(cuda.cudaGetDeviceProperties(number), f"asking what {device} is")
    return Gpu(
        name=found.name.decode(errors="replace").rstrip("\0"),
        capability=(int(found.major), int(found.minor)),
        multiprocessors=int(found.multiProcessorCount),
        memory_bytes=int(found.totalGlobalMem),
        l2_bytes=int(found.l2CacheSize),
        driver=driver,
    )
