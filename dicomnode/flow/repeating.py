"""A thread that does one thing again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dicomnode.store.reach import enduring


class Repeating:
    """Calls `work(now)` every `period_s` seconds until it is stopped.

    While the database is out of reach it goes on trying; any other error ends the thread: see `is_alive`.
    """

    def __init__(self, name: str, period_s: float, work: Callable[[float], object]) -> None:
        self._period_s = period_s
        self._work = work
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Wait for the call that is running, and make no other."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            with enduring():
                self._work(time.time())
