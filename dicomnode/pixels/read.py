"""Reading stored DICOM files (PS3.10) without trusting what is in them."""

from __future__ import annotations

import errno
import logging
import os
import warnings
from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset as parse_dataset
from pydicom.uid import UID

from dicomnode.core.headers import DEFLATED, FIRST_PIXEL_TAG, encoding_of, inflate, scan_header, scan_start, unreadable
from dicomnode.core.types import Header
from dicomnode.errors import InputError, NotFoundError, StoreError, UnsupportedError

MAX_FILE_BYTES: Final = 1 << 30
"""Larger files are stored and forwarded, but not read for engines."""
MAX_META_BYTES: Final = 1 << 20

_OF_THE_DISK: Final = frozenset({
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.ENODEV,
    errno.EMFILE, errno.ENFILE, errno.ENOMEM,
})  # fmt: skip
"""System errors that say nothing of the file: of its disk, of the server that it lies on, of what we are allowed."""

_PREAMBLE_BYTES: Final = 128
_START_BYTES: Final = 1 << 15
"""In which most headers lie whole."""
_LONG_VRS: Final = frozenset(
    {b"OB", b"OW", b"UN", b"SQ", b"UT", b"UC", b"UR", b"OD", b"OF", b"OL", b"OV", b"SV", b"UV"}
)


def quiet_pydicom() -> None:
    """Stop pydicom from checking values as it reads, and from warning about them: its warnings quote the values,
    which may be a patient's. For the start of a process that reads data sets."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").disabled = True


def read_header(path: Path, keywords: Collection[str]) -> Header:
    """Values of `keywords` in a stored file. Raises NotFoundError, InputError, StoreError, ConfigError (see
    `scan_header`)."""
    try:
        with path.open("rb") as stored:
            transfer_syntax_uid = read_meta(stored)
            begin = stored.tell()
            found = scan_start((stored.read(_START_BYTES),), transfer_syntax_uid, keywords)
            if found is None:
                stored.seek(begin)
                found = scan_header(stored, transfer_syntax_uid, keywords)
            return found
    except FileNotFoundError:
        raise NotFoundError("a stored file is gone", "it was deleted outside the node, or by retention") from None
    except OSError as error:
        raise _unread(error) from None


def read_dataset(path: Path, *, with_pixels: bool) -> Dataset:
    """A stored file's data set, with its file meta information; without its pixels unless asked for.

    The whole file comes into memory, so lengths that its data set claims cannot ask for more than it has.
    Raises NotFoundError, InputError, StoreError, and UnsupportedError for a file larger than MAX_FILE_BYTES.
    """
    stored = BytesIO(_whole(path))
    transfer_syntax_uid = read_meta(stored)
    source = BytesIO(inflate(stored.read())) if transfer_syntax_uid in DEFLATED else stored
    implicit, little = encoding_of(source, transfer_syntax_uid)
    try:
        parsed = parse_dataset(
            source, implicit, little, stop_when=None if with_pixels else lambda tag, vr, length: tag >= FIRST_PIXEL_TAG
        )
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  hostile bytes raise anything, and all of it becomes one error
        raise unreadable(error) from None
    parsed.file_meta = FileMetaDataset()
    parsed.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    return parsed


def read_meta(source: BinaryIO) -> str:
    """The transfer syntax that the file meta information names; leaves `source` at the data set (PS3.10 7.1).

    Its group length is not relied on: the first element of another group ends it.
    """
    if source.read(_PREAMBLE_BYTES + 4)[_PREAMBLE_BYTES:] != b"DICM":
        raise InputError("not a DICOM file", "a DICOM file has the letters DICM after its first 128 bytes")
    transfer_syntax_uid = ""
    while (start := source.read(8))[:2] == b"\x02\x00" and len(start) == 8:
        length = int.from_bytes(source.read(4) if start[4:6] in _LONG_VRS else start[6:8], "little")
        if length > MAX_META_BYTES:
            raise InputError("the file meta information is damaged", "ask the sender for the object again")
        held = source.read(length)
        if start[2:4] == b"\x10\x00":
            transfer_syntax_uid = held.decode("ascii", "replace").strip(" \0")
    source.seek(-len(start), 1)
    if not transfer_syntax_uid:
        raise InputError("the file names no transfer syntax", "its file meta information lacks (0002,0010)")
    return transfer_syntax_uid


def _unread(error: OSError) -> InputError | StoreError:
    """What a file is that the system does not let us read: unreadable, or on a disk that fails and may be back."""
    if error.errno in _OF_THE_DISK:
        return StoreError(f"a file cannot be read: {os.strerror(error.errno)}", "look at the disk it lies on")
    return InputError(f"a file cannot be read ({type(error).__name__})", "check its permissions")


def _whole(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise UnsupportedError(f"a file of {size >> 20} MiB is not read for engines", "it is forwarded as it is")
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError("a stored file is gone", "it was deleted outside the node, or by retention") from None
    except OSError as error:
        raise _unread(error) from None
