"""Rejection notes as files: reading those that came, writing ours. Done where hostile bytes and big files are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from dicomnode.core.derive.derivation import Equipment
from dicomnode.core.derive.rejection import RejectedObject, Rejection, rejection_note
from dicomnode.core.headers import DEFLATED, inflate
from dicomnode.core.rejections import read_note
from dicomnode.errors import InputError, NotFoundError
from dicomnode.pixels.encode import write_file
from dicomnode.pixels.read import read_dataset, read_meta

_MAX_BYTES: Final = 64 << 20
"""A note on 100,000 instances has 30 MB."""


def read_rejection(path: str) -> dict[str, Any]:
    """{"title": code value, "sop_instance_uids": [...]} of a Key Object Selection Document; the title is "" where it
    rejects nothing. Raises NotFoundError, InputError."""
    try:
        with Path(path).open("rb") as stored:
            content = BytesIO(stored.read(_MAX_BYTES + 1))
    except FileNotFoundError:
        raise NotFoundError("a stored file is gone", "it was deleted outside the node, or by retention") from None
    if content.getbuffer().nbytes > _MAX_BYTES:
        raise InputError(f"a document of more than {_MAX_BYTES >> 20} MiB is not read", "look at its sender")
    transfer_syntax_uid = read_meta(content)
    encoded = inflate(content.read()) if transfer_syntax_uid in DEFLATED else content.read()
    note = read_note(encoded, transfer_syntax_uid)
    if note is None:
        return {"title": "", "sop_instance_uids": []}
    return {"title": note.title, "sop_instance_uids": list(note.sop_instance_uids)}


def write_rejection(
    *,
    source: str,
    title: str,
    objects: Sequence[Sequence[str]],
    description: str,
    equipment: Mapping[str, Any],
    created_at: float,
    out: str,
) -> dict[str, str]:
    """Write a rejection note as the new file `out`; arguments and result are JSON values.

    source   file of one of the rejected instances; `objects`: Series Instance, SOP Class and SOP Instance UID of each
    title, description  see `Rejection`

    Returns path, series_instance_uid, sop_instance_uid, sop_class_uid and transfer_syntax_uid.
    """
    rejection = Rejection(
        title=title,
        objects=tuple(RejectedObject(*one) for one in objects),
        description=description,
        created_at=datetime.fromtimestamp(created_at, UTC).astimezone(),
        equipment=Equipment(**equipment),
    )
    note = rejection_note(read_dataset(Path(source), with_pixels=False), rejection)
    write_file(note, Path(out))
    return {
        "path": out,
        "series_instance_uid": str(note.SeriesInstanceUID),
        "sop_instance_uid": str(note.SOPInstanceUID),
        "sop_class_uid": str(note.SOPClassUID),
        "transfer_syntax_uid": str(note.file_meta.TransferSyntaxUID),
    }
