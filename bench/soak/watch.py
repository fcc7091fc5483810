"""Samples of what the node's processes hold, and whether any of them holds more and more."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.measures import Process, processes

MOST_GROWTH_MB: Final = 8.0
"""Of a process's memory over the second half: allocators and caches breathe by less."""
MOST_DESCRIPTORS: Final = 24
"""More than at the first rest: connections to the index are opened when they are first needed, three files each."""
MOST_THREADS: Final = 8
"""More than at the first rest: pools grow when they are first needed."""
_EVERY_S: Final = 2.0
_LEAST_SAMPLES: Final = 8


@dataclass
class Watch:
    """Samples by process id, while its block runs."""

    session: int
    samples: dict[int, list[tuple[float, Process]]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_EVERY_S):
            now = time.monotonic()
            for process in processes(self.session):
                self.samples.setdefault(process.pid, []).append((now, process))


def growth_mb(samples: Sequence[tuple[float, Process]]) -> float | None:
    """By how much memory grew over the second half, by a line through all its samples; None where they are too few."""
    later = samples[len(samples) // 2 :]
    if len(later) < _LEAST_SAMPLES:
        return None
    times = [at for at, _ in later]
    slope = statistics.linear_regression(times, [process.resident_bytes / 1e6 for _, process in later]).slope
    return slope * (times[-1] - times[0])


@dataclass(frozen=True, slots=True)
class Judged:
    """One process: what it held at the first rest and at the last, and by how much its memory grew."""

    first: Process
    last: Process
    growth_mb: float | None

    def problems(self, name: str) -> list[str]:
        """Sentences; none where nothing leaks."""
        found = []
        descriptors, threads = self.last.descriptors - self.first.descriptors, self.last.threads - self.first.threads
        if descriptors > MOST_DESCRIPTORS:
            found.append(f"{name} holds {descriptors} descriptors more than at the first rest")
        if threads > MOST_THREADS:
            found.append(f"{name} has {threads} threads more than at the first rest")
        if self.growth_mb is not None and self.growth_mb > MOST_GROWTH_MB:
            found.append(f"{name} grew by {self.growth_mb:.1f} MB over the second half")
        return found


def judged(
    first: Sequence[Process], last: Sequence[Process], samples: Mapping[int, Sequence[tuple[float, Process]]]
) -> list[Judged]:
    """The processes that lived from the first rest to the last."""
    lived = {process.pid: process for process in last}
    return [
        Judged(process, lived[process.pid], growth_mb(samples.get(process.pid, ())))
        for process in first
        if process.pid in lived
    ]
