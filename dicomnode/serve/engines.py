"""The engine service of a node: how many processes, on which devices, and with how much memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dicomnode.config import Config
from dicomnode.inference.compiled import remove_unused
from dicomnode.inference.dispatch import Extent
from dicomnode.inference.memory import SharedFolders
from dicomnode.inference.service import EngineService
from dicomnode.workers import WorkerPool
from engines.registry import default_registry
from engines.runtimes.choice import share
from engines.runtimes.devices import CPU, devices
from engines.runtimes.processor import this_processor

_MOST_ON_PROCESSORS: Final = 4
"""Engine processes where there is no GPU, unless the configuration says more: each has the networks for itself."""

_MEMORY: Final = Path("/dev/shm")  # noqa: S108  only folders of our own in it are used


def engine_service(config: Config, at_once: int) -> EngineService:
    """Resident engines, for so many series at once."""
    remove_unused(config.compiled)
    extent = Extent(
        arguments=_processes(config, config.engines.devices or devices()),
        idle_s=config.engines.idle_unload_s,
        memory_bytes=None if _gpus(config.engines.devices or devices()) else config.limits.worker_memory_mb << 20,
    )
    judges = WorkerPool("dicomnode.inference.gates", at_once, config.limits.worker_memory_mb << 20)
    return EngineService(extent, judges, at_once, default_registry(config.bundles).source)


def shared_folders(config: Config) -> SharedFolders:
    """Where decoded series lie on their way through engines."""
    disk = config.files / "scratch" / (config.node.name or "")  # the result store empties it
    return SharedFolders(_MEMORY if _MEMORY.is_dir() else None, disk, config.engines.shared_mb << 20)


def _processes(config: Config, there: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """What each engine process is started with: one a GPU, or several that share the processor's cores. What one GPU
    cannot compute, none of them can: it is computed on the processor, by all alike, and by one runtime."""
    wanted, gpus = config.engines.processes, _gpus(there)
    cores = this_processor().cores
    if gpus:
        count = len(gpus) if wanted == "auto" else wanted
        orders = [tuple(device for device in there if device in (gpus[one % len(gpus)], CPU)) for one in range(count)]
        return [_process(config, order, max(1, cores // count)) for order in orders]
    shared = share(cores, _MOST_ON_PROCESSORS if wanted == "auto" else wanted)
    return [_process(config, there, shared.threads) for _ in range(shared.processes)]


def _process(config: Config, order: tuple[str, ...], threads: int) -> dict[str, Any]:
    engines = config.engines
    config.compiled.mkdir(mode=0o700, exist_ok=True)
    return {
        "wish": {"runtime": engines.runtime, "precision": engines.precision, "devices": list(order)},
        "threads": threads,
        "cache": str(config.compiled),
        "memory_bytes": engines.memory_mb << 20,
        "idle_s": engines.idle_unload_s,
    }


def _gpus(there: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(device for device in there if device != CPU)
