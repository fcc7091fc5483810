"""A session that is watched: how long its network computes, and what goes in and out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

import numpy as np

from engines.runtimes.base import Session, Tensors

Sizes = tuple[tuple[str, tuple[int, ...]], ...]
"""Shapes of what goes in, by name."""


class WatchedSession:
    """Another session, with what it was asked for.

    seconds    in its runs
    cpu_s      of all threads of this process meanwhile
    copying_s  that it takes to copy once what went in and came out: part of no run, and measured beside them
    runs       how often it was given tensors of these sizes
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.reset()

    @property
    def identity(self) -> str:
        return self._session.identity

    def reset(self) -> None:
        """Forget what was seen so far."""
        self.seconds = 0.0
        self.cpu_s = 0.0
        self.copying_s = 0.0
        self.runs: Counter[Sizes] = Counter()

    def run(self, tensors: Tensors) -> Tensors:
        began, began_cpu = time.perf_counter(), time.process_time()
        given = self._session.run(tensors)
        ended = time.perf_counter()
        self.cpu_s += time.process_time() - began_cpu
        self.seconds += ended - began
        _copy(tensors)
        _copy(given)
        self.copying_s += time.perf_counter() - ended
        self.runs[tuple((name, values.shape) for name, values in sorted(tensors.items()))] += 1
        return given

    def close(self) -> None:
        self._session.close()


def _copy(tensors: Mapping[str, np.ndarray]) -> None:
    for values in tensors.values():
        values.copy()
