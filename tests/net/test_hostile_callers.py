"""What strangers do to a listening port: each is cut off in its time, and nobody else notices."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from dicomnode.core.types import AssociationEnd
from dicomnode.net import pdu
from dicomnode.net.contexts import ProposedContext
from dicomnode.net.negotiation import Item, encode_item, read_answer, reject, request
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import Caller, ScpLimits, ScpSettings
from dicomnode.testing.processes import wait_until
from tests.net.clients import CT, CT_IMAGE, EXPLICIT, Client, MemoryIntake, fragment, store_request

Connect = Callable[[], Client]
REQUEST = request("NODE", "CT1", [CT])
SHORT = pytest.mark.parametrize("limits", [ScpLimits(artim_s=0.3, idle_s=0.3)])


def proposed_context(abstract_syntax: str, *syntaxes: str) -> bytes:
    """A presentation context with the ID 1, however often it is proposed."""
    content = b"".join(encode_item(Item.TRANSFER_SYNTAX, syntax.encode()) for syntax in syntaxes)
    content = bytes([1, 0, 0, 0]) + encode_item(Item.ABSTRACT_SYNTAX, abstract_syntax.encode()) + content
    return encode_item(Item.PROPOSED_CONTEXT, content[:65_535])


def is_accepted(answer: bytes) -> bool:
    return answer[:1] == bytes([pdu.PduType.ASSOCIATE_AC])


@SHORT
@pytest.mark.parametrize(
    "said", [b"", REQUEST[:5], REQUEST[:60], REQUEST[:-1]], ids=["nothing", "half a header", "half", "all but a byte"]
)
def test_a_silent_connection_ends_and_keeps_nobody_out(said: bytes, connect: Connect, limits: ScpLimits) -> None:
    silent = connect()
    silent.send(said)
    assert is_accepted(connect().associate())
    assert silent.is_cut_off()


@SHORT
@pytest.mark.parametrize(
    "said",
    [
        b"",
        fragment(store_request(), is_command=True),
        fragment(store_request(), is_command=True) + fragment(b"abc", is_last=False),
        fragment(store_request(), is_command=True) + fragment(b"abcdef")[:-2],
    ],
    ids=["idle", "no data set", "half a data set", "half a PDU"],
)
def test_an_association_that_falls_silent_is_lost(
    said: bytes, connect: Connect, intake: MemoryIntake, limits: ScpLimits
) -> None:
    client = connect()
    client.associate()
    client.send(said)
    assert client.is_cut_off()
    assert intake.await_end() is AssociationEnd.LOST
    assert not intake.stored
    assert len(intake.aborted) == (1 if said else 0)


HEADER_OF_MUCH = pdu.data_header(1, False, True, 100_000)


@SHORT
@pytest.mark.parametrize(
    ("before", "trickle", "pause_s"),
    [
        (b"", REQUEST[:6], 0.15),
        (b"", struct.pack(">BxL", 1, 100_000) + bytes(1000), 0.01),
        (REQUEST, fragment(store_request(), is_command=True)[:6], 0.15),
        (REQUEST, pdu.data_header(1, True, True, 60_000) + bytes(1000), 0.01),
        (REQUEST + fragment(store_request(), is_command=True) + HEADER_OF_MUCH, bytes(1000), 0.01),
    ],
    ids=["header", "request", "header in an association", "command", "data set"],
)
def test_a_trickle_is_cut_off(
    before: bytes, trickle: bytes, pause_s: float, connect: Connect, limits: ScpLimits, intake: MemoryIntake
) -> None:
    """One byte at a time never fills a PDU in time, though it is never silent."""
    client = connect()
    client.send(before)
    if before:
        assert is_accepted(client.read_pdu())
    said = 0
    with contextlib.suppress(OSError):  # cut off while still talking
        for number in range(len(trickle)):
            client.send(trickle[number : number + 1])
            said += 1
            time.sleep(pause_s)
    assert said < len(trickle) or client.is_cut_off()
    assert not intake.stored
    if before:
        assert intake.await_end() is AssociationEnd.LOST


def test_whoever_stalls_stalls_nobody_else(connect: Connect, intake: MemoryIntake) -> None:
    """One stalled caller at each step, with all the time in the world; another one stores meanwhile."""
    command = fragment(store_request(), is_command=True)
    for said in (b"", REQUEST[:3], REQUEST[:-1], REQUEST, REQUEST + command[:9], REQUEST + command,
                 REQUEST + command + fragment(b"abc", is_last=False), REQUEST + command + HEADER_OF_MUCH):  # fmt: skip
        connect().send(said)
    client = connect()
    assert is_accepted(client.associate())
    client.send(fragment(store_request("1.2.9"), is_command=True) + fragment(b"data"))
    assert client.read_pdu()[0] == pdu.PduType.DATA
    assert intake.contents() == {"1.2.9": b"data"}


@pytest.mark.parametrize(
    ("farewell", "answer", "how"),
    [
        (pdu.RELEASE_RQ, pdu.RELEASE_RP, AssociationEnd.RELEASED),
        (pdu.ABORT_BY_USER, b"", AssociationEnd.ABORTED),
    ],
    ids=["release", "abort"],
)
def test_nothing_is_taken_after_the_end(
    farewell: bytes, answer: bytes, how: AssociationEnd, connect: Connect, intake: MemoryIntake
) -> None:
    client = connect()
    client.associate()
    client.send(farewell + fragment(store_request(), is_command=True) + fragment(b"late"))
    assert intake.await_end() is how
    assert client.read_pdu() in (answer, b"")  # our close overtakes our answer where the late data is thrown away
    assert client.read_pdu() == b""
    assert not intake.stored


@pytest.mark.parametrize(
    "items",
    [
        proposed_context(CT_IMAGE, EXPLICIT) * 10_000,
        proposed_context(CT_IMAGE, *["1.2.3"] * 7000) * 6,
        struct.pack(">BxH", 0x50, 60_000) + struct.pack(">BxH", 0x54, 0) * 15_000,
        b"\x99\0\0\0" * 100_000,
        bytes(500_000),
    ],
    ids=["contexts", "syntaxes", "roles", "unknown items", "zeros"],
)
def test_a_huge_request_is_cut_off_or_answered(items: bytes, connect: Connect, intake: MemoryIntake) -> None:
    body = REQUEST[6:74] + items
    client = connect()
    client.send(struct.pack(">BxL", 1, len(body)) + body)
    answer = client.read_pdu()
    assert answer[:1] in (b"\x03", b"\x07")
    assert not intake.opened
    assert is_accepted(connect().associate())


@pytest.mark.parametrize(
    "first",
    [
        struct.pack(">BxL", 1, 0xFFFFFFF0) + bytes(100),  # took 2.5 GB of a stock pynetdicom
        struct.pack(">BxL", 4, 0xFFFFFFF0) + bytes(100),
        struct.pack(">BxL", 1, 3) + bytes(100),
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client
        pdu.RELEASE_RQ,
        fragment(store_request(), is_command=True),
        struct.pack(">BxL", 1, 68) + bytes(68),
    ],
    ids=["endless request", "endless data", "short request", "http", "tls", "release first", "data first", "zeros"],
)
def test_what_is_no_association_request_is_cut_off(first: bytes, connect: Connect, intake: MemoryIntake) -> None:
    client = connect()
    client.send(first)
    answer = client.read_pdu()
    assert answer == b"" or answer[0] in (pdu.PduType.ABORT, pdu.PduType.ASSOCIATE_RJ)
    assert not intake.opened


@pytest.mark.parametrize(
    "said",
    [
        struct.pack(">BxLL", 4, pdu.MAXIMUM_LENGTH_BYTES + 1, 10),
        struct.pack(">BxLLBB", 4, 6, 100, 1, 3),  # a fragment longer than its PDU
        struct.pack(">BxLLBB", 4, 9, 2, 1, 3) + b"abc",  # a rest too short for another fragment
        struct.pack(">BxLLBB", 4, 6, 1, 1, 3),
        fragment(b"data before any command"),
        fragment(store_request(), 99, is_command=True),
        fragment(store_request(), 2, is_command=True),
        fragment(store_request()[:-3], is_command=True),
        fragment(b"\x08\x00\x00\x00\x00\x00\x00\x00", is_command=True),
        fragment(store_request(), is_command=True, is_last=False) + fragment(b"x", 3, is_command=True),
        fragment(store_request(), is_command=True) + fragment(b"x", 3),
        fragment(store_request(), is_command=True) + fragment(store_request(), is_command=True),
        fragment(store_request(), is_command=True) + pdu.RELEASE_RQ,
        fragment(store_request(), is_command=True, is_last=False) + pdu.RELEASE_RQ,
        fragment(b"\0" * 8, is_command=True, is_last=False) * 10_000,
        REQUEST,
        b"\x09\0\0\0\0\x04\0\0\0\0",
    ],
)  # fmt: skip
def test_a_broken_protocol_is_aborted(said: bytes, connect: Connect, intake: MemoryIntake) -> None:
    client = connect()
    client.associate()
    with contextlib.suppress(OSError):  # cut off while still talking
        client.send(said)
    answer = client.read_pdu()
    assert answer[:1] in (b"", b"\x07")
    assert intake.await_end() is AssociationEnd.ABORTED
    assert not intake.stored


@pytest.mark.parametrize("farewell", [pdu.ABORT_BY_USER, b""], ids=["abort", "closed"])
def test_a_transfer_that_breaks_off_leaves_nothing(farewell: bytes, connect: Connect, intake: MemoryIntake) -> None:
    client = connect()
    client.associate()
    client.send(fragment(store_request(), is_command=True) + fragment(b"abc", is_last=False) + farewell)
    client.connection.close()
    assert intake.await_end() is (AssociationEnd.ABORTED if farewell else AssociationEnd.LOST)
    assert len(intake.aborted) == 1
    assert not intake.stored


def test_an_unknown_transfer_syntax_is_never_accepted(connect: Connect) -> None:
    unknown = ProposedContext(CT_IMAGE, ("1.2.3.4.5", "1.2.840.10008.1.2.4.94"))
    both = ProposedContext(CT_IMAGE, ("1.2.3.4.5", EXPLICIT))
    private = ProposedContext("1.3.12.2.1107.5.9.1", (EXPLICIT,))
    answer = read_answer(connect().associate(unknown, both, private)[6:])
    assert [answer.results[number][0] for number in (1, 3, 5)] == [4, 0, 3]
    assert answer.results[3][1] == EXPLICIT


def test_uncompressed_is_chosen_where_a_sender_can_convert(connect: Connect) -> None:
    several = ProposedContext(CT_IMAGE, ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2"))
    lossy_and_lossless = ProposedContext(CT_IMAGE, ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"))
    answer = read_answer(connect().associate(several, lossy_and_lossless)[6:])
    assert [answer.results[number][1] for number in (1, 3)] == ["1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70"]


def test_callers_are_refused_by_default(intake: MemoryIntake) -> None:
    callers = (Caller("CT1", "ct1", "127.0.0.1"), Caller("CT2", "ct2", "192.0.2.1"))
    server = StorageServer(ScpSettings(("NODE",), "127.0.0.1", 0, callers), intake)
    server.start()
    try:
        answers = [ask(server, called_ae="NODE", calling_ae=calling) for calling in ("CT1", "CT2", "MR1")]
        assert is_accepted(answers[0])
        assert answers[1:] == [reject(1, 1, 3)] * 2
        assert ask(server, called_ae="ELSE", calling_ae="CT1") == reject(1, 1, 7)
        assert [sender.peer for sender in intake.opened] == ["ct1"]
    finally:
        server.stop(0)


def ask(server: StorageServer, called_ae: str, calling_ae: str) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        return Client(connection).associate(called_ae=called_ae, calling_ae=calling_ae)


@pytest.mark.parametrize("limits", [ScpLimits(associations=3, per_address=2, pending=50)])
def test_one_address_has_so_many_associations(connect: Connect, limits: ScpLimits) -> None:
    clients = [connect() for _ in range(3)]
    assert [is_accepted(client.associate()) for client in clients] == [True, True, False]
    clients[0].send(pdu.RELEASE_RQ)
    assert clients[0].read_pdu() == pdu.RELEASE_RP
    wait_until(lambda: is_accepted(connect().associate()), 10, "the released place was free")


@pytest.mark.parametrize("limits", [ScpLimits(pending=5)])
def test_silent_connections_make_room_for_others(connect: Connect, limits: ScpLimits) -> None:
    silent = [connect() for _ in range(20)]
    assert is_accepted(connect().associate())
    assert silent[0].is_cut_off()


def test_stopping_lets_a_commit_finish_and_aborts_the_idle(
    server: StorageServer, connect: Connect, intake: MemoryIntake
) -> None:
    idle, busy = connect(), connect()
    idle.associate()
    busy.associate()
    intake.let_commit.clear()
    busy.send(fragment(store_request(), is_command=True) + fragment(b"precious"))
    stopping = threading.Thread(target=server.stop, args=(0.2,))
    stopping.start()
    assert idle.read_pdu() == pdu.ABORT_BY_USER
    intake.let_commit.set()
    stopping.join(10)
    assert not stopping.is_alive()
    assert busy.read_pdu()[0] == pdu.PduType.DATA
    assert intake.contents() == {"1.2.3": b"precious"}
    assert [how for _, how in intake.ended] == [AssociationEnd.ABORTED] * 2
