"""DICOM files at rest, named by their content.

A file is a preamble of zeros, our own group 2 and the data set's bytes exactly as they came (PS3.10 7.1). Its name is
the SHA-256 of all of it: storing the same object twice is storing it once, and nothing from a data set is ever a path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomnode.core.identity import IMPLEMENTATION_CLASS_UID
from dicomnode.core.types import Offer
from dicomnode.errors import DiskFullError, StoreError
from dicomnode.faults import kill_point


class FileStore:
    """Files below one folder: `objects/<2 hex>/<2 hex>/<sha256>.dcm`; what is being received lies in `incoming/`.

    reserve_bytes  free space below which nothing new is taken
    sync           whether bytes and directory entries are forced to the disk before a file counts as stored
    """

    def __init__(self, folder: Path, reserve_bytes: int, sync: bool) -> None:
        self._objects = folder / "objects"
        self._incoming = folder / "incoming"
        self._reserve_bytes = reserve_bytes
        self._sync = sync
        self._entered: set[Path] = set()
        self._objects.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(parents=True, exist_ok=True)

    def sweep(self) -> int:
        """Remove what a killed process was receiving; how many files. Only one process may receive into a folder."""
        left = list(self._incoming.iterdir())
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def path(self, digest: str) -> Path:
        return self._objects / digest[:2] / digest[2:4] / f"{digest}.dcm"

    def require_space(self) -> None:
        """Raise DiskFullError where less than the reserve is left."""
        free, _ = free_bytes(self._objects)
        if free < self._reserve_bytes:
            raise DiskFullError(
                f"{free // 1_000_000} MB are left on the disk, the reserve is {self._reserve_bytes // 1_000_000} MB",
                "free space under the data folder, or lower limits.disk_reserve",
            )

    def begin(self, offer: Offer) -> WritingFile:
        """Start a file for an offered instance."""
        self.require_space()
        with storage_errors():
            return WritingFile(self, self._incoming, part10_header(offer))

    def adopt(self, source: Path) -> tuple[str, int]:
        """Move a complete Part 10 file of ours into the store; its digest and size. Durable when this returns."""
        with storage_errors():
            with source.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if self._sync:
                    os.fdatasync(file.fileno())
            size = source.stat().st_size
            self.place(source, digest)
            return digest, size

    def place(self, source: Path, digest: str) -> None:
        """Give a written file its final name."""
        target = self.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        if self._sync:
            _sync_folder(target.parent)
            self._sync_entries_above(target.parent)

    def _sync_entries_above(self, folder: Path) -> None:
        """Once for each folder, whoever made it: another thread or a killed process may not have come so far."""
        if folder not in self._entered:
            for above in (folder.parent, self._objects, self._objects.parent):
                _sync_folder(above)
            self._entered.add(folder)

    @property
    def syncs(self) -> bool:
        return self._sync


def free_bytes(folder: Path) -> tuple[int, int]:
    """(free, total) bytes of the disk under a folder."""
    usage = shutil.disk_usage(folder)
    return usage.free, usage.total


class WritingFile:
    """A file being received. Ends with `finish` or `discard`."""

    def __init__(self, store: FileStore, folder: Path, header: bytes) -> None:
        self._store = store
        self._hash = hashlib.sha256()
        descriptor, name = tempfile.mkstemp(dir=folder)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self.path = Path(name)
        self.size_bytes = 0
        self.header_bytes = len(header)
        try:
            self.write(header)
        except BaseException:
            self.discard()
            raise

    def write(self, chunk: bytes | memoryview) -> None:
        with storage_errors():
            written = self._file.write(chunk)
        if written != len(chunk):
            raise DiskFullError("the disk took only a part of an instance", "free space under the data folder")
        self._hash.update(chunk)
        self.size_bytes += written

    def finish(self) -> str:
        """Make it durable under its content's name; the digest."""
        digest = self._hash.hexdigest()
        kill_point("receive.before_sync")
        with storage_errors():
            if self._store.syncs:
                os.fdatasync(self._file.fileno())
            self._file.close()
            self._store.place(self.path, digest)
        kill_point("receive.after_sync")
        return digest

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
