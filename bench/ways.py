"""The ways to make an instance survive a power cut that were tried; `python -m bench.durability` measures them.

`beyond POSIX` marks what only some file systems keep.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Protocol, cast

BLOCK_BYTES: Final = 4096
"""Entries of a journal begin on blocks: tearing one never touches another."""
EARLY_BYTES: Final = 128 * 1024
SYNC_FILE_RANGE_WRITE: Final = 2
JOURNAL_BYTES: Final = 96 * 2**20
ROW_BYTES: Final = 600
"""About what one instance adds to the index."""
WARM_ROWS: Final = 8000

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD: Final = -100
_AT_SYMLINK_FOLLOW: Final = 0x400


class Way(Protocol):
    """How one instance becomes durable."""

    def store(self, name: str, content: bytes) -> None:
        """Return once the sender may be answered. Called by many threads."""

    def finish(self) -> None:
        """Do what was put off; measured with the rest."""

    def close(self) -> None: ...


class Shared:
    """An action that callers share: each returns after a run that began after its call."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._changed = threading.Condition()
        self._started = self._done = 0

    def __call__(self) -> None:
        with self._changed:
            wanted = self._started + 1
            while self._done < wanted:
                if self._started == self._done:
                    self._run()
                else:
                    self._changed.wait()

    def _run(self) -> None:
        self._started += 1
        self._changed.release()
        try:
            self._action()
        finally:
            self._changed.acquire()
        self._done = self._started
        self._changed.notify_all()


class Files:
    """One file an instance. The subclasses differ in what they force to the disk, and when."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.share_folder_sync = Shared(lambda: os.fsync(self.descriptor))

    def store(self, name: str, content: bytes) -> None:
        os.close(self.written(name, content))
        (self.folder / f"{name}.part").rename(self.folder / name)

    def written(self, name: str, content: bytes, suffix: str = ".part") -> int:
        opened = os.open(self.folder / f"{name}{suffix}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(opened, content)
        return opened

    def finish(self) -> None:
        pass

    def close(self) -> None:
        os.close(self.descriptor)


class SyncThenRename(Files):
    sync = staticmethod(os.fdatasync)

    def store(self, name: str, content: bytes) -> None:
        opened = self.written(name, content)
        self.sync(opened)
        os.close(opened)
        (self.folder / f"{name}.part").rename(self.folder / name)
        os.fsync(self.descriptor)


class FsyncThenRename(SyncThenRename):
    sync = staticmethod(os.fsync)


class RenameThenSync(Files):
    def store(self, name: str, content: bytes) -> None:
        opened = self.written(name, content)
        (self.folder / f"{name}.part").rename(self.folder / name)
        os.fdatasync(opened)
        os.close(opened)
        os.fsync(self.descriptor)


class InPlace(Files):
    """Under its last name from the start: the row in the index says that it is whole."""

    def store(self, name: str, content: bytes) -> None:
        opened = self.written(name, content, suffix="")
        os.fdatasync(opened)
        os.close(opened)
        self.sync_folder()

    def sync_folder(self) -> None:
        os.fsync(self.descriptor)


class InPlaceShared(InPlace):
    def sync_folder(self) -> None:
        self.share_folder_sync()


class FileOnly(InPlace):
    """Beyond POSIX: where a file's sync commits its name too (ext4, XFS)."""

    def sync_folder(self) -> None:
        pass


class Direct(InPlace):
    """Past the page cache: the bytes are copied by the device, from memory that is aligned to its blocks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._of_thread = threading.local()

    def written(self, name: str, content: bytes, suffix: str = "") -> int:
        buffer = self._buffer(len(content))
        buffer[: len(content)] = content  # a receiver would read into it
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT
        opened = os.open(self.folder / f"{name}{suffix}", flags, 0o600)
        os.write(opened, buffer)
        os.ftruncate(opened, len(content))
        return opened

    def _buffer(self, length: int) -> mmap.mmap:
        if not hasattr(self._of_thread, "buffer"):
            self._of_thread.buffer = mmap.mmap(-1, -(-length // BLOCK_BYTES) * BLOCK_BYTES)
        return cast(mmap.mmap, self._of_thread.buffer)


class EarlyWriteback(InPlace):
    """The disk begins to write while bytes still come (sync_file_range, which by itself promises nothing)."""

    def written(self, name: str, content: bytes, suffix: str = "") -> int:
        opened = os.open(self.folder / f"{name}{suffix}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        for at in range(0, len(content), EARLY_BYTES):
            os.write(opened, content[at : at + EARLY_BYTES])
            _libc.sync_file_range(opened, ctypes.c_int64(at), ctypes.c_int64(EARLY_BYTES), SYNC_FILE_RANGE_WRITE)
        return opened


class Preallocated(InPlace):
    def written(self, name: str, content: bytes, suffix: str = "") -> int:
        opened = os.open(self.folder / f"{name}{suffix}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.posix_fallocate(opened, 0, len(content))
        os.write(opened, content)
        return opened


class TmpfileThenLink(Files):
    def store(self, name: str, content: bytes) -> None:
        opened = os.open(self.folder, os.O_WRONLY | os.O_TMPFILE, 0o600)
        os.write(opened, content)
        os.fdatasync(opened)
        self.link(opened, name)
        os.close(opened)
        os.fsync(self.descriptor)

    def link(self, opened: int, name: str) -> None:
        source, target = f"/proc/self/fd/{opened}".encode(), os.fsencode(self.folder / name)
        if _libc.linkat(_AT_FDCWD, source, _AT_FDCWD, target, _AT_SYMLINK_FOLLOW):
            raise OSError(ctypes.get_errno(), "linkat")


class LinkThenSync(TmpfileThenLink):
    def store(self, name: str, content: bytes) -> None:
        opened = os.open(self.folder, os.O_WRONLY | os.O_TMPFILE, 0o600)
        os.write(opened, content)
        self.link(opened, name)
        os.fdatasync(opened)
        os.close(opened)
        os.fsync(self.descriptor)


class GroupSyncfs(Files):
    """Many files, then one syncfs for all that wait (and for whatever else is dirty on that disk)."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._share = Shared(lambda: None if _libc.syncfs(self.descriptor) == 0 else os.abort())

    def store(self, name: str, content: bytes) -> None:
        super().store(name, content)
        self._share()


class Journal:
    """One sequential file for bytes and rows, one fdatasync for all that wait. `reuse`: written over from its start."""

    def __init__(self, folder: Path, reuse: bool) -> None:
        self.folder = folder
        self._file = os.open(folder / "journal", os.O_RDWR | os.O_CREAT, 0o600)
        if reuse:
            for _ in range(JOURNAL_BYTES // 2**20):
                os.write(self._file, bytes(2**20))
            os.fsync(self._file)
        self._reuse = reuse
        self._end = 0
        self._lock = threading.Lock()
        self._share = Shared(lambda: os.fdatasync(self._file))

    def store(self, name: str, content: bytes) -> None:
        entry = content + name.encode() + bytes(ROW_BYTES)
        with self._lock:
            if self._reuse and self._end + len(entry) > JOURNAL_BYTES:
                self._end = 0
            offset = self._end
            self._end += -(-len(entry) // BLOCK_BYTES) * BLOCK_BYTES
        os.pwrite(self._file, entry, offset)
        self._share()

    def finish(self) -> None:
        pass

    def close(self) -> None:
        os.close(self._file)


class UnpackedJournal(Journal):
    """A recycled journal whose files are written out behind, and durable before their place is used again."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, reuse=True)
        self._files = FileOnly(folder)
        self._waiting: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        self._threads = [threading.Thread(target=self._unpack) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def store(self, name: str, content: bytes) -> None:
        super().store(name, content)
        self._waiting.put((name, content))

    def _unpack(self) -> None:
        while (entry := self._waiting.get())[0]:
            self._files.store(*entry)

    def finish(self) -> None:
        for _ in self._threads:
            self._waiting.put(("", b""))
        for thread in self._threads:
            thread.join()


class Rows:
    """An index in SQLite, WAL, synchronous=FULL; one commit for all rows that wait."""

    def __init__(self, folder: Path) -> None:
        self._database = sqlite3.connect(folder / "rows.sqlite", check_same_thread=False, isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE rows (name PRIMARY KEY, row)"
        )
        self._insert([f"warm {number}" for number in range(WARM_ROWS)])  # the WAL has its size from now on
        self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._waiting: SimpleQueue[tuple[str, threading.Event]] = SimpleQueue()
        self._thread = threading.Thread(target=self._commit_batches)
        self._thread.start()

    def begin(self, name: str) -> threading.Event:
        """Have a row committed; set when it is."""
        committed = threading.Event()
        self._waiting.put((name, committed))
        return committed

    def _commit_batches(self) -> None:
        while (first := self._waiting.get())[0]:
            batch = [first]
            while not self._waiting.empty():
                batch.append(self._waiting.get())
            self._insert([name for name, _ in batch])
            for _, committed in batch:
                committed.set()

    def _insert(self, names: list[str]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany("INSERT INTO rows VALUES (?, ?)", [(name, bytes(ROW_BYTES)) for name in names])
        self._database.execute("COMMIT")

    def close(self) -> None:
        self.begin("")
        self._thread.join()
        self._database.close()


class RowAfter:
    """The row is committed once the file is durable."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.rows = Rows(files.folder)

    def store(self, name: str, content: bytes) -> None:
        self.files.store(name, content)
        self.rows.begin(name).wait()

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self.rows.close()
        self.files.close()


class RowBeside(RowAfter):
    """The row is committed while the file is forced to the disk.

    After a power cut a row may name a file that is not whole, though never one that was answered for.
    """

    def store(self, name: str, content: bytes) -> None:
        committed = self.rows.begin(name)
        self.files.store(name, content)
        committed.wait()


WAYS: dict[str, Callable[[Path], Way]] = {
    "none": Files,
    "fdatasync, rename, folder": SyncThenRename,
    "fsync, rename, folder": FsyncThenRename,
    "rename, fdatasync, folder": RenameThenSync,
    "in place: fdatasync, folder": InPlace,
    "in place: fdatasync, folder shared": InPlaceShared,
    "in place: fdatasync only (beyond POSIX)": FileOnly,
    "in place, O_DIRECT: fdatasync, folder": Direct,
    "in place, fallocate: fdatasync, folder": Preallocated,
    "in place, sync_file_range while it comes": EarlyWriteback,
    "O_TMPFILE: fdatasync, linkat, folder": TmpfileThenLink,
    "O_TMPFILE: linkat, fdatasync, folder": LinkThenSync,
    "group: rename, one syncfs": GroupSyncfs,
    "journal, growing": lambda folder: Journal(folder, reuse=False),
    "journal, recycled": lambda folder: Journal(folder, reuse=True),
    "journal, recycled, and unpacked": UnpackedJournal,
    "fdatasync, rename, folder; row after": lambda folder: RowAfter(SyncThenRename(folder)),
    "fdatasync, rename, folder; row beside": lambda folder: RowBeside(SyncThenRename(folder)),
    "rename, fdatasync, folder; row after": lambda folder: RowAfter(RenameThenSync(folder)),
    "rename, fdatasync, folder; row beside": lambda folder: RowBeside(RenameThenSync(folder)),
    "in place: fdatasync, folder; row after": lambda folder: RowAfter(InPlace(folder)),
    "in place: fdatasync, folder; row beside": lambda folder: RowBeside(InPlace(folder)),
    "in place: folder shared; row after": lambda folder: RowAfter(InPlaceShared(folder)),
    "in place: folder shared; row beside": lambda folder: RowBeside(InPlaceShared(folder)),
    "in place, O_DIRECT: fdatasync, folder; row beside": lambda folder: RowBeside(Direct(folder)),
    "in place: fdatasync only; row after (beyond POSIX)": lambda folder: RowAfter(FileOnly(folder)),
}
