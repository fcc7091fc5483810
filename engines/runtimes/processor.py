"""What this machine's processor can do, and how much of it is ours."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BFLOAT16_FLAGS: Final = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
"""Flags of Linux for instructions that multiply bfloat16, the fastest first; by the names that people know."""


@dataclass(frozen=True)
class Processor:
    """cores: that may be used; bfloat16: the instructions that multiply it, "" where it has none."""

    cores: int
    model: str = ""
    bfloat16: str = ""


def parse_processor(cpuinfo: str, cores: int) -> Processor:
    """From the text of /proc/cpuinfo. A flag counts where every core listed has it."""
    flags = [set(value.split()) for key, value in _entries(cpuinfo) if key == "flags"]
    common = set.intersection(*flags) if flags else set()
    models = [value for key, value in _entries(cpuinfo) if key == "model name"]
    bfloat16 = [name for flag, name in BFLOAT16_FLAGS.items() if flag in common]
    return Processor(cores, next(iter(models), ""), next(iter(bfloat16), ""))


def parse_quota(cpu_max: str) -> float | None:
    """Cores that a control group may use, from its `cpu.max` ("200000 100000": two); None where it is not limited."""
    quota, _, period = cpu_max.strip().partition(" ")
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None
    return int(quota) / int(period)


def usable_cores(allowed: int, quotas: Iterable[float | None]) -> int:
    """Whole cores of those that we may run on, under all limits; at least one."""
    return max(1, min([allowed, *(int(quota) for quota in quotas if quota is not None)]))


def this_processor(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> Processor:
    """The processor of this machine. What cannot be read (no Linux, no control groups) limits nothing."""
    quotas = [parse_quota(_text(groups / "cpu.max"))]  # a container's own group is the root of what it sees
    return parse_processor(_text(proc / "cpuinfo"), usable_cores(len(os.sched_getaffinity(0)), quotas))


def _entries(cpuinfo: str) -> Iterable[tuple[str, str]]:
    for line in cpuinfo.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            yield key.strip(), value.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
