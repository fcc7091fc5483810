"""Where the data set begins in a DICOM file (PS3.10 7.1), and what its file meta information says of it."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from dicomnode.errors import InputError, StoreError
from dicomnode.net.contexts import UID_FORM

_PREAMBLE_BYTES: Final = 128
_LONG_VRS: Final = frozenset({b"OB", b"OW", b"UN", b"SQ", b"UT", b"UC", b"UR", b"OD", b"OF", b"OL", b"OV"})
_MAXIMUM_META_BYTES: Final = 1 << 20
_USUAL_META_BYTES: Final = 4096
_SHORT: Final = struct.Struct("<HH2sH")
_LONG: Final = struct.Struct("<L")


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What group 2 says: `offset_bytes` is where the data set begins."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset_bytes: int


class OpenFile:
    """A file that is open for reading. `close` it, or use `with`."""

    def __init__(self, path: Path) -> None:
        """Raises InputError and StoreError as `reading` does."""
        with _translated(path):
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with _translated(path):
                self.size_bytes = os.fstat(self.descriptor).st_size
                os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_WILLNEED)  # read ahead: it is sent soon
                self._read_begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_begin(self) -> None:
        """Look at what is in it."""

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class StoredFile(OpenFile):
    """An open DICOM file, with what its file meta information says."""

    meta: FileMeta

    def _read_begin(self) -> None:
        """Raises InputError as `read_file_meta` does."""
        begin = os.pread(self.descriptor, _USUAL_META_BYTES, 0)
        self.meta = read_file_meta(io.BytesIO(begin))
        if self.meta.offset_bytes > len(begin):
            self.meta = read_file_meta(io.BytesIO(os.pread(self.descriptor, 2 * _MAXIMUM_META_BYTES, 0)))


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """A file opened for reading.

    Raises InputError where it is not there. Whatever else the system has against it is a StoreError that may pass:
    too many open files, a disk that fails, a folder that is not mounted.
    """
    with _translated(path), path.open("rb") as file:
        yield file


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, IsADirectoryError) or (isinstance(error, FileNotFoundError) and path.parent.is_dir()):
            raise InputError("the file is not there", "is the data folder complete?") from None
        raise read_failed(error) from None


def read_failed(error: OSError) -> StoreError:
    """The transient StoreError for a failure to open or read a file of ours."""
    failed = StoreError(
        f"the file cannot be read: {error.strerror}", "look at the disk of the data folder and ulimit -n"
    )
    failed.transient = True
    return failed


def read_file_meta(file: BinaryIO) -> FileMeta:
    """Read preamble and group 2 of a file opened at its start. Raises InputError."""
    if file.read(_PREAMBLE_BYTES + 4)[_PREAMBLE_BYTES:] != b"DICM":
        raise InputError("not a DICOM Part 10 file", "it lacks the prefix DICM after 128 bytes")
    values: dict[int, str] = {}
    offset = _PREAMBLE_BYTES + 4
    while len(head := file.read(_SHORT.size)) == _SHORT.size:
        group, element, vr, length = _SHORT.unpack(head)
        if group != 2:
            break
        offset += _SHORT.size
        if vr in _LONG_VRS:
            (length,) = _LONG.unpack(file.read(4).ljust(4, b"\0"))
            offset += 4
        offset += length
        if offset > _MAXIMUM_META_BYTES:
            raise InputError("the file meta information has no end")
        values[element] = file.read(length).rstrip(b"\0 ").decode("ascii", "replace")
    meta = FileMeta(values.get(0x0002, ""), values.get(0x0003, ""), values.get(0x0010, ""), offset)
    if not UID_FORM.fullmatch(meta.transfer_syntax_uid):
        raise InputError("the file meta information names no transfer syntax")
    return meta
