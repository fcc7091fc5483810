"""Folders for decoded arrays that processes share: in memory while there is room, else on the disk.

Arrays travel between the pixel workers, the engine processes and back as files (`engines.volume_files`), so a process
that dies leaves nothing locked and whoever comes next reads on. Folders in memory (a tmpfs such as /dev/shm) hold
pixels of patients: they belong to their owner alone, and go with it. The owner holds a lock (flock(2)) for as long as
it lives; what an owner that was killed has left is cleared away when the next one begins.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

_OWNER: Final = "owner"
_KEPT_FREE: Final = 0.1
"""Share of the memory file system that is left to others."""


@dataclass(frozen=True)
class _Own:
    """A folder in memory, and the locked file that says that its owner lives."""

    folder: Path
    lock: IO[bytes]


class SharedFolders:
    """Folders for one owner, this process.

    memory        a file system in memory, such as /dev/shm; None: there is none
    disk          an existing folder for what finds no room in it
    budget_bytes  of memory at most
    """

    def __init__(self, memory: Path | None, disk: Path, budget_bytes: int) -> None:
        self._disk = disk
        self._budget_bytes = budget_bytes
        self._used_bytes = 0
        self._lock = threading.Lock()
        self._own = _claimed(memory) if memory is not None and budget_bytes > 0 else None

    @property
    def used_bytes(self) -> int:
        """Of memory, by the folders that are open."""
        return self._used_bytes

    @contextmanager
    def folder(self, size_bytes: int) -> Iterator[Path]:
        """An empty folder for files of so many bytes, gone afterwards."""
        own = self._own
        reserved = own is not None and self._reserved(own.folder, size_bytes)
        try:
            with tempfile.TemporaryDirectory(dir=own.folder if own is not None and reserved else self._disk) as made:
                yield Path(made)
        finally:
            if reserved:
                with self._lock:
                    self._used_bytes -= size_bytes

    def close(self) -> None:
        """Give the memory back. Folders that are still open go too."""
        if self._own is not None:
            shutil.rmtree(self._own.folder, ignore_errors=True)
            self._own.lock.close()
            self._own = None

    def _reserved(self, folder: Path, size_bytes: int) -> bool:
        with self._lock:
            room = min(self._budget_bytes - self._used_bytes, _free_bytes(folder))
            if size_bytes > room:
                return False
            self._used_bytes += size_bytes
            return True


def _free_bytes(folder: Path) -> int:
    try:
        held = os.statvfs(folder)
    except OSError:  # somebody has cleared it away: the disk will do
        return 0
    return int((held.f_bavail - _KEPT_FREE * held.f_blocks) * held.f_frsize)


def _claimed(memory: Path) -> _Own | None:
    """A folder of our own in `memory`, locked until we end; those of dead owners are removed. None: not possible."""
    try:
        root = memory / f"dicomnode-{os.getuid()}"
        root.mkdir(mode=0o700, exist_ok=True)
        if not _is_ours(root):  # anybody may make folders in /dev/shm
            return None
        with (root / ".claiming").open("w") as claiming:
            fcntl.flock(claiming, fcntl.LOCK_EX)
            _remove_orphans(root)
            folder = Path(tempfile.mkdtemp(dir=root))
            lock = (folder / _OWNER).open("xb")  # no child inherits it
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        return None
    return _Own(folder, lock)


def _is_ours(root: Path) -> bool:
    found = root.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _remove_orphans(root: Path) -> None:
    for folder in root.iterdir():
        if folder.is_dir() and not folder.is_symlink() and not _is_held(folder / _OWNER):
            shutil.rmtree(folder, ignore_errors=True)


def _is_held(path: Path) -> bool:
    with suppress(FileNotFoundError), path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
