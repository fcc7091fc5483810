"""Locks of a data folder: one node on it, and each of its processes once. The kernel drops them with their process."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from dicomnode.errors import ConfigError
from dicomnode.telemetry import event

NODE_LOCK: Final = "node.lock"
"""Held by the node's supervisor: one node on a data folder."""

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


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock. `pid` is None where it has not said yet."""

    pid: int | None


def holder(folder: Path, name: str) -> Holder | None:
    """Who holds a lock of a data folder; None where nobody does. Looking takes it for an instant, shared."""
    try:
        with (folder / name).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = lock.read(20).strip()
                return Holder(int(pid) if pid.isdecimal() else None)
    except OSError:  # no such folder, file or permission: nothing of ours runs there
        return None
    return None
