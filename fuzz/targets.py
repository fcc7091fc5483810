"""One target for each reader of bytes from outside: it may refuse them, with its own error; anything else is a finding.

Besides not failing, what a target reads has to hold against something: the same bytes in other pieces, another reader,
or itself a second time.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from pydicom.filereader import data_element_generator
from pydicom.uid import JPEGBaseline8Bit

from dicomnode.core.headers import FIRST_PIXEL_TAG, encoding_of, inflate, scan_header, scan_start
from dicomnode.core.identity import is_valid_uid
from dicomnode.core.notification import read_availability, read_commitment_report, read_step
from dicomnode.core.rules.clauses import parse_clause
from dicomnode.core.types import DecodedPixels
from dicomnode.errors import AssociationLostError, ConfigError, InputError
from dicomnode.net import decompressed, pdu, transcode
from dicomnode.net.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES, VERIFICATION
from dicomnode.net.dimse import Element, parse_command, read_command
from dicomnode.net.negotiation import read_answer, read_proposal, read_request
from dicomnode.net.part10 import read_file_meta
from dicomnode.net.pdu import Fragment, Pdu, ProtocolError, Wire
from dicomnode.net.scp.agreement import Terms, accept, agree

Target = Callable[[bytes], None]

_SYNTAXES: Final = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
_KEYWORDS: Final = frozenset(
    ("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality",
     "PatientName", "PatientID", "ImageType", "SliceThickness", "Rows", "SmallestImagePixelValue", "PixelSpacing",
     "StudyDescription", "AcquisitionTime", "FrameIncrementPointer", "ImagePositionPatient", "InstanceNumber")
)  # fmt: skip
_TERMS: Final = Terms(STORAGE_CLASSES | {VERIFICATION}, accept_unknown_classes=True, operations=8)


class _LocalSocket(socket.socket):
    """One end of a socket pair that takes the options of a TCP connection, and gives so many bytes at a time."""

    most_bytes = 1 << 20

    def setsockopt(self, level: int, *rest: Any) -> None:
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *rest)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        return super().recv_into(memoryview(buffer)[: self.most_bytes], nbytes, flags)


@dataclass(frozen=True)
class _Reading:
    """How a wire is made to read: so many bytes at a time, into a buffer of so many."""

    most_bytes: int
    buffer_bytes: int = 1 << 20


_AT_ONCE: Final = _Reading(1 << 20)
_SMALL_BUFFER_BYTES: Final = 600
"""In which what is received has to be moved to the front now and then, as it has in the real one after a megabyte."""


def _in_crumbs(content: bytes) -> _Reading:
    """The same bytes in small pieces; into a small buffer where each fragment fits in it."""
    fits = all(len(found[-1]) < _SMALL_BUFFER_BYTES - 10 for found in _pdus_of(content, _AT_ONCE))
    return _Reading(1 + len(content) % 13, _SMALL_BUFFER_BYTES if fits else _AT_ONCE.buffer_bytes)


@contextlib.contextmanager
def _wire_that_reads(content: bytes, reading: _Reading) -> Iterator[Wire]:
    ours, theirs = socket.socketpair()
    with (
        theirs,
        _LocalSocket(fileno=ours.detach()) as local,
        patch.object(pdu, "_BUFFER_BYTES", reading.buffer_bytes),
    ):
        local.most_bytes = reading.most_bytes
        wire = Wire(local, "local")
        wire.set_timeout(5)
        theirs.sendall(content)
        theirs.shutdown(socket.SHUT_WR)
        yield wire
        wire.close()


def pdus(content: bytes) -> None:
    """PDUs and their fragments: the same whatever pieces they come in."""
    assert _pdus_of(content, _AT_ONCE) == _pdus_of(content, _in_crumbs(content))


def _pdus_of(content: bytes, reading: _Reading) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    with _wire_that_reads(content, reading) as wire, contextlib.suppress(AssociationLostError):
        while True:
            match wire.read():
                case Fragment() as fragment:
                    found.append((*fragment[:3], bytes(fragment.payload)))
                case Pdu() as other:
                    found.append(tuple(other))
    return found


def messages(content: bytes) -> None:
    """Commands and data sets as an association reads them: the same whatever pieces they come in."""
    assert _messages_of(content, _AT_ONCE) == _messages_of(content, _in_crumbs(content))


def _messages_of(content: bytes, reading: _Reading) -> list[Any]:
    found: list[Any] = []
    with _wire_that_reads(content, reading) as wire, contextlib.suppress(AssociationLostError):
        while True:
            read = read_command(wire)
            if isinstance(read, Pdu):
                found.append(read)
                continue
            context_id, command = read
            found.append((context_id, command.field, command.values))
            if command.has_data_set:
                found.append(_data_set(wire, context_id))
    return found


def _data_set(wire: Wire, context_id: int) -> bytes:
    content = bytearray()
    wire.read_data(context_id, lambda pieces: content.extend(b"".join(pieces)))
    return bytes(content)


def commands(content: bytes) -> None:
    """Command sets: what is read can be asked for anything."""
    with contextlib.suppress(ProtocolError):
        command = parse_command(content)
        for element in Element:
            command.number(element), command.uid(element)
        assert command.field is None or 0 <= command.field <= 0xFFFF


def negotiation(content: bytes) -> None:
    """A-ASSOCIATE: no answer accepts what was not asked for, and every answer can be read."""
    with contextlib.suppress(ProtocolError):
        read_answer(content)
    try:
        request = read_request(content)
        proposal = read_proposal(request.items)
    except ProtocolError:
        return
    agreement = agree(proposal, _TERMS)
    results = read_answer(accept(request, agreement)[6:]).results
    requested = {context.context_id: context for context in proposal.contexts}
    assert results.keys() == requested.keys()
    for context_id, accepted in agreement.contexts.items():
        assert results[context_id] == (0, accepted.transfer_syntax)
        assert accepted.abstract_syntax == requested[context_id].abstract_syntax
        assert accepted.transfer_syntax in requested[context_id].transfer_syntaxes
        assert accepted.transfer_syntax in TRANSFER_SYNTAXES


def headers(content: bytes) -> None:
    """Header values: the quick reader of a data set's start says what the tolerant one says, or nothing."""
    transfer_syntax_uid, encoded = _SYNTAXES[content[0] % 4] if content else _SYNTAXES[0], content[1:]
    try:
        tolerant = scan_header(encoded, transfer_syntax_uid, _KEYWORDS)
    except InputError:
        tolerant = None
    quick = scan_start([encoded], transfer_syntax_uid, _KEYWORDS)
    if quick is not None and tolerant is not None:
        assert quick.items() <= tolerant.items()
        assert quick == tolerant or not _is_ascending(encoded, transfer_syntax_uid)
    for values in (tolerant or {}).values():
        assert all(isinstance(value, str) for value in values)


def _is_ascending(encoded: bytes, transfer_syntax_uid: str) -> bool:
    """Whether a data set is whole and in the order of its tags (PS3.5 7.1): the quick reader stops where no more can
    come."""
    source = BytesIO(encoded)
    implicit, little = encoding_of(source, transfer_syntax_uid)
    try:
        tags = [int(element.tag) for element in data_element_generator(source, implicit, little, _is_pixel_data)]
    except (EOFError, struct.error, LookupError, TypeError, ValueError, NotImplementedError):
        return False
    return tags == sorted(set(tags))


def _is_pixel_data(tag: int, _vr: str | None, _length: int) -> bool:
    return tag >= FIRST_PIXEL_TAG


def clauses(content: bytes) -> None:
    """Rules: what a rule wants, from a configuration, and what a header holds, from anywhere."""
    key = _MATCHED[content[0] % len(_MATCHED)] if content else _MATCHED[0]
    wanted, _, values = content[1:].decode("utf-8", "surrogateescape").partition("\n")
    try:
        clause = parse_clause(key, wanted.split("|") if "|" in wanted else wanted)
    except ConfigError:
        return
    given = tuple(values.split("\\"))
    assert clause.holds(given) in (True, False)
    assert isinstance(clause.unreadable(given), str)


_MATCHED: Final = ("Modality", "SliceThickness", "StudyDate", "PatientAge", "SOPClassUID", "source_address", "Rows",
                   "received_hour", "AcquisitionDateTime", "StudyTime", "ImageType", "StudyDescription")  # fmt: skip


def rewriting(content: bytes) -> None:
    """Data sets in another transfer syntax: once there and back, further times change nothing."""
    source = transcode.SYNTAXES[_SYNTAXES[content[0] % 4]] if content else transcode.SYNTAXES[_SYNTAXES[0]]
    explicit, implicit = transcode.SYNTAXES[_SYNTAXES[1]], transcode.SYNTAXES[_SYNTAXES[0]]
    with contextlib.suppress(InputError):
        first = transcode._rewrite(transcode._rewrite(content[1:], source, implicit), implicit, explicit)
        assert transcode._rewrite(transcode._rewrite(first, explicit, implicit), implicit, explicit) == first


def decompressing(content: bytes) -> None:
    """Compressed data sets around pixels that were decoded elsewhere."""
    pixels = DecodedPixels(Path("not opened"), "RGB", 3, 8 if len(content) % 2 else 16)
    target = transcode.SYNTAXES[_SYNTAXES[content[0] % 2]] if content else transcode.SYNTAXES[_SYNTAXES[0]]
    with contextlib.suppress(InputError), transcode.parsing():
        description = decompressed._description(pixels, JPEGBaseline8Bit)
        before, after = decompressed._around(content[1:], target, description, 8)
        assert len(before) + len(after) < 2 * len(content) + 200


def file_meta(content: bytes) -> None:
    """DICOM files: where the data set begins."""
    with contextlib.suppress(InputError):
        assert read_file_meta(BytesIO(content)).offset_bytes >= 132


def deflated(content: bytes) -> None:
    """Deflated data sets: never more than the limit comes out."""
    with contextlib.suppress(InputError):
        inflate(content)


def notifications(content: bytes) -> None:
    """Data sets of N-services: whatever is read of them is a UID, in lists without repetitions."""
    transfer_syntax_uid, encoded = _SYNTAXES[content[0] % 3] if content else _SYNTAXES[0], content[1:]
    with contextlib.suppress(InputError):
        report = read_commitment_report(encoded, transfer_syntax_uid, 1)
        assert not report.failures.keys() & report.committed
        assert not (report.is_whole and report.failures)
        step, availability = read_step(encoded, transfer_syntax_uid), read_availability(encoded, transfer_syntax_uid)
        for uid, members in (*(step.series or ()), *availability.series):
            assert members
            assert len(set(members)) == len(members)
            assert all(map(is_valid_uid, (uid, *members)))
        assert all(map(is_valid_uid, (*report.committed, *report.failures)))


TARGETS: Final[Mapping[str, Target]] = {
    each.__name__: each
    for each in (
        pdus, messages, commands, negotiation, headers, clauses, rewriting, decompressing, file_meta, deflated,
        notifications,
    )
}  # fmt: skip
