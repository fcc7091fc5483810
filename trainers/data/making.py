"""Folders that appear whole or not at all, and what processes that were killed left of theirs."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from trainers.errors import SourceError

_PREFIX: Final = "making-"
_QUIET_S: Final = 3600.0
"""Locks do not always reach other machines of a network's disk: where something was written lately, somebody works."""


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """A new folder inside of `folder`: locked while it is used, then removed with all that is still in it."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
    lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a disk without locks: others go by when it was written to
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def filled_at_once(place: Path, fill: Callable[[Path], Any]) -> None:
    """`place` appears with all that `fill` writes into the folder that it is given, or not at all."""
    try:
        with workplace(place.parent) as work:
            made = work / "whole"
            made.mkdir()
            fill(made)
            made.rename(place)
    except OSError as error:
        if not place.is_dir():  # else another process has made the same meanwhile
            raise SourceError(f"the cache cannot be written: {error.strerror}", "look at its disk") from None


def clear_abandoned(folder: Path) -> None:
    """Remove the workplaces below `folder` whose processes are gone. Safe beside processes that work there."""
    for left in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another process removed it, or holds its lock
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - _last_written_s(left) > _QUIET_S:
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def _last_written_s(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
