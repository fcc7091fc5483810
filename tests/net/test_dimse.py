"""Command sets: what is written is read, and no bytes from outside break the reader."""

from __future__ import annotations

import contextlib
import io

from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from dicomnode.net.dimse import NO_DATA_SET, Element, command, parse_command
from dicomnode.net.pdu import MAXIMUM_LENGTH_BYTES, ProtocolError, fragment_bytes, fragments


def test_pydicom_reads_our_commands() -> None:
    encoded = command(
        {
            Element.STATUS: 0xA700,
            Element.COMMAND_FIELD: 0x8001,
            Element.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.1.1",
            Element.ERROR_COMMENT: "odd",
            Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
        }
    )
    read = read_dataset(io.BytesIO(encoded), True, True)
    assert read.CommandGroupLength == len(encoded) - 12
    assert (read.Status, read.CommandField, read.CommandDataSetType) == (0xA700, 0x8001, 0x0101)
    assert (read.AffectedSOPClassUID, read.ErrorComment) == ("1.2.840.10008.1.1", "odd")
    assert [element.tag for element in read] == sorted(element.tag for element in read)


NUMBERS = st.sampled_from([Element.STATUS, Element.MESSAGE_ID, Element.COMMAND_FIELD, Element.COMMAND_DATA_SET_TYPE])


@given(st.dictionaries(NUMBERS, st.integers(0, 0xFFFF)), st.from_regex(r"[0-9.]{1,64}", fullmatch=True))
def test_what_is_written_is_read(numbers: dict[Element, int], uid: str) -> None:
    read = parse_command(command({**numbers, Element.AFFECTED_SOP_INSTANCE_UID: uid}))
    assert {element: read.number(element) for element in numbers} == numbers
    assert read.uid(Element.AFFECTED_SOP_INSTANCE_UID) == uid


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(encoded: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read = parse_command(encoded)
        assert read.field is None or 0 <= read.field <= 0xFFFF
        assert isinstance(read.uid(Element.AFFECTED_SOP_CLASS_UID), str)


@given(st.binary(min_size=1, max_size=2000), st.integers(128, 5000))
def test_fragments_fit_and_add_up(payload: bytes, maximum_bytes: int) -> None:
    parts = fragments(3, True, payload, maximum_bytes)
    headers, pieces = parts[::2], parts[1::2]
    assert b"".join(pieces) == payload
    assert [header[11] for header in headers] == [1] * (len(headers) - 1) + [3]
    for header, piece in zip(headers, pieces, strict=True):
        assert int.from_bytes(header[2:6], "big") == len(piece) + 6 <= maximum_bytes
        assert int.from_bytes(header[6:10], "big") == len(piece) + 2


def test_no_maximum_is_ours() -> None:
    assert fragment_bytes(0) == fragment_bytes(1 << 31) == MAXIMUM_LENGTH_BYTES - 6
    assert fragment_bytes(16383) % 2 == 0
