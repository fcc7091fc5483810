"""The devices of this machine, by the names that sessions are given: "cpu", "cuda:0", "cuda:1", ..."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from engines.errors import RuntimeFailedError
from engines.runtimes.processor import this_processor

CPU: Final = "cpu"

_CUDA: Final = re.compile(r"cuda:(\d{1,3})")
_DEVICE_FILE: Final = re.compile(r"nvidia\d{1,3}")


def cuda_index(device: str) -> int:
    """0 of "cuda:0". Raises RuntimeFailedError on the name of anything but a GPU."""
    found = _CUDA.fullmatch(device)
    if found is None:
        raise RuntimeFailedError(f"there is no device {device[:40]!r}", 'devices are "cpu", "cuda:0", "cuda:1", ...')
    return int(found[1])


def cuda_devices(files: Path = Path("/dev")) -> int:
    """How many NVIDIA GPUs the driver shows us.

    Counted by their device files: to ask CUDA would set it up in this process, and it does not survive a fork.
    """
    try:
        return sum(1 for file in files.iterdir() if _DEVICE_FILE.fullmatch(file.name))
    except OSError:
        return 0


def model_of(device: str, proc: Path = Path("/proc")) -> str:
    """What a device is: the processor with its instructions for bfloat16, or the GPUs here with their driver."""
    if device == CPU:
        processor = this_processor(proc)
        return f"{processor.model} {processor.bfloat16}".strip()
    driver = proc / "driver" / "nvidia"
    told = [driver / "version", *sorted(driver.glob("gpus/*/information"))]
    lines = [line for file in told for line in _lines(file) if line.startswith(("NVRM", "Model"))]
    return "; ".join(" ".join(line.split()) for line in lines)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def devices() -> tuple[str, ...]:
    """All of this machine, the GPUs first."""
    return (*(f"cuda:{index}" for index in range(cuda_devices())), CPU)
