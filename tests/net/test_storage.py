"""C-STORE and C-ECHO as provider: bytes arrive as sent, every failure has its status, the association goes on."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomnode.core.types import AssociationEnd
from dicomnode.errors import DicomNodeError, DiskFullError, IndexAwayError, InputError, MismatchError, StoreError
from dicomnode.net import pdu
from dicomnode.net.contexts import VERIFICATION, Kind, propose
from dicomnode.net.dimse import NO_DATA_SET, Command, CommandField, Element, command, parse_command
from dicomnode.net.negotiation import Item, encode_item, request
from dicomnode.net.part10 import read_file_meta
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import ScpLimits
from dicomnode.net.scu import PeerAddress, associate
from dicomnode.testing.peers import Call, dcmsend, echoscu, storescu
from dicomnode.testing.processes import wait_until
from tests.net.clients import CT, Client, MemoryIntake, fragment, store_request
from tests.shared import shared_data

SERIES = ("ct/dicom/kits00072", "ct/dicom/lidc0002", "ct/dicom/head_ge")
Connect = Callable[[], Client]


def data_set(path: Path) -> tuple[str, bytes]:
    with path.open("rb") as file:
        meta = read_file_meta(file)
        file.seek(meta.offset_bytes)
        return meta.sop_instance_uid, file.read()


def response(encoded: bytes) -> Command:
    """The command set of a P-DATA-TF with one fragment."""
    assert encoded[0] == pdu.PduType.DATA
    return parse_command(encoded[12:])


def status(encoded: bytes) -> int | None:
    return response(encoded).number(Element.STATUS)


@pytest.mark.parametrize("folder", SERIES)
def test_our_own_sender_and_receiver_keep_every_byte(folder: str, server: StorageServer, intake: MemoryIntake) -> None:
    paths = sorted(shared_data(folder).glob("*.dcm"))
    with paths[0].open("rb") as file:
        meta = read_file_meta(file)
    kind = Kind(meta.sop_class_uid, meta.transfer_syntax_uid)
    with associate(PeerAddress("127.0.0.1", server.port, "NODE"), "CT1", propose([kind])[0]) as association:
        for path in paths:
            uid = data_set(path)[0]
            assert association.store(path, meta.sop_class_uid, uid, meta.transfer_syntax_uid) == 0
    assert intake.contents() == dict(map(data_set, paths))
    assert {offer.transfer_syntax_uid for offer, _ in intake.stored} == {meta.transfer_syntax_uid}
    assert intake.ended == [(1, AssociationEnd.RELEASED)]


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("send", [storescu, dcmsend])
def test_dcmtk_sends(send: Callable[..., int], server: StorageServer, intake: MemoryIntake) -> None:
    folder = shared_data("ct/dicom/kits00072")
    assert send(Call(server.port, "OTHER", "SCANNER"), [folder]) == 0
    assert sorted(intake.contents()) == sorted(data_set(path)[0] for path in folder.glob("*.dcm"))
    assert {(sender.calling_ae, sender.called_ae) for sender in intake.opened} == {("SCANNER", "OTHER")}


@pytest.mark.peer("dcmtk")
def test_dcmtk_compressed_is_stored_as_it_came(server: StorageServer, intake: MemoryIntake) -> None:
    path = shared_data("dicom/ts/CT1_JPLL.dcm")
    assert storescu(Call(server.port, "NODE", "SCANNER"), [path], "-xs") == 0
    ((offer, _),) = intake.stored
    assert offer.transfer_syntax_uid == "1.2.840.10008.1.2.4.70"


@pytest.mark.peer("dcmtk")
def test_dcmtk_verifies(server: StorageServer) -> None:
    assert echoscu(Call(server.port, "NODE", "SCANNER")) == 0
    assert echoscu(Call(server.port, "NOBODY", "SCANNER")) != 0


def test_a_data_set_in_many_fragments_arrives_whole(connect: Connect, intake: MemoryIntake) -> None:
    client = connect()
    client.associate()
    encoded = store_request()
    client.send(fragment(encoded[:9], is_command=True, is_last=False) + fragment(encoded[9:], is_command=True))
    two = struct.pack(">LBB", 4, 1, 0) + b"cd" + struct.pack(">LBB", 3, 1, 2) + b"e"  # in one PDU, the last one odd
    client.send(fragment(b"ab", is_last=False) + fragment(b"", is_last=False) + struct.pack(">BxL", 4, len(two)) + two)
    assert status(client.read_pdu()) == 0x0000
    assert intake.contents() == {"1.2.3": b"abcde"}


@pytest.mark.parametrize(
    ("place", "error", "expected"),
    [
        ("begin_error", DiskFullError("full"), 0xA700),
        ("commit_error", IndexAwayError("restarted"), 0xA700),
        ("begin_error", InputError("odd"), 0xC000),
        ("write_error", DiskFullError("full"), 0xA700),
        ("write_error", StoreError("broken"), 0x0110),
        ("commit_error", MismatchError("another UID"), 0xA900),
        ("commit_error", StoreError("broken"), 0x0110),
    ],
)
def test_a_failure_is_answered_and_the_association_goes_on(
    place: str, error: DicomNodeError, expected: int, connect: Connect, intake: MemoryIntake
) -> None:
    client = connect()
    client.associate()
    setattr(intake, place, error)
    client.send(fragment(store_request(), is_command=True) + fragment(b"x" * 500, is_last=False) + fragment(b"y" * 500))
    answer = response(client.read_pdu())
    assert answer.number(Element.STATUS) == expected
    assert answer.values[Element.ERROR_COMMENT].decode().rstrip() == str(error)
    assert answer.number(Element.MESSAGE_ID_BEING_RESPONDED_TO) == 7
    assert len(intake.aborted) == (place == "write_error")
    setattr(intake, place, None)
    client.send(fragment(store_request(), is_command=True) + fragment(b"good"))
    assert status(client.read_pdu()) == 0x0000
    assert intake.contents() == {"1.2.3": b"good"}


@pytest.mark.parametrize("place", ["begin_error", "write_error", "commit_error"])
def test_a_fault_of_ours_is_answered_and_the_association_goes_on(
    place: str, connect: Connect, intake: MemoryIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[dict[str, object]] = []
    monkeypatch.setattr("dicomnode.telemetry.event", lambda name, **fields: events.append({"name": name, **fields}))
    client = connect()
    client.associate()
    setattr(intake, place, RuntimeError("DOE^JANE"))
    client.send(fragment(store_request(), is_command=True) + fragment(b"x" * 500))
    answer = response(client.read_pdu())
    assert answer.number(Element.STATUS) == 0x0110
    (refused,) = [each for each in events if each["name"] == "instance_refused"]
    assert refused["error"] == "RuntimeError"
    assert "tests.net.clients" in str(refused["hint"])
    assert "DOE" not in f"{events}{answer.values}"
    setattr(intake, place, None)
    client.send(fragment(store_request(), is_command=True) + fragment(b"good"))
    assert status(client.read_pdu()) == 0x0000
    assert intake.contents() == {"1.2.3": b"good"}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (store_request("../../../../tmp/pwned"), 0x0117),
        (store_request("1" * 65), 0x0117),
        (store_request(""), 0x0117),
        (store_request(sop_class_uid="1.2.840.10008.1.3.10"), 0x0122),  # DICOMDIR
        (store_request(sop_class_uid="1.2.840.10008.5.1.4.1.1.4"), 0x0122),  # MR in a context for CT
    ],
)
def test_what_the_command_alone_forbids_never_reaches_the_intake(
    request_: bytes, expected: int, connect: Connect, intake: MemoryIntake
) -> None:
    client = connect()
    client.associate()
    client.send(fragment(request_, is_command=True) + fragment(b"data"))
    assert status(client.read_pdu()) == expected
    client.send(fragment(store_request("1.2.4"), is_command=True) + fragment(b"data"))
    assert status(client.read_pdu()) == 0x0000
    assert list(intake.contents()) == ["1.2.4"]


def test_a_store_without_a_data_set_is_refused(connect: Connect, intake: MemoryIntake) -> None:
    client = connect()
    client.associate()
    client.send(fragment(store_request(has_data_set=False), is_command=True))
    assert status(client.read_pdu()) == 0xC000
    assert not intake.stored


@pytest.mark.parametrize("limits", [ScpLimits(max_dataset_bytes=1000)])
def test_a_data_set_over_the_limit_is_refused_and_forgotten(
    connect: Connect, intake: MemoryIntake, limits: ScpLimits
) -> None:
    client = connect()
    client.associate()
    for size, expected in ((1001, 0xA700), (1000, 0x0000)):
        client.send(fragment(store_request(), is_command=True) + fragment(b"x" * size))
        assert status(client.read_pdu()) == expected
    assert len(intake.aborted) == 1
    assert intake.contents() == {"1.2.3": b"x" * 1000}


def test_operations_we_do_not_offer_are_named_so(connect: Connect) -> None:
    client = connect()
    client.associate()
    find: dict[Element, int | str] = {
        Element.AFFECTED_SOP_CLASS_UID: VERIFICATION,
        Element.COMMAND_FIELD: 0x0020,
        Element.MESSAGE_ID: 1,
        Element.COMMAND_DATA_SET_TYPE: 1,
    }
    client.send(fragment(command(find), is_command=True) + fragment(b"identifier"))
    answer = response(client.read_pdu())
    assert (answer.field, answer.number(Element.STATUS)) == (0x8020, 0x0211)
    echo = find | {Element.COMMAND_FIELD: CommandField.C_ECHO_RQ, Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET}
    client.send(fragment(command(echo), 3, is_command=True))
    assert status(client.read_pdu()) == 0x0000


def test_a_cancel_of_what_is_over_is_not_answered(connect: Connect) -> None:
    client = connect()
    client.associate()
    cancel: dict[Element, int | str] = {
        Element.COMMAND_FIELD: CommandField.C_CANCEL_RQ,
        Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
    }
    client.send(fragment(command(cancel), is_command=True) + pdu.RELEASE_RQ)
    assert client.read_pdu() == pdu.RELEASE_RP


def with_window(operations: int) -> bytes:
    """An A-ASSOCIATE-RQ for CT with an asynchronous operations window (PS3.7 D.3.3.3)."""
    plain = request("NODE", "CT1", [CT])
    window = encode_item(Item.OPERATIONS_WINDOW, struct.pack(">HH", operations, 1))
    place = plain.index(b"\x50\x00", 74)  # the user information item is the last one
    (length,) = struct.unpack_from(">H", plain, place + 2)
    body = plain[6:place] + b"\x50\x00" + struct.pack(">H", length + len(window)) + plain[place + 4 :] + window
    return struct.pack(">BxL", 1, len(body)) + body


def _store(number: int) -> bytes:
    command_set = store_request(f"1.2.{number}", message_id=number)
    return fragment(command_set, is_command=True) + fragment(b"data")


def _sent_within(window: int, count: int, connect: Connect, intake: MemoryIntake) -> Client:
    """A sender that agreed on a window and sent so many instances, of which none is committed yet."""
    client = connect()
    client.send(with_window(window))
    assert client.read_pdu()[0] == pdu.PduType.ASSOCIATE_AC
    intake.let_commit.clear()
    for number in range(1, count + 1):
        client.send(_store(number))
    return client


def test_where_a_window_was_agreed_answers_need_not_be_awaited(connect: Connect, intake: MemoryIntake) -> None:
    client = _sent_within(3, 3, connect, intake)
    wait_until(lambda: intake.begun == 3, 10, "all three were received, and none answered")
    assert intake.stored == []
    intake.let_commit.set()
    answers = [response(client.read_pdu()) for _ in range(3)]
    assert {answer.number(Element.MESSAGE_ID_BEING_RESPONDED_TO) for answer in answers} == {1, 2, 3}
    assert {answer.number(Element.STATUS) for answer in answers} == {0}
    client.send(pdu.RELEASE_RQ)
    assert client.read_pdu() == pdu.RELEASE_RP
    assert intake.await_end() is AssociationEnd.RELEASED


def test_no_more_is_read_than_the_window_holds(connect: Connect, intake: MemoryIntake) -> None:
    client = _sent_within(2, 5, connect, intake)
    wait_until(lambda: intake.begun == 3, 10, "the window was full, and one more was received")
    intake.let_commit.set()
    assert {status(client.read_pdu()) for _ in range(5)} == {0}
    assert len(intake.stored) == 5


def test_what_is_outstanding_when_a_sender_goes_is_stored_before_its_end_is_recorded(
    connect: Connect, intake: MemoryIntake
) -> None:
    client = _sent_within(4, 3, connect, intake)
    wait_until(lambda: intake.begun == 3, 10, "all were received")
    client.connection.close()
    intake.let_commit.set()
    assert intake.await_end() is AssociationEnd.LOST
    assert len(intake.stored) == 3


def test_a_sender_does_not_wait_for_a_response_that_nobody_sends(
    connect: Connect, intake: MemoryIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    seen: list[object] = []
    monkeypatch.setattr("sys.excepthook", lambda kind, *_: seen.append(kind))
    monkeypatch.setattr("dicomnode.net.scp.storage._answer", fail)
    client = connect()
    client.send(with_window(4))
    client.read_pdu()
    client.send(_store(1))
    assert intake.await_end() is AssociationEnd.ABORTED
    assert client.connection.recv(1) == b""
    assert seen == [RuntimeError]
