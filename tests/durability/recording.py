"""What `recorder.c` recorded of a program: its file system calls and the DIMSE answers that it sent, in one order."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("<4L5Q")
_PDU_HEADER: Final = struct.Struct(">BxL")
_PDV_HEADER: Final = struct.Struct(">LBB")
_ELEMENT: Final = struct.Struct("<HHL")
_P_DATA_TF: Final = 4  # PS3.8 9.3.5
_C_STORE_RSP: Final = 0x8001  # PS3.7 E.1
_SOURCE: Final = Path(__file__).with_name("recorder.c")


class Kind(IntEnum):
    """Kinds of records, as in recorder.c."""

    CREATE = ord("c")
    MAKE_FOLDER = ord("d")
    LINK = ord("l")
    RENAME = ord("r")
    UNLINK = ord("u")
    WRITE = ord("w")
    TRUNCATE = ord("t")
    SYNC_BEGUN = ord("b")
    SYNC_DONE = ord("s")
    ALL_BEGUN = ord("B")
    ALL_DONE = ord("S")
    ANSWER = ord("a")
    ANSWER_CUT = ord("x")


@dataclass(frozen=True, slots=True)
class Record:
    """One call. `first` is a name or the bytes written or sent, `second` the new name; 0 is no inode."""

    kind: Kind
    process: int
    inode: int
    folder: int
    other_folder: int
    offset: int
    token: int
    first: bytes
    second: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A C-STORE response whose last byte went out with the record of that index."""

    at: int
    sop_instance_uid: str
    status: int


def build(folder: Path) -> Path:
    """Compile the recorder; needs a C compiler."""
    library = folder / "recorder.so"
    options = ["-shared", "-fPIC", "-O2", "-pthread"]
    subprocess.run(["cc", *options, "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


def surroundings(library: Path, root: Path, log: Path, ignores: str = "") -> dict[str, str]:
    """The environment in which a program is recorded; the log goes on where it ended."""
    return {
        "LD_PRELOAD": str(library),
        "RECORDER_ROOT": str(root),
        "RECORDER_LOG": str(log),
        "RECORDER_LOCK": f"{log}.lock",
        "RECORDER_IGNORES": ignores,
    }


def read(log: Path) -> list[Record]:
    """All records. One that a kill cut short ends them."""
    content = log.read_bytes()
    records = []
    position = 0
    while position + _HEADER.size <= len(content):
        kind, process, first, second, inode, folder, other, offset, token = _HEADER.unpack_from(content, position)
        position += _HEADER.size
        if position + first + second > len(content):
            break
        names = content[position : position + first], content[position + first : position + first + second]
        records.append(Record(Kind(kind), process, inode, folder, other, offset, token, *names))
        position += first + second
    return records


def store_answers(records: Sequence[Record]) -> list[Answer]:
    """Every C-STORE response in the record, in the order in which they were sent."""
    taken = {record.token: record.offset for record in records if record.kind is Kind.ANSWER_CUT}
    streams: dict[int, bytearray] = {}
    answers = []
    for index, record in enumerate(records):
        if record.kind is Kind.ANSWER:
            stream = streams.setdefault(record.inode, bytearray())
            stream += record.first[: taken.get(record.token, len(record.first))]
            answers += [Answer(index, *response) for pdu in _pdus(stream) if (response := _store_response(pdu))]
    return answers


def _pdus(stream: bytearray) -> Iterator[bytes]:
    """Take the complete P-DATA-TF PDUs off a stream. What is no DICOM ends in nothing: it is dropped."""
    while len(stream) >= _PDU_HEADER.size:
        kind, length = _PDU_HEADER.unpack_from(stream)
        if not 1 <= kind <= 7:
            stream.clear()
        if len(stream) < _PDU_HEADER.size + length:
            return
        pdu = bytes(stream[_PDU_HEADER.size : _PDU_HEADER.size + length])
        del stream[: _PDU_HEADER.size + length]
        if kind == _P_DATA_TF:
            yield pdu


def _store_response(pdu: bytes) -> tuple[str, int] | None:
    """(SOP Instance UID, status) of a C-STORE response in one PDV, None for anything else (PS3.7 9.3.1.2)."""
    values = {}
    position = _PDV_HEADER.size
    while position + _ELEMENT.size <= len(pdu):
        group, element, length = _ELEMENT.unpack_from(pdu, position)
        position += _ELEMENT.size
        values[group, element] = pdu[position : position + length]
        position += length
    if int.from_bytes(values.get((0, 0x0100), b""), "little") != _C_STORE_RSP:
        return None
    return values[0, 0x1000].rstrip(b"\0 ").decode("ascii"), int.from_bytes(values[0, 0x0900], "little")
