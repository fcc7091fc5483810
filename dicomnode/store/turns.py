"""Whose turn it is to write to an SQLite database that several processes share.

SQLite lets a second writer sleep in growing steps and look again; by then the first may have come back many times. Of
two processes that write all the time one was measured to wait for seconds. A lock of the kernel wakes the next writer
when the last one ends.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WriteTurns:
    """Turns of one process among all that write to a database. The kernel ends the turn of a process that dies.

    Who comes waits at the gate, and leaves it when the turn is his. One that has just written finds the gate taken by
    the next, so nobody has two turns while another waits.
    """

    def __init__(self, database: Path) -> None:
        self._paths = tuple(database.with_name(f"{database.name}-{name}.lock") for name in ("gate", "turn"))
        self._threads = threading.Lock()
        self._open: tuple[int, ...] = ()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for our turn and hold it."""
        with self._threads:  # a lock of a file does not keep our own threads apart
            gate, turn = self._descriptors()
            fcntl.flock(gate, fcntl.LOCK_EX)
            try:
                fcntl.flock(turn, fcntl.LOCK_EX)
            finally:
                fcntl.flock(gate, fcntl.LOCK_UN)
            try:
                yield
            finally:
                fcntl.flock(turn, fcntl.LOCK_UN)

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open = ()

    def _descriptors(self) -> tuple[int, ...]:
        if not self._open:  # at the first turn: who only reads needs no right to write here
            self._open = tuple(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644) for path in self._paths)
        return self._open
