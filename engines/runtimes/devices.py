"""The devices of this machine, by the names that sessions are given: "cpu", "cuda:0", "cuda:1", ..."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from engines.errors import RuntimeFailedError

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


def devices() -> tuple[str, ...]:
    """All of this machine, the GPUs first."""
    return (*(f"cuda:{index}" for index in range(cuda_devices())), CPU)
