"""A-ASSOCIATE: what we say is what a reader of the standard expects, and no bytes from outside break the reader."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from dicomnode.core.identity import IMPLEMENTATION_CLASS_UID
from dicomnode.net.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES, VERIFICATION, ProposedContext
from dicomnode.net.negotiation import accept, read_answer, read_request, request
from dicomnode.net.pdu import ProtocolError

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
REQUEST = request(
    "NODE", "CT1", [ProposedContext(CT_IMAGE, (IMPLICIT, EXPLICIT)), ProposedContext(VERIFICATION, (IMPLICIT,))]
)
SUPPORTED = STORAGE_CLASSES | {VERIFICATION}


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def context(context_id: int, abstract_syntax: bytes, *syntaxes: bytes) -> bytes:
    parts = [item(0x30, abstract_syntax), *(item(0x40, syntax) for syntax in syntaxes)]
    return item(0x20, bytes([context_id, 0, 0, 0]) + b"".join(parts))


def body(*items: bytes) -> bytes:
    fixed = struct.pack(">H2x16s16s32x", 1, b"NODE".ljust(16), b" CT1\0".ljust(16))
    return fixed + item(0x10, b"1.2.840.10008.3.1.1.1") + b"".join(items)


def test_pynetdicom_reads_our_request() -> None:
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(REQUEST)
    assert (theirs.called_ae_title, theirs.calling_ae_title) == ("NODE", "CT1")
    assert [each.context_id for each in theirs.presentation_context] == [1, 3]
    assert theirs.user_information is not None
    assert theirs.user_information.maximum_length == 131_072
    assert theirs.user_information.implementation_class_uid == IMPLEMENTATION_CLASS_UID


def test_our_reader_reads_our_request() -> None:
    read = read_request(REQUEST[6:])
    assert (read.called_ae, read.calling_ae, read.protocol_version) == ("NODE", "CT1", 1)
    assert [each.abstract_syntax for each in read.contexts] == [CT_IMAGE, VERIFICATION]
    assert read.contexts[0].transfer_syntaxes == (IMPLICIT, EXPLICIT)
    assert read.maximum_bytes == 131_072
    assert read.implementation.startswith("DICOMNODE_")


def test_the_answer_prefers_explicit_and_repeats_the_ae_fields() -> None:
    read = read_request(body(context(1, CT_IMAGE.encode(), IMPLICIT.encode(), EXPLICIT.encode())))
    encoded, accepted = accept(read, SUPPORTED)
    assert [(each.context_id, each.abstract_syntax, each.transfer_syntax) for each in accepted] == [
        (1, CT_IMAGE, EXPLICIT)
    ]
    assert encoded[10:42] == b"NODE".ljust(16) + b" CT1\0".ljust(16)
    theirs = A_ASSOCIATE_AC()
    theirs.decode(encoded)
    assert theirs.user_information is not None
    assert theirs.user_information.implementation_class_uid == IMPLEMENTATION_CLASS_UID


def test_the_most_that_can_be_asked_for() -> None:
    classes = sorted(STORAGE_CLASSES)[:128]
    read = read_request(request("NODE", "CT1", [ProposedContext(each, TRANSFER_SYNTAXES) for each in classes])[6:])
    encoded, accepted = accept(read, SUPPORTED)
    assert len(accepted) == 128
    assert set(read_answer(encoded[6:]).results.values()) == {(0, EXPLICIT)}


def test_roles_are_answered() -> None:
    uid = CT_IMAGE.encode()
    role = struct.pack(">H", len(uid)) + uid + b"\1\1"
    read = read_request(
        body(context(1, uid, EXPLICIT.encode()), item(0x50, item(0x51, bytes([0, 0, 64, 0])) + item(0x54, role)))
    )
    assert read.roles == {CT_IMAGE: (True, True)}
    assert read.maximum_bytes == 16384
    theirs = A_ASSOCIATE_AC()
    theirs.decode(accept(read, SUPPORTED)[0])
    assert theirs.user_information is not None
    answered = theirs.user_information.role_selection[UID(CT_IMAGE)]
    assert (answered.scu_role, answered.scp_role) == (True, False)


def test_unknown_items_are_skipped() -> None:
    """PS3.8 9.3.1: items of unrecognized types shall be ignored."""
    user = item(0x50, item(0x51, bytes(4)) + item(0x58, b"secret") + item(0xEE, b"?"))
    read = read_request(body(item(0x99, b"?"), context(1, CT_IMAGE.encode(), b"1.2.3", EXPLICIT.encode()), user))
    assert read.contexts[0].transfer_syntaxes == (EXPLICIT,)


@pytest.mark.parametrize(
    "items",
    [
        [context(2, b"1.2", b"1.2")],
        [context(1, b"1.2", b"1.2")] * 2,
        [context(1, b"../x", b"1.2")],
        [context(1, b"1" * 65, b"1.2")],
        [item(0x20, b"\1")],
        [item(0x20, b"\1\0\0\0")],
        [struct.pack(">BxH", 0x20, 500) + b"short"],
        [b"\x20"],
        [item(0x50, item(0x54, b"\x00\xff1.2"))],
        [item(0x50, item(0x51, bytes([0, 0, 0, 9])))],
    ],
    ids=["even ID", "ID twice", "path", "long", "cut", "no abstract syntax", "overlong", "crumb", "role", "tiny PDU"],
)  # fmt: skip
def test_malformed_requests_are_protocol_errors(items: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        read_request(body(*items))


def test_thousands_of_syntaxes_cost_nothing() -> None:
    """In pynetdicom's decoder this takes time with the square of their number."""
    syntaxes = [b"1.2.%d" % number for number in range(4000)]
    read = read_request(body(*(context(2 * number + 1, CT_IMAGE.encode(), *syntaxes) for number in range(14))))
    assert {each.transfer_syntaxes for each in read.contexts} == {()}
    assert {result for result, _ in read_answer(accept(read, SUPPORTED)[0][6:]).results.values()} == {4}


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 300), st.booleans())
def test_any_bytes_are_read_or_refused(noise: bytes, place: int, whole: bool) -> None:
    mutated = noise if whole else REQUEST[6 : 6 + place] + noise + REQUEST[6 + place + len(noise) :]
    with contextlib.suppress(ProtocolError):
        accept(read_request(mutated), SUPPORTED)
    with contextlib.suppress(ProtocolError):
        read_answer(mutated)
