"""DICOM files in folders, as people keep them: whatever their names, between other files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from dicomnode.core.types import Outgoing
from dicomnode.errors import InputError
from dicomnode.net.part10 import FileMeta, read_file_meta

_MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR: an index of a medium, no object to store (PS3.10 section 8.6)."""


def files_in(source: Path) -> tuple[Path, ...]:
    """Every file in a folder and below it, or the one file, in the order of their names. Links are not followed."""
    if source.is_file():
        return (source,)
    found = (Path(folder, name) for folder, _, names in os.walk(source) for name in names)
    return tuple(sorted(path for path in found if path.is_file() and not path.is_symlink()))


def dicom_files(source: Path) -> tuple[Path, ...]:
    """Those of `files_in` that are DICOM objects. A DICOMDIR is none, and what it lists is not looked for."""
    return tuple(path for path in files_in(source) if _is_object(path))


def as_outgoing(number: int, path: Path, calling_ae: str) -> Outgoing:
    """A DICOM file as something to send; `number` comes back in its receipt. Raises InputError."""
    meta = _meta(path)
    if not meta.sop_class_uid or not meta.sop_instance_uid:
        raise InputError("the file meta information names no SOP class or instance", "have it written anew")
    return Outgoing(number, path, meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, calling_ae)


def _is_object(path: Path) -> bool:
    try:
        return _meta(path).sop_class_uid != _MEDIA_STORAGE_DIRECTORY
    except InputError:
        return False


def _meta(path: Path) -> FileMeta:
    try:
        with path.open("rb") as file:
            return read_file_meta(file)
    except OSError as error:
        raise InputError(f"a file cannot be read: {error.strerror}", "check its permissions") from None
