"""What the standard allows and hardly anybody does: it is understood, and the bytes arrive as they were."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.net import pdu
from dicomnode.net.dimse import NO_DATA_SET, CommandField, Element, command, parse_command
from dicomnode.net.negotiation import request
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import ScpSettings
from tests.net.clients import CT, Client, MemoryIntake, calling, fragment, store_request

Connect = Callable[[], Client]
Pieces = list[tuple[bool, bool, bytes]]
"""Fragments of a message: is it of the command, is it the last one, payload."""


def answered(client: Client) -> tuple[int | None, int | None]:
    """(message ID, status) of the next response."""
    response = parse_command(client.read_pdu()[12:])
    return response.number(Element.MESSAGE_ID_BEING_RESPONDED_TO), response.number(Element.STATUS)


def in_pieces(content: bytes, sizes: list[int], is_command: bool) -> Pieces:
    """A command or data set cut at the sizes, which may be 0; whatever is left is the last piece."""
    pieces: Pieces = []
    for size in sizes:
        pieces.append((is_command, False, content[:size]))
        content = content[size:]
    return [*pieces, (is_command, True, content)]


def in_pdus(pieces: Pieces, counts: list[int]) -> bytes:
    """So many fragments in one P-DATA-TF, so many in the next, and so on; one in each where the counts are used up."""
    encoded = b""
    counts = [*counts]
    while pieces:
        count = counts.pop(0) if counts else 1
        here, pieces = pieces[:count], pieces[count:]
        values = b"".join(
            struct.pack(">LBB", len(payload) + 2, 1, is_command | is_last << 1) + payload
            for is_command, is_last, payload in here
        )
        encoded += struct.pack(">BxL", 4, len(values)) + values
    return encoded


_SIZES = st.lists(st.integers(0, 40), max_size=30)


def test_messages_may_be_cut_anywhere() -> None:
    """Into fragments, of no byte even, fragments into PDUs, command and data set in one of them, PDUs into segments."""
    intake = MemoryIntake()
    server = StorageServer(ScpSettings(("NODE",), "127.0.0.1", 0, accept_unknown=True), intake)
    server.start()

    @settings(deadline=None, max_examples=60)
    @given(_SIZES, st.binary(max_size=600), _SIZES, st.lists(st.integers(1, 9), max_size=40), st.integers(1, 700))
    def run(of_command: list[int], data_set: bytes, of_data_set: list[int], counts: list[int], segment: int) -> None:
        intake.stored.clear()
        pieces = in_pieces(store_request(), of_command, True) + in_pieces(data_set, of_data_set, False)
        encoded = in_pdus(pieces, counts)
        for start in range(0, len(encoded), segment):
            client.send(encoded[start : start + segment])
        assert answered(client) == (7, 0)
        assert intake.contents() == {"1.2.3": data_set}

    try:
        with calling(server) as client:
            client.associate()
            run()
    finally:
        server.stop(0)


@pytest.mark.parametrize("size", [1, 2])
def test_a_message_in_single_bytes(size: int, connect: Connect, intake: MemoryIntake) -> None:
    client = connect()
    client.associate()
    data_set = bytes(range(256)) * 4
    pieces = in_pieces(store_request(), [size] * 40, True) + in_pieces(data_set, [size] * 400, False)
    client.send(in_pdus(pieces, []))
    assert answered(client) == (7, 0)
    assert intake.contents() == {"1.2.3": data_set}


@pytest.mark.parametrize("message_id", [0, 1, 65_535])
def test_any_message_id_is_answered(message_id: int, connect: Connect) -> None:
    """PS3.7 table 9.3-1 has no forbidden one; the answer repeats it."""
    client = connect()
    client.associate()
    request = command({
        Element.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.1.1", Element.COMMAND_FIELD: CommandField.C_ECHO_RQ,
        Element.MESSAGE_ID: message_id, Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
    })  # fmt: skip
    client.send(fragment(request, 3, is_command=True))
    assert answered(client) == (message_id, 0)


@pytest.mark.parametrize(
    "odd",
    [
        store_request()[:8] + b"\xff\xff\xff\x7f" + store_request()[12:],
        store_request()[12:],
        store_request() + struct.pack("<HHL", 0, 0x1030, 4) + b"MOVE" + struct.pack("<HHL", 0, 0x9999, 0),
        store_request() + struct.pack("<HHL", 0, 0x0700, 2) + b"\1\0",
    ],
    ids=["wrong group length", "no group length", "further elements", "an element twice"],
)
def test_an_odd_command_set_is_understood(odd: bytes, connect: Connect, intake: MemoryIntake) -> None:
    """The group length (PS3.7 6.3.1) is not needed: the fragments say where the command ends."""
    client = connect()
    client.associate()
    client.send(fragment(odd, is_command=True) + fragment(b"data"))
    assert answered(client) == (7, 0)
    assert intake.contents() == {"1.2.3": b"data"}


def test_requests_need_not_wait_for_answers(connect: Connect, intake: MemoryIntake) -> None:
    """A sender that does not keep to the window of operations that was agreed harms only its own sense of time."""
    client = connect()
    client.associate()
    stores = (fragment(store_request(f"1.2.{number}"), is_command=True) + fragment(b"x") for number in range(300))
    client.send(b"".join(stores) + pdu.RELEASE_RQ)
    assert {answered(client) for _ in range(300)} == {(7, 0)}
    assert client.read_pdu() == pdu.RELEASE_RP
    assert len(intake.stored) == 300


def test_a_response_keeps_to_the_senders_maximum_length(connect: Connect) -> None:
    """PS3.8 D.1."""
    asked = request("NODE", "CT1", [CT])
    place = asked.index(b"\x51\0\0\4") + 4
    client = connect()
    client.send(asked[:place] + struct.pack(">L", 128) + asked[place + 4 :])
    assert client.read_pdu()[0] == pdu.PduType.ASSOCIATE_AC
    client.send(fragment(store_request("1." + "2" * 60), is_command=True) + fragment(b"x"))
    parts = [client.read_pdu()]
    while not parts[-1][11] & 2:
        parts.append(client.read_pdu())
    assert len(parts) > 1
    assert max(len(part) - 6 for part in parts) <= 128
    assert parse_command(b"".join(part[12:] for part in parts)).number(Element.STATUS) == 0
