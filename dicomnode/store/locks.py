"""Locks of a data folder: one node on it, one process that runs workflows. The kernel drops them with their process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from dicomnode.errors import ConfigError


@contextmanager
def exclusive(folder: Path, name: str = "flow.lock") -> Iterator[TextIO]:
    """Hold a lock of a data folder; "flow.lock" makes this the one process which runs workflows on it.

    Gives the lock's file: it is held until every process that has it open has closed it.
    """
    with (folder / name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another dicomnode is running on {folder}", "stop it first, or give this one another data folder"
            ) from None
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock
