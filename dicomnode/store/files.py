"""DICOM files at rest.

A file is a preamble of zeros, our own group 2 and the data set's bytes exactly as they came (PS3.10 7.1). Its key is
the hour in which it came, the receiver that wrote it and a random number: nothing from a data set is ever a path, no
two receivers ever write to one name, and a folder holds an hour, which is what a backup or a search wants.
"""

from __future__ import annotations

import calendar
import errno
import filecmp
import hashlib
import os
import shutil
import struct
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Final

from dicomnode.core.identity import IMPLEMENTATION_CLASS_UID
from dicomnode.core.types import Offer
from dicomnode.errors import DiskFullError, StoreError
from dicomnode.faults import kill_point
from dicomnode.store.folders import sync_folder

_HOUR: Final = "%Y%m%d/%H"
_OWNER_DIGITS: Final = 8
_RANDOM_BYTES: Final = 12
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LOOKED_AT_EVERY_BYTES: Final = 64 * 2**20
"""No request tells the size of its data set (PS3.7 9.3.1): so often it is looked whether there is still room."""

_FORCED_TOGETHER: Final = 8

_MOST_PIECES: Final = 1000  # of one writev: IOV_MAX is 1024


class FileStore:
    """Files below one folder: `objects/<yyyymmdd>/<hh>/<owner><random>.dcm`, times in UTC; the middle is the key.

    reserve_bytes  free space below which nothing new is taken; may be set anew
    also           folders on other disks that new input needs, each with its own reserve; may be set anew
    sync           whether bytes and directory entries are forced to the disk before a file counts as stored
    owner          who writes: a name that no other process has that writes into this folder, on any machine
    mark           what the names of the owner's files begin with
    """

    HOURS_SEARCHED: Final = 2

    def __init__(self, folder: Path, reserve_bytes: int, sync: bool, owner: str = "") -> None:
        self._objects = folder / "objects"
        self.strays = folder / "strays"
        self.reserve_bytes = reserve_bytes
        self.also: tuple[tuple[Path, int], ...] = ()
        self.syncs = sync
        self.mark = hashlib.sha256(owner.encode()).hexdigest()[:_OWNER_DIGITS]
        self._entered: set[Path] = set()
        self._objects.mkdir(parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        """Where a file lies, once `bring` has seen to it."""
        return self._objects / f"{key}.dcm"

    def bring(self, keys: Collection[str]) -> None:
        """Have files lie at their paths, where they are kept elsewhere; here they do.

        What is not there at all stays away. Raises StoreError where that cannot be found out.
        """

    def require_space(self) -> None:
        """Raise DiskFullError where less than the reserve is left."""
        for folder, reserve_bytes in ((self._objects, self.reserve_bytes), *self.also):
            free, _ = free_bytes(folder)
            if free < reserve_bytes:
                raise DiskFullError(
                    f"{free // 1_000_000} MB are left on the disk, the reserve is {reserve_bytes // 1_000_000} MB",
                    "free space under the data folder, or lower limits.disk_reserve",
                )

    def begin(self, offer: Offer) -> WritingFile:
        """Start a file for an offered instance."""
        self.require_space()
        return WritingFile(self, part10_header(offer))

    def adopt(self, sources: Sequence[Path]) -> list[tuple[str, int]]:
        """Move complete Part 10 files of ours into the store; key and size of each. Durable when this returns.

        Forced to the disk side by side: the file system's journal takes what several wait for in one commit, which is
        ten times as fast as one after the other (measured: 1.5 ms a file of 0.5 MB, not 20).
        """
        with storage_errors():
            keys = [self._moved(source) for source in sources]
            if not keys:
                return []
            with ThreadPoolExecutor(min(_FORCED_TOGETHER, len(keys))) as threads:
                sizes = list(threads.map(self._forced, keys))
            return list(zip(keys, sizes, strict=True))

    def remove(self, key: str) -> None:
        """Forget a file that no row names."""
        self.path(key).unlink(missing_ok=True)

    def remove_all(self, keys: Collection[str]) -> None:
        """Forget files for good: durable when this returns. Those that are gone already do not matter."""
        with storage_errors():
            for key in keys:
                self.remove(key)
            if self.syncs:
                for folder in {self.path(key).parent for key in keys}:
                    sync_folder(folder)

    def same_content(self, key: str, other: str) -> bool:
        """Whether two files hold the same bytes; one that is not there does not. Raises StoreError where one cannot be
        read.
        """
        with storage_errors():
            self.bring((key, other))
            try:
                return filecmp.cmp(self.path(key), self.path(other), shallow=False)
            except FileNotFoundError:
                return False

    def own_latest(self) -> list[str]:
        """Keys of what this owner wrote in the last two hours in which anybody wrote: after a kill or a power cut some
        of them may have no row, or be half written."""
        hours = sorted(self._objects.glob("[0-9]*/[0-9]*"), reverse=True)[: self.HOURS_SEARCHED]
        found = chain.from_iterable(hour.glob(f"{self.mark}*.dcm") for hour in hours)
        return [str(path.relative_to(self._objects).with_suffix("")) for path in found]

    def set_aside(self, key: str) -> None:
        """Move a file that no row names to `strays/`. It is not removed: if it is the index that lost something, it may
        be the only copy."""
        with storage_errors():
            self.strays.mkdir(exist_ok=True)
            self.path(key).rename(self.strays / f"{key.replace('/', '-')}.dcm")

    def new_key(self) -> str:
        """A key that was never used, its folder made."""
        hour = time.strftime(_HOUR, time.gmtime())
        folder = self._objects / hour
        if folder not in self._entered:
            self._enter(folder)
        return f"{hour}/{self.mark}{os.urandom(_RANDOM_BYTES).hex()}"

    def make_durable(self, key: str, descriptor: int) -> None:
        """Force a file's bytes and its name to the disk, where this store does so.

        The name is there before its bytes are: so both come with one commit of the file system's journal (measured,
        docs/durability.md), and a name without bytes is found by `own_latest`, for it has no row.
        """
        if self.syncs:
            os.fdatasync(descriptor)
            sync_folder(self.path(key).parent)

    def _moved(self, source: Path) -> str:
        key = self.new_key()
        source.rename(self.path(key))
        return key

    def _forced(self, key: str) -> int:
        """Make a file durable; its size in bytes."""
        with self.path(key).open("rb") as file:
            self.make_durable(key, file.fileno())
            return os.fstat(file.fileno()).st_size

    def _enter(self, folder: Path) -> None:
        """Make an hour's folder durable, whoever made it: another process may not have come so far yet."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.syncs:
            for above in (folder.parent, self._objects, self._objects.parent):
                sync_folder(above)
        self._entered.add(folder)


def free_bytes(folder: Path) -> tuple[int, int]:
    """(free, total) bytes of the disk under a folder."""
    usage = shutil.disk_usage(folder)
    return usage.free, usage.total


def hour_of(key: str) -> float:
    """When the hour in a key began."""
    return calendar.timegm(time.strptime(key[: len("yyyymmdd/hh")], _HOUR))


class WritingFile:
    """A file being received. Ends with `finish` or `discard`; nothing is on the disk before the first `write`."""

    def __init__(self, store: FileStore, header: bytes) -> None:
        self._store = store
        self._header = header
        self._descriptor: int | None = None
        self.key = ""
        self.size_bytes = 0

    @property
    def path(self) -> Path:
        return self._store.path(self.key)

    @property
    def header_bytes(self) -> int:
        """Where the data set begins."""
        return len(self._header)

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Append. The disk's errors are StoreError."""
        with storage_errors():
            if self._descriptor is None:
                self.key = self._store.new_key()
                self._descriptor = os.open(self.path, _NEW_FILE, 0o640)
                pieces = (self._header, *pieces)
            for start in range(0, len(pieces), _MOST_PIECES):
                self._append(self._descriptor, pieces[start : start + _MOST_PIECES])

    def finish(self) -> None:
        """Make it durable."""
        kill_point("receive.before_sync")
        if self._descriptor is None:
            self.write(())
        assert self._descriptor is not None  # opened by the first write
        with storage_errors():
            self._store.make_durable(self.key, self._descriptor)
            self._close()
        kill_point("receive.after_sync")

    def discard(self) -> None:
        """Leave nothing."""
        self._close()
        if self.key:
            with suppress(StoreError):  # `own_latest` finds it
                self._store.remove(self.key)

    def _append(self, descriptor: int, pieces: Sequence[bytes | memoryview]) -> None:
        wanted = sum(map(len, pieces))
        if os.writev(descriptor, pieces) != wanted:
            raise DiskFullError("the disk took only a part of an instance", "free space under the data folder")
        former, self.size_bytes = self.size_bytes, self.size_bytes + wanted
        if former // _LOOKED_AT_EVERY_BYTES != self.size_bytes // _LOOKED_AT_EVERY_BYTES:
            self._store.require_space()

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def part10_header(offer: Offer) -> bytes:
    """Preamble, prefix and group 2 (PS3.10 7.1) for an offered instance.

    Our version is left out (it is optional): the same object must be the same file after an upgrade.
    """
    elements = (
        _element(0x0001, b"OB", b"\x00\x01")
        + _element(0x0002, b"UI", offer.sop_class_uid.encode())
        + _element(0x0003, b"UI", offer.sop_instance_uid.encode())
        + _element(0x0010, b"UI", offer.transfer_syntax_uid.encode())
        + _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode())
    )
    return bytes(128) + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(elements))) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    length = struct.pack("<2xL", len(value)) if vr == b"OB" else struct.pack("<H", len(value))
    return struct.pack("<HH2s", 0x0002, number, vr) + length + value


@contextmanager
def storage_errors() -> Iterator[None]:
    """Errors of the operating system as StoreError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError("the disk is full", "free space under the data folder") from error
        raise StoreError(
            f"the disk failed: {error.strerror}", "look at the system's log and the disk under the data folder"
        ) from error
