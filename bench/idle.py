"""What is there without working: a thousand silent connections, and the memory of sixteen associations."""

from __future__ import annotations

import contextlib
import resource
import socket
import statistics
import time
from collections.abc import Iterator
from typing import Final

from bench.load import CALLING_AE, sent
from bench.measures import processes
from bench.results import Results
from bench.rounds import Surroundings, fresh
from bench.servers import BenchNode
from bench.wire import VERIFICATION, Association
from dicomnode.testing.node import NODE_AE

CONNECTIONS: Final = 1000
ASSOCIATIONS: Final = 16
ECHO_MEDIAN: Final = f"echo beside {CONNECTIONS:,} silent connections, ms, median"
LARGEST: Final = f"memory with {ASSOCIATIONS} associations, largest process, MB"
_ECHOES: Final = 20


def run(surroundings: Surroundings, results: Results) -> None:
    """Facts, of one node: all connections come from the address that the known peer calls from too."""
    with fresh(surroundings.memory) as folder, BenchNode(folder, "none") as node:
        results.facts["echo alone, ms, median"] = statistics.median(_echoes_ms(node.port))
        with _silent_connections(node.port):
            echoes = _echoes_ms(node.port)
        results.facts[ECHO_MEDIAN] = statistics.median(echoes)
        results.facts[f"echo beside {CONNECTIONS:,} silent connections, ms, longest of {_ECHOES}"] = max(echoes)
        load = surroundings.load(surroundings.kinds[0], ASSOCIATIONS, max(ASSOCIATIONS, surroundings.instances))
        with sent(node.port, NODE_AE, load):
            found = processes(node.pid)
        results.facts[LARGEST] = max(process.peak_bytes for process in found) / 1e6
        total = sum(process.resident_bytes for process in found) / 1e6
        results.facts[f"memory with {ASSOCIATIONS} associations, all {len(found)} processes, MB"] = total


@contextlib.contextmanager
def _silent_connections(port: int) -> Iterator[None]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * CONNECTIONS), hard))
    with contextlib.ExitStack() as held:
        for _ in range(CONNECTIONS):
            held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        yield


def _echoes_ms(port: int) -> list[float]:
    """Connect, associate, echo: until the answer is there."""
    taken = []
    for _ in range(_ECHOES):
        began = time.perf_counter()
        association = Association(port, NODE_AE, CALLING_AE, [VERIFICATION])
        status = association.echo()
        taken.append((time.perf_counter() - began) * 1e3)
        association.release()
        if status != 0:
            raise RuntimeError(f"the echo was answered with 0x{status:04X}")
    return taken
