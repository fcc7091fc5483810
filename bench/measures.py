"""What processes use, from Linux's /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_SESSION, _USER, _SYSTEM, _CHILD_USER, _CHILD_SYSTEM, _THREADS, _RESIDENT = 3, 11, 12, 13, 14, 17, 21
"""Fields of /proc/PID/stat, counted from the one behind the name."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process now. `cpu_s` has that of its ended children too; `peak_bytes` is the most it ever had resident."""

    pid: int
    name: str
    cpu_s: float
    resident_bytes: int
    peak_bytes: int
    threads: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Usage:
    """All processes of a session. Memory that processes share is counted in each."""

    cpu_s: float
    peak_bytes: int
    largest_peak_bytes: int


def processes(session: int) -> list[Process]:
    """The processes of a session (setsid(2)): what `ServerProcess` started, and all its children."""
    found = (_process(path.parent, session) for path in Path("/proc").glob("[0-9]*/stat"))
    return [process for process in found if process is not None]


def usage(session: int) -> Usage:
    """What a session has used up to now."""
    found = processes(session)
    peaks = [process.peak_bytes for process in found]
    return Usage(sum(process.cpu_s for process in found), sum(peaks), max(peaks, default=0))


def _process(folder: Path, session: int) -> Process | None:
    try:
        stat = folder.joinpath("stat").read_text()
        fields = stat.rpartition(")")[2].split()
        if int(fields[_SESSION]) != session:
            return None
        return Process(
            pid=int(folder.name),
            name=stat[stat.index("(") + 1 : stat.rindex(")")],
            cpu_s=sum(int(fields[at]) for at in (_USER, _SYSTEM, _CHILD_USER, _CHILD_SYSTEM)) / _TICKS_A_SECOND,
            resident_bytes=int(fields[_RESIDENT]) * _PAGE_BYTES,
            peak_bytes=_peak_bytes(folder),
            threads=int(fields[_THREADS]),
            descriptors=sum(1 for _ in folder.joinpath("fd").iterdir()),
        )
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended while we looked


def _peak_bytes(folder: Path) -> int:
    for line in folder.joinpath("status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # a zombie has no memory


def machine_cpu_s() -> float:
    """Processor seconds that the whole machine has worked since it started."""
    user, nice, system, _idle, _wait, interrupt, soft_interrupt, *_ = _machine_ticks()
    return (user + nice + system + interrupt + soft_interrupt) / _TICKS_A_SECOND


def _machine_ticks() -> Iterator[int]:
    return map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])


def file_system(folder: Path) -> str:
    """The type of file system that a folder lies on, such as ext4 or tmpfs."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(mount, kind) for mount, kind in mounts if folder.resolve().is_relative_to(mount)]
    return max(above, key=lambda each: len(each[0]))[1]
