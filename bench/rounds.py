"""Visits to servers, round by round in shuffled order: what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from bench.load import Load, Sending, sent
from bench.measures import file_system, machine_cpu_s, usage
from bench.results import Case, Figures, Results
from bench.servers import Server
from bench.studies import Kind, written
from dicomnode.testing.node import NODE_AE
from dicomnode.testing.processes import wait_until

Each = TypeVar("Each")

_WARM_INSTANCES: Final = 8
_MOST_FILES: Final = 64
_ARRIVAL_TIMEOUT_S: Final = 120.0
_LOOK_S: Final = 0.3
_RESTING_SHARE: Final = 0.1
"""Of one core: what servers use that wait."""
_LONGEST_REST_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class FlowExtent:
    """How much of the flow is measured: series stored before, series sent one by one, and at once, of each case."""

    stored: Sequence[int]
    one_by_one: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a run works, and how much.

    disk, memory  empty folders on the disk and on tmpfs (on the disk too where there is none)
    instances     of one visit; images of CT size, of MR size three times as many
    slices        of the series that is enhanced
    cases         of `bench.enhance.CASES`
    """

    disk: Path
    memory: Path
    rounds: int
    instances: int
    kinds: Sequence[Kind]
    associations: Sequence[int]
    flow: FlowExtent
    slices: int = 300
    cases: Sequence[str] = ()

    def load(self, kind: Kind, associations: int, instances: int | None = None) -> Load:
        """A load of about so many instances; its files are written when they are first needed."""
        wanted = instances or self.instances
        paths = self.files(kind, min(wanted, _MOST_FILES))
        return Load(paths, max(1, round(wanted / len(paths))), associations)

    def files(self, kind: Kind, count: int) -> list[Path]:
        folder = self.memory / "send" / f"{kind.size}-{count}"
        return sorted(folder.iterdir()) if folder.exists() else written(folder, kind, count)

    def where(self, folder: Path) -> str:
        return f"{file_system(folder)} {'in memory' if file_system(folder) == 'tmpfs' else 'on the disk'}"


@contextmanager
def fresh(above: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=above, ignore_cleanup_errors=True) as made:
        yield Path(made)


def shuffled(items: Sequence[Each], seed: object) -> list[Each]:
    """The same order for the same seed."""
    return random.Random(repr(seed)).sample(items, len(items))


@contextmanager
def noted(results: Results, what: str) -> Iterator[None]:
    """What cannot be measured is told at the end, and the rest goes on."""
    try:
        yield
    except (RuntimeError, TimeoutError, OSError, subprocess.SubprocessError) as error:
        results.failures.append(f"{what}: {error}")
        print(f"  failed: {results.failures[-1]}", file=sys.stderr, flush=True)


def attempt(results: Results, case: Case, measure: Callable[[], Figures]) -> None:
    """Measure a case once."""
    with noted(results, f"{case.part}, {case.subject}, {case.associations} associations"):
        figures = measure()
        results.add(case, figures)
        line = f"  {case.part:<8} {case.subject:<24} {case.kind} x{case.associations:<3}"
        print(f"{line} {figures.instances_s:9,.0f} inst/s {figures.mb_s:7,.0f} MB/s", file=sys.stderr, flush=True)


def warm(server: Server, load: Load) -> None:
    """A few instances, so that what is done once is done."""
    with sent(server.port, NODE_AE, Load(load.paths[:_WARM_INSTANCES], 1, 1)):
        pass


def visit(server: Server, load: Load) -> Figures:
    """Send a load; every instance must be answered with success and be there. Raises RuntimeError, TimeoutError."""
    _let_rest(server)
    held, before, machine_before = server.stored(), usage(server.pid), machine_cpu_s()
    own_before = time.process_time()
    with sent(server.port, NODE_AE, load) as sending:
        after, machine_after = usage(server.pid), machine_cpu_s()
    if sending.refused:
        raise RuntimeError(f"{sending.refused} of {sending.instances} instances were not answered with success")
    wanted = held + sending.instances
    wait_until(lambda: server.stored() >= wanted, _ARRIVAL_TIMEOUT_S, f"{wanted} instances had arrived")
    if server.stored() > wanted:
        raise RuntimeError(f"{server.stored() - held} instances are there, {sending.instances} were sent")
    cpu_s = after.cpu_s - before.cpu_s
    ours_s = cpu_s + sending.cpu_s + time.process_time() - own_before
    return Figures(
        instances_s=sending.instances / sending.seconds,
        mb_s=sending.bytes / sending.seconds / 1e6,
        cpu_ms=cpu_s / sending.instances * 1e3,
        peak_mb=after.peak_bytes / 1e6,
        largest_mb=after.largest_peak_bytes / 1e6,
        p50_ms=sending.p50_ms,
        p99_ms=sending.p99_ms,
        other_cores=max(0.0, machine_after - machine_before - ours_s) / sending.seconds,
    )


def _let_rest(server: Server) -> None:
    """Wait until the server has done what was left from before, or has taken long enough over it."""
    os.sync()  # nor is the disk to be busy with what others left
    deadline, before = time.monotonic() + _LONGEST_REST_S, usage(server.pid).cpu_s
    while time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        after = usage(server.pid).cpu_s
        if after - before <= _LOOK_S * _RESTING_SHARE:
            return
        before = after


def alone(sending: Sending) -> Figures:
    """The figures of what needs no server."""
    return Figures(
        instances_s=sending.instances / sending.seconds,
        mb_s=sending.bytes / sending.seconds / 1e6,
        cpu_ms=sending.cpu_s / sending.instances * 1e3,
        p50_ms=sending.p50_ms,
        p99_ms=sending.p99_ms,
    )


def memory_folder(disk: Path) -> Path:
    """A fresh folder on tmpfs, with room for what a visit sends; one on the disk where there is none."""
    shared_memory = Path("/dev/shm")
    roomy = shared_memory.is_dir() and shutil.disk_usage(shared_memory).free > 4 * 10**9
    return Path(tempfile.mkdtemp(prefix="dicomnode-bench-", dir=shared_memory if roomy else disk))
