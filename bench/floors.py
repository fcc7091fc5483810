"""The floors under `power`: what the disk alone lets anybody do who stores each instance in a file and a row.

files   the same bytes, each in a file of its own that is forced to the disk (fdatasync), by parallel threads
commit  the same, and then a row in SQLite (WAL, synchronous=FULL); rows that wait together share one commit
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Final

from bench.load import Load, Sending

_MOST_ROWS: Final = 256
Record = Callable[[str, int], None]


def files_only(folder: Path, load: Load) -> Sending:
    """Floor (a)."""
    return _measured(folder, load, lambda _name, _size: None)


def files_and_commit(folder: Path, load: Load) -> Sending:
    """Floor (b)."""
    with closing(_Index(folder / "floor.sqlite")) as index:
        return _measured(folder, load, index.record)


class _Index:
    """One table, and the one thread that commits its rows."""

    def __init__(self, path: Path) -> None:
        self._waiting: queue.SimpleQueue[tuple[str, int, threading.Event] | None] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._commit_batches, args=(path,))
        self._thread.start()
        self._ready.wait()

    def record(self, name: str, size: int) -> None:
        """Return when the row is durable."""
        done = threading.Event()
        self._waiting.put((name, size, done))
        done.wait()

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _commit_batches(self, path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("CREATE TABLE instance (id INTEGER PRIMARY KEY, name TEXT UNIQUE, size INTEGER)")
            self._ready.set()
            while (first := self._waiting.get()) is not None:
                batch = [first]
                while len(batch) < _MOST_ROWS and not self._waiting.empty():
                    following = self._waiting.get()
                    if following is None:
                        self._waiting.put(None)
                        break
                    batch.append(following)
                database.execute("BEGIN IMMEDIATE")
                database.executemany("INSERT INTO instance (name, size) VALUES (?, ?)", [row[:2] for row in batch])
                database.execute("COMMIT")
                for *_, done in batch:
                    done.set()


def _measured(folder: Path, load: Load, record: Record) -> Sending:
    contents = [path.read_bytes() for path in load.paths]
    latencies: list[list[float]] = [[] for _ in range(load.associations)]
    threads = []
    for number, mine in enumerate(latencies):
        share = contents[
            len(contents) * number // load.associations : len(contents) * (number + 1) // load.associations
        ]
        writing = (folder / f"{number:02d}", list(share) * load.passes, record, mine)
        threads.append(threading.Thread(target=_write, args=writing))
    started, cpu_before = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _sending(sorted(chain.from_iterable(latencies)), sum(map(len, contents)) * load.passes, started, cpu_before)


def _write(folder: Path, contents: Sequence[bytes], record: Record, latencies: list[float]) -> None:
    folder.mkdir()
    for number, content in enumerate(contents):
        began = time.perf_counter()
        path = folder / f"{number:06d}.dcm"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(descriptor, content)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        record(str(path), len(content))
        latencies.append((time.perf_counter() - began) * 1e3)


def _sending(latencies: Sequence[float], size: int, started: float, cpu_before: float) -> Sending:
    count = len(latencies)
    tail = (latencies[count // 2], latencies[count * 99 // 100], latencies[-1])
    return Sending(count, size, time.perf_counter() - started, time.process_time() - cpu_before, 0, *tail)
