"""Locks of a data folder: one node on it, and each of its processes once. The kernel drops them with their process."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, TextIO

from dicomnode.errors import ConfigError
from dicomnode.telemetry import event

_RETRY_S: Final = 1.0


@contextmanager
def exclusive(folder: Path, name: str) -> Iterator[TextIO]:
    """Hold the lock `name` of a data folder. Raises ConfigError where another process holds it.

    Gives the lock's file: it is held until every process that has it open has closed it.
    """
    with (folder / name).open("a+") as lock:  # who does not get it must not empty it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another dicomnode is running on {folder}", "stop it first, or give this one another data folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


@contextmanager
def exclusive_after_others(folder: Path, name: str, patience_s: float) -> Iterator[TextIO]:
    """As `exclusive`, but a former holder has `patience_s` to be gone: it may still be on its way out."""
    with ExitStack() as stack:
        give_up_at = time.monotonic() + patience_s
        while True:
            try:
                lock = stack.enter_context(exclusive(folder, name))
                break
            except ConfigError as error:
                if time.monotonic() > give_up_at:
                    raise
                event("process_waiting", role=name.removesuffix(".lock"), reason=str(error))
            time.sleep(_RETRY_S)
        yield lock
