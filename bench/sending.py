"""Sending: ours beside storescu and dcmsend, into a storescp that was told not to delay, and into one as installed."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import DEVNULL
from typing import Final

from bench.load import CALLING_AE, Load, sent
from bench.results import Case, Figures, Results
from bench.rounds import Surroundings, attempt, fresh, shuffled
from bench.servers import NO_DELAY, PDU_BYTES, BenchStoreScp
from dicomnode.testing.node import NODE_AE

PART: Final = "send"
TUNED: Final = "to storescp --fork, TCP_NODELAY, PDU 128 KiB"
INSTALLED: Final = "to storescp --fork as installed"
OURS: Final = "dicomnode"
BLAST: Final = "blast (C, from memory)"

_SLOW_INSTANCES: Final = 40
"""As installed, storescp answers other senders some 20 times a second."""
_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class _Sink:
    """A storescp, and how DCMTK's senders are to behave towards it."""

    where: str
    options: Sequence[str]
    environment: dict[str, str]

    def started(self, folder: Path) -> BenchStoreScp:
        return BenchStoreScp(folder, NODE_AE, self.options, self.environment)


SINKS: Final = (
    _Sink(TUNED, ("--fork", "-pdu", str(PDU_BYTES)), dict(NO_DELAY)),
    _Sink(INSTALLED, ("--fork",), {}),
)

_Sender = Callable[[int, Load, _Sink], Figures]


def run(surroundings: Surroundings, results: Results) -> None:
    for number in range(surroundings.rounds):
        for sink in SINKS:
            with fresh(surroundings.memory) as folder, sink.started(folder) as server:
                _round(surroundings, results, (sink, server), number)


def _round(surroundings: Surroundings, results: Results, receiver: tuple[_Sink, BenchStoreScp], number: int) -> None:
    sink, server = receiver
    kind, counts = surroundings.kinds[0], [count for count in surroundings.associations if count <= 4]
    for name, count in shuffled([(name, count) for name in SENDERS for count in counts], (PART, sink.where, number)):
        fast = sink.where == TUNED or name == OURS
        load = surroundings.load(
            kind, count, surroundings.instances if fast else min(_SLOW_INSTANCES, surroundings.instances)
        )
        case = Case(PART, name, sink.where, kind.name, count)
        attempt(results, case, partial(_into, server, sink, SENDERS[name], load))


def _into(server: BenchStoreScp, sink: _Sink, sender: _Sender, load: Load) -> Figures:
    """Send into an emptied folder; everything must have arrived, under the names of its UIDs."""
    for path in server.files.iterdir():
        path.unlink()
    figures = sender(server.port, load, sink)
    distinct = server.stored()
    if distinct not in (len(load.paths), load.instances):
        raise RuntimeError(f"{distinct} of {len(load.paths)} instances arrived")
    return figures


def _ours(port: int, load: Load, _sink: _Sink) -> Figures:
    """Our sender in a process of its own; neither of its clocks runs while Python starts."""
    arguments = [str(port), NODE_AE, CALLING_AE, str(load.associations), str(load.passes), *map(str, load.paths)]
    process = subprocess.run(
        [sys.executable, "-m", "bench.ours", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if process.returncode:
        raise RuntimeError(process.stderr.strip()[-500:])
    said = json.loads(process.stdout)
    return _figures(load, said["seconds"], said["cpu_s"])


def _blast(port: int, load: Load, _sink: _Sink) -> Figures:
    with sent(port, NODE_AE, load) as sending:
        return _figures(load, sending.seconds, sending.cpu_s)


def _dcmtk(*command: str) -> _Sender:
    """A process an association, each with its share of the files."""

    def send(port: int, load: Load, sink: _Sink) -> Figures:
        calls = [*command, "-aet", CALLING_AE, "-aec", NODE_AE, "127.0.0.1", str(port)]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        running = [
            subprocess.Popen(
                [*calls, *share * load.passes], env={**os.environ, **sink.environment}, stdout=DEVNULL, stderr=DEVNULL
            )
            for share in (
                [str(path) for path in load.paths[number :: load.associations]] for number in range(load.associations)
            )
        ]
        codes = [process.wait(_TIMEOUT_S) for process in running]
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if any(codes):
            raise RuntimeError(f"{command[0]} ended with exit codes {codes}")
        return _figures(load, seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    return send


def _figures(load: Load, seconds: float, cpu_s: float) -> Figures:
    size = sum(path.stat().st_size for path in load.paths) * load.passes
    return Figures(load.instances / seconds, size / seconds / 1e6, cpu_s / load.instances * 1e3)


SENDERS: Final[dict[str, _Sender]] = {
    OURS: _ours,
    "storescu": _dcmtk("storescu", "-R"),
    "dcmsend": _dcmtk("dcmsend", "--decompress-never"),
    BLAST: _blast,
}
