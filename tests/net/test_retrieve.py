"""C-GET and C-MOVE: real archives, into an intake by the services that receive; and peers that fail half way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.core.retrieving import Wanted
from dicomnode.core.types import Sender
from dicomnode.errors import AssociationLostError, DiskFullError, MismatchError, PeerError, RequestFailedError
from dicomnode.net import pdu
from dicomnode.net.contexts import Kind, ProposedContext
from dicomnode.net.dimse import DATA_SET, NO_DATA_SET, Command, CommandField, Element, command, parse_command
from dicomnode.net.negotiation import read_proposal, read_request, request
from dicomnode.net.query import STUDY_ROOT
from dicomnode.net.retrieve import MOVE_CONTEXTS, Retrieved, SubOperations, get, get_contexts, move
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.storage import StorageService
from dicomnode.net.scu import Opening, PeerAddress, Timeouts, associate
from dicomnode.testing.archives import DcmQrScp
from dicomnode.testing.peers import Call, Orthanc, dcmsend
from tests.net.clients import (
    CT_IMAGE,
    EXPLICIT,
    Client,
    MemoryIntake,
    Script,
    answer_to,
    fragment,
    scripted,
    store_request,
)
from tests.shared import shared_data

QUICK = Opening(Timeouts(connect_s=2, associate_s=2, response_s=5))
LIMIT_BYTES = 1 << 24


@dataclass
class Archive:
    """A peer that holds the objects at `paths`."""

    address: PeerAddress
    paths: list[Path]
    server: StorageServer
    intake: MemoryIntake

    def wanted(self, *uids: str, level: str = "STUDY") -> Wanted:
        first = dcmread(self.paths[0], stop_before_pixels=True)
        series = "" if level == "STUDY" else str(first.SeriesInstanceUID)
        return Wanted(str(first.StudyInstanceUID), series, uids, str(first.PatientID))

    def uids(self) -> list[str]:
        return sorted(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in self.paths)


def fetched(archive: Archive, wanted: Wanted, method: str, classes: tuple[str, ...] = (CT_IMAGE,)) -> Retrieved:
    return (get_into(archive.intake, archive.address, wanted, classes) if method == "get" else
            moved(archive.address, wanted))  # fmt: skip


def moved(address: PeerAddress, wanted: Wanted) -> Retrieved:
    with associate(address, "NODE", MOVE_CONTEXTS, QUICK) as association:
        return move(association, wanted, "NODE", lambda _: None)


def get_into(
    intake: MemoryIntake, address: PeerAddress, wanted: Wanted, classes: tuple[str, ...] = (CT_IMAGE,)
) -> Retrieved:
    with associate(address, "NODE", get_contexts(classes), QUICK) as association:
        sender = Sender("pacs", address.called_ae, "NODE", association.address, time.time())
        exchange = association.exchange(sender, 1)
        return get(association, wanted, StorageService(intake, LIMIT_BYTES), exchange, lambda _: None)


@pytest.fixture(name="archive", params=["orthanc", "dcmqrscp", "dcmqrscp of patients"])
def _archive(
    request: pytest.FixtureRequest, tmp_path: Path, server: StorageServer, intake: MemoryIntake
) -> Iterator[Archive]:
    paths = sorted(shared_data("ct/dicom/lidc0002").glob("*.dcm"))
    with ExitStack() as stack:
        if request.param == "orthanc":
            orthanc = Orthanc(tmp_path, options={"DicomModalities": {"node": ["NODE", "127.0.0.1", server.port]}})
            stack.enter_context(orthanc)
            assert dcmsend(Call(orthanc.port, orthanc.ae_title, "CT1"), paths) == 0
            address = PeerAddress("127.0.0.1", orthanc.port, orthanc.ae_title)
        else:
            options = ["--no-study-root"] if "patients" in request.param else []
            dcmqrscp = DcmQrScp(tmp_path, moves_to={"NODE": server.port}, options=options)
            stack.enter_context(dcmqrscp)
            dcmqrscp.hold(paths)
            address = PeerAddress("127.0.0.1", dcmqrscp.port, dcmqrscp.ae_title)
        yield Archive(address, paths, server, intake)


@pytest.mark.peer("orthanc")
@pytest.mark.peer("dcmtk")
def test_archives_send_what_is_asked_for(archive: Archive) -> None:
    """A study, a series, some instances, and what is not there; by both ways; with and without known SOP classes."""
    uids = archive.uids()
    for method in ("get", "move"):
        for wanted, expected in (
            (archive.wanted(), uids),
            (archive.wanted(level="SERIES"), uids),
            (archive.wanted(*uids[2:5], level="IMAGE"), uids[2:5]),
        ):
            archive.intake.stored.clear()
            answer = fetched(archive, wanted, method)
            assert sorted(archive.intake.contents()) == expected
            assert (answer.status, answer.sub_operations.completed) == (0, len(expected))
    archive.intake.stored.clear()
    get_into(archive.intake, archive.address, archive.wanted(), ())
    assert sorted(archive.intake.contents()) == uids
    assert {offer.transfer_syntax_uid for offer, _ in archive.intake.stored} == {EXPLICIT}
    assert {offer.sender.peer for offer, _ in archive.intake.stored} == {"pacs"}
    with pytest.raises(RequestFailedError) as caught, associate(archive.address, "N", MOVE_CONTEXTS) as association:
        move(association, archive.wanted(), "NOBODY", lambda _: None)
    assert "AE title" in caught.value.hint


@pytest.mark.peer("dcmtk")
def test_what_a_peer_will_not_do_is_told(tmp_path: Path) -> None:
    with DcmQrScp(tmp_path, options=["--disable-get"]) as peer:
        address = PeerAddress("127.0.0.1", peer.port, peer.ae_title)
        with associate(address, "NODE", get_contexts([CT_IMAGE])) as association:
            assert STUDY_ROOT.get not in {kind.sop_class_uid for kind in association.accepted}


def test_contexts_have_roles_and_fit_one_association() -> None:
    for classes in ([], [CT_IMAGE], [f"1.2.840.10008.5.1.4.1.1.{number}" for number in range(200)]):
        contexts = get_contexts(classes)
        assert len(contexts) <= 128
        proposal = read_proposal(read_request(request("PACS", "NODE", contexts)[6:]).items)
        served = {context.abstract_syntax for context in contexts if context.as_scp}
        assert proposal.roles == dict.fromkeys(served, (False, True))
        assert not served & {STUDY_ROOT.get}
    assert len([context for context in get_contexts([CT_IMAGE]) if context.as_scp]) > 30  # each syntax its own


def said(status: int, counts: tuple[int, int, int, int] = (0, 0, 0, 0), identifier: bytes | None = None) -> bytes:
    """An encoded C-GET-RSP to the first request, in PDUs."""
    names = (Element.REMAINING_SUB_OPERATIONS, Element.COMPLETED_SUB_OPERATIONS, Element.FAILED_SUB_OPERATIONS,
             Element.WARNING_SUB_OPERATIONS)  # fmt: skip
    head = fragment(
        command(
            {
                Element.COMMAND_FIELD: 0x8010,
                Element.MESSAGE_ID_BEING_RESPONDED_TO: 1,
                Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET if identifier is None else DATA_SET,
                Element.STATUS: status,
                **dict(zip(names, counts, strict=True)),
            }
        ),
        is_command=True,
    )
    return head if identifier is None else head + fragment(identifier)


GET, CT = 1, 9
"""IDs of contexts in `get_contexts`."""


def stored(client: Client, sop_instance_uid: str, data_set: bytes = b"data") -> int | None:
    """Have the caller store an instance; the status."""
    client.send(fragment(store_request(sop_instance_uid), CT, is_command=True) + fragment(data_set, CT))
    return parse_command(client.read_pdu()[12:]).number(Element.STATUS)


def sending(then: Callable[[Client], None]) -> Script:
    """Accept, read the C-GET request, then go on."""

    def script(client: Client) -> None:
        asked = client.read_pdu()[6:].replace(b"\0\1U", b"\1\1U")  # our own server would not send as SCU
        client.send(answer_to(asked, STUDY_ROOT.get, CT_IMAGE))
        client.read_pdu()
        client.read_pdu()
        then(client)

    return script


WANTED = Wanted("1.2.3")


def test_failed_instances_are_named(intake: MemoryIntake) -> None:
    failed = b"\x08\x00\x58\x00UI\x0c\x001.2.3\\1.2.4\0"

    def then(client: Client) -> None:
        client.send(said(0xFF00, (2, 0, 0, 0)))
        assert stored(client, "1.2.1") == 0
        client.send(said(0xB000, (0, 1, 2, 0), failed))
        client.read_pdu()

    with scripted(sending(then)) as address:
        answer = get_into(intake, address, WANTED)
    assert answer == Retrieved(0xB000, SubOperations(0, 1, 2, 0), ("1.2.3", "1.2.4"))
    assert list(intake.contents()) == ["1.2.1"]


@pytest.mark.parametrize(
    ("error", "status"), [(DiskFullError("full"), 0xA700), (MismatchError("other"), 0xA900), (OSError("?"), 0x0110)]
)
def test_what_cannot_be_stored_is_answered_as_a_receiver_answers(
    error: Exception, status: int, intake: MemoryIntake
) -> None:
    def then(client: Client) -> None:
        intake.commit_error = error
        assert stored(client, "1.2.1") == status
        intake.commit_error = None
        assert stored(client, "no uid") == 0x0117
        assert stored(client, "1.2.2", bytes(LIMIT_BYTES >> 8) * 1) == 0
        client.send(said(0xB000, (0, 1, 2, 0)))
        client.read_pdu()

    with scripted(sending(then)) as address:
        answer = get_into(intake, address, WANTED)
    assert answer.sub_operations.failed == 2
    assert list(intake.contents()) == ["1.2.2"]


def test_a_disk_that_stays_full_ends_it(intake: MemoryIntake) -> None:
    intake.begin_error = DiskFullError("full")

    def then(client: Client) -> None:
        for number in range(25):
            client.send(fragment(store_request(f"1.2.{number}"), CT, is_command=True) + fragment(b"data", CT))
        while client.read_pdu()[:1] not in (b"", bytes([pdu.PduType.ABORT])):
            pass

    with scripted(sending(then)) as address, pytest.raises(PeerError, match="could not be stored"):
        get_into(intake, address, WANTED)


@pytest.mark.parametrize("partly", [b"", fragment(b"da", CT, is_last=False)])
def test_an_abort_in_the_middle_keeps_what_came_whole(partly: bytes, intake: MemoryIntake) -> None:
    def then(client: Client) -> None:
        assert stored(client, "1.2.1") == 0
        client.send(fragment(store_request("1.2.2"), CT, is_command=True) + partly + pdu.ABORT_BY_USER)

    with scripted(sending(then)) as address, pytest.raises(AssociationLostError):
        get_into(intake, address, WANTED)
    assert list(intake.contents()) == ["1.2.1"]
    assert [offer.sop_instance_uid for offer in intake.aborted] == ["1.2.2"]


def test_only_what_we_serve_may_be_stored(intake: MemoryIntake) -> None:
    def then(client: Client) -> None:
        client.send(fragment(store_request("1.2.1"), GET, is_command=True) + fragment(b"data", GET))
        answer: Command = parse_command(client.read_pdu()[12:])
        assert answer.number(Element.STATUS) == 0x0122
        client.send(said(0))
        client.read_pdu()

    with scripted(sending(then)) as address:
        get_into(intake, address, WANTED)
    assert not intake.stored


@pytest.mark.parametrize("status", [0xA701, 0xA702, 0xA801, 0xA900, 0xC123, 0xFE00, 0x0124, 0x4444])
def test_failures_are_errors_with_a_hint(status: int, intake: MemoryIntake) -> None:
    def then(client: Client) -> None:
        client.send(said(status))
        client.read_pdu()

    with scripted(sending(then)) as address, pytest.raises(RequestFailedError, match=f"0x{status:04X}") as caught:
        get_into(intake, address, WANTED)
    assert caught.value.hint


def test_the_request_names_what_is_wanted_and_where_to() -> None:
    asked: list[Command] = []

    def script(client: Client) -> None:
        client.send(answer_to(client.read_pdu()[6:], STUDY_ROOT.move))
        asked.append(parse_command(client.read_pdu()[12:]))
        client.read_pdu()
        client.send(said(0))
        client.read_pdu()

    with scripted(script) as address, associate(address, "NODE", MOVE_CONTEXTS, QUICK) as association:
        assert Kind(STUDY_ROOT.move, EXPLICIT) in association.accepted
        move(association, WANTED, "NODE", lambda _: None)
    assert asked[0].field == CommandField.C_MOVE_RQ
    assert asked[0].values[Element.MOVE_DESTINATION] == b"NODE"
    assert ProposedContext(STUDY_ROOT.move, (EXPLICIT,)) in MOVE_CONTEXTS
