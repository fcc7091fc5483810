"""The ways to make an instance survive a power cut, measured on one disk: `python -m bench.durability --folder FOLDER`.

Each way takes files of one CT slice from 1 to 16 writers at once; a file counts when the way would let the sender be
answered. Rounds are interleaved, so that a busy machine is busy for all of them; every figure is a median of rounds,
each latency of all rounds together.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.ways import WAYS, Way

FILE_BYTES: Final = 530_000
WRITERS: Final = (1, 4, 8, 16)
FILES: Final = 128
FILES_OF_ONE: Final = 40
"""What one writer stores by itself in a round: it is slower."""


@dataclass
class Figures:
    """What the rounds of one way and number of writers gave."""

    files_per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        p50, p99 = (_quantile(self.latencies_ms, share) for share in (0.5, 0.99))
        rate, cpu = statistics.median(self.files_per_s), statistics.median(self.cpu_ms)
        return f"{rate:6.0f} | {p50:5.1f} | {p99:6.1f} | {cpu:4.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print files/s, latency and processor time of every way, for each number of writers."""
    parser = argparse.ArgumentParser(prog="python -m bench.durability", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is visited")
    parser.add_argument("--folder", type=Path, default=Path(), help="a folder on the disk to measure")
    asked = parser.parse_args(arguments)
    figures = {(name, writers): Figures() for name in WAYS for writers in WRITERS}
    content = os.urandom(FILE_BYTES)
    for _ in range(asked.rounds):
        for name, writers in figures:
            with opened(WAYS[name], asked.folder) as way:
                measure(way, writers, content, figures[name, writers])
    for writers in WRITERS:
        print(f"\n{writers} writers of {FILE_BYTES / 1e6} MB, median of {asked.rounds} interleaved rounds\n")
        print(f"| {'way':<50} | files/s | p50 ms | p99 ms | CPU ms |\n|---|---|---|---|---|")
        for name in WAYS:
            print(f"| {name:<50} | {figures[name, writers]} |")


@contextmanager
def opened(make: Callable[[Path], Way], below: Path) -> Iterator[Way]:
    """A way in a fresh folder, with nothing left to be written from the one before."""
    with tempfile.TemporaryDirectory(dir=below) as folder:
        way = make(Path(folder))
        os.sync()
        with closing(way):
            yield way


def measure(way: Way, writers: int, content: bytes, into: Figures) -> None:
    """Let each writer store its files, one after the other."""
    each = FILES_OF_ONE if writers == 1 else max(FILES // writers, 4)
    threads = [threading.Thread(target=_write, args=(way, n, each, content, into.latencies_ms)) for n in range(writers)]
    started, cpu_started = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    way.finish()
    into.files_per_s.append(writers * each / (time.perf_counter() - started))
    into.cpu_ms.append((time.process_time() - cpu_started) * 1000 / (writers * each))


def _write(way: Way, writer: int, count: int, content: bytes, latencies_ms: list[float]) -> None:
    for number in range(count):
        started = time.perf_counter()
        way.store(f"{writer}-{number}", content)
        latencies_ms.append((time.perf_counter() - started) * 1000)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


if __name__ == "__main__":
    main()
