"""Sending: byte identity at a bit-preserving peer, refusals in words, and peers that break off or talk nonsense."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import pytest

from dicomnode.errors import AssociationLostError, AssociationRejectedError, InputError, PeerError, PeerUnreachableError
from dicomnode.net import pdu
from dicomnode.net.contexts import Kind, ProposedContext, propose
from dicomnode.net.negotiation import reject
from dicomnode.net.part10 import read_file_meta
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scu import Association, Opening, PeerAddress, Timeouts, associate
from dicomnode.testing.peers import Orthanc, StoreScp
from dicomnode.testing.processes import free_port, wait_until
from tests.net.clients import (
    CT,
    CT_IMAGE,
    ECHO,
    EXPLICIT,
    Client,
    MemoryIntake,
    accepting,
    answer_to,
    fragment,
    response,
    scripted,
)
from tests.shared import shared_data

QUICK = Opening(Timeouts(connect_s=2, associate_s=2, response_s=2))


def store(association: Association, data_set: bytes = b"data") -> int:
    return association.store_encoded(data_set, CT_IMAGE, "1.2.3", EXPLICIT)


def kinds(paths: list[Path]) -> dict[Path, Kind]:
    found = {}
    for path in paths:
        with path.open("rb") as file:
            meta = read_file_meta(file)
        found[path] = Kind(meta.sop_class_uid, meta.transfer_syntax_uid)
    return found


def send_all(address: PeerAddress, paths: list[Path]) -> list[int]:
    by_path = kinds(paths)
    statuses = []
    with associate(address, "NODE", propose(by_path.values())[0]) as association:
        for path, kind in by_path.items():
            with path.open("rb") as file:
                uid = read_file_meta(file).sop_instance_uid
            statuses.append(association.store(path, kind.sop_class_uid, uid, kind.transfer_syntax_uid))
    return statuses


def data_sets(paths: list[Path]) -> list[bytes]:
    contents = []
    for path in paths:
        with path.open("rb") as file:
            file.seek(read_file_meta(file).offset_bytes)
            contents.append(file.read())
    return sorted(content + bytes(len(content) % 2) for content in contents)  # a deflated one is padded on the way


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize(
    "pattern",
    [
        "ct/dicom/kits00072/*.dcm",  # sequences of undefined length
        "ct/dicom/lidc0003/*.dcm",
        "dicom/ts/CT1_*.dcm",  # JPEG, JPEG-LS, JPEG 2000, RLE
        "dicom/ts/*_big_endian.dcm",
        "dicom/ts/*_dfl.dcm",
    ],
)
def test_storescp_receives_every_byte_as_it_is_stored(pattern: str, tmp_path: Path) -> None:
    folder, _, name = pattern.rpartition("/")
    paths = {uid: path for path in shared_data(folder).glob(name) for uid in uids([path])}  # one file for each UID
    with StoreScp(tmp_path) as peer:
        assert send_all(PeerAddress("127.0.0.1", peer.port, peer.ae_title), list(paths.values())) == [0] * len(paths)
        wait_until(lambda: len(list(peer.files.iterdir())) == len(paths), 10, "all were written")
        assert data_sets(list(peer.files.iterdir())) == data_sets(list(paths.values()))


def uids(paths: list[Path]) -> list[str]:
    found = []
    for path in paths:
        with path.open("rb") as file:
            found.append(read_file_meta(file).sop_instance_uid)
    return found


@pytest.mark.peer("orthanc")
def test_orthanc_receives_and_answers_an_echo(tmp_path: Path) -> None:
    paths = sorted(shared_data("ct/dicom/lidc0002").glob("*.dcm"))
    with Orthanc(tmp_path) as peer:
        address = PeerAddress("127.0.0.1", peer.port, peer.ae_title)
        assert send_all(address, paths) == [0] * len(paths)
        with associate(address, "NODE", [ECHO]) as association:
            assert association.echo() == 0
        assert peer.sop_instance_uids() == sorted(uids(paths))


@pytest.mark.parametrize("size", [0, 1, 2, 131_066, 131_067, 262_132, 262_133, 1_000_001])
def test_any_length_arrives(size: int, server: StorageServer, intake: MemoryIntake) -> None:
    data_set = bytes(range(256)) * (size // 256 + 1)
    with associate(PeerAddress("127.0.0.1", server.port, "NODE"), "CT1", [CT]) as association:
        assert store(association, data_set[:size]) == 0
        assert store(association, data_set[:size]) == 0
    assert [content for _, content in intake.stored] == [data_set[:size]] * 2


def test_a_small_maximum_length_is_kept_to() -> None:
    received: list[bytes] = []

    def script(client: Client) -> None:
        encoded = client.read_pdu()
        place = encoded.index(b"\x51\x00\x00\x04") + 4
        answer = answer_to(encoded[6:place] + struct.pack(">L", 200) + encoded[place + 4 :], CT_IMAGE)
        place = answer.index(b"\x51\x00\x00\x04") + 4
        client.send(answer[:place] + struct.pack(">L", 200) + answer[place + 4 :])
        while not received or received[-1][11] != 2:
            received.append(client.read_pdu())
        client.send(fragment(response(1), is_command=True))

    with scripted(script) as address:
        association = associate(address, "NODE", [CT], QUICK)
        assert store(association, bytes(100_000)) == 0
        association.abort()
    assert max(map(len, received)) <= 206
    assert sum(len(each) - 12 for each in received if not each[11] & 1) == 100_000


def test_nobody_listens() -> None:
    with pytest.raises(PeerUnreachableError, match=r"cannot connect to PACS at 127\.0\.0\.1") as caught:
        associate(PeerAddress("127.0.0.1", free_port(), "PACS"), "NODE", [ECHO], QUICK)
    assert caught.value.transient
    assert caught.value.hint
    with pytest.raises(PeerUnreachableError):
        associate(PeerAddress("no-such-host.invalid", 104, "PACS"), "NODE", [ECHO], QUICK)


@pytest.mark.parametrize(
    ("result", "source", "reason", "words", "transient"),
    [
        (1, 1, 7, "called AE title not recognized", False),
        (1, 1, 3, "calling AE title not recognized", False),
        (2, 3, 2, "local limit exceeded", True),
        (1, 9, 9, "source 9, reason 9", False),
    ],
)
def test_rejections_in_words(result: int, source: int, reason: int, words: str, transient: bool) -> None:
    def script(client: Client) -> None:
        client.read_pdu()
        client.send(reject(result, source, reason))

    with scripted(script) as address, pytest.raises(AssociationRejectedError, match=words) as caught:
        associate(address, "NODE", [ECHO], QUICK)
    assert caught.value.transient is transient
    assert caught.value.hint


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (pdu.ABORT_BY_USER, AssociationRejectedError),
        (b"", AssociationLostError),
        (b"HTTP/1.1 400 Bad Request\r\n", AssociationLostError),
        (struct.pack(">BxL", 2, 0xFFFFFFF0) + bytes(50), AssociationLostError),
        (pdu.RELEASE_RP, AssociationLostError),
    ],
    ids=["abort", "closed", "http", "endless", "release"],
)
def test_answers_that_are_none(answer: bytes, error: type[PeerError]) -> None:
    def script(client: Client) -> None:
        client.read_pdu()
        client.send(answer)

    with scripted(script) as address, pytest.raises(error):
        associate(address, "NODE", [ECHO], QUICK)


def test_a_peer_that_says_nothing_is_not_waited_for_for_ever() -> None:
    release = threading.Event()
    timeouts = Timeouts(2, 0.2, 0.2)

    def script(_: Client) -> None:
        release.wait(5)

    with scripted(script) as address, pytest.raises(AssociationLostError):
        try:
            associate(address, "NODE", [ECHO], Opening(timeouts))
        finally:
            release.set()


@pytest.mark.parametrize(
    "answer",
    [
        pdu.ABORT_BY_USER,
        b"",
        pdu.RELEASE_RQ,
        fragment(response(99), is_command=True),
        fragment(b"data"),
        fragment(b"\0" * 12, is_command=True),
    ],
    ids=["abort", "closed", "release", "another message", "data", "nonsense"],
)
def test_a_peer_that_breaks_off_is_lost(answer: bytes) -> None:
    def then(client: Client) -> None:
        client.read_pdu(), client.read_pdu()
        client.send(answer)

    with scripted(accepting(then)) as address:
        association = associate(address, "NODE", [CT], QUICK)
        with pytest.raises(AssociationLostError):
            store(association)
        assert not association.usable


def test_a_status_is_given_as_it_is() -> None:
    def then(client: Client) -> None:
        for number in (1, 2):
            client.read_pdu(), client.read_pdu()
            client.send(fragment(response(number, 0xA7FF), is_command=True))

    with scripted(accepting(then)) as address:
        association = associate(address, "NODE", [CT], QUICK)
        assert [store(association), store(association)] == [0xA7FF] * 2
        association.abort()


def test_what_was_accepted_is_known(server: StorageServer) -> None:
    unknown = ProposedContext("1.2.3.4", (EXPLICIT,))
    with associate(PeerAddress("127.0.0.1", server.port, "NODE"), "CT1", [CT, unknown]) as association:
        assert association.accepted == {Kind(CT_IMAGE, EXPLICIT)}
        assert association.class_refused("1.2.3.4")
        assert not association.class_refused(CT_IMAGE)
        with pytest.raises(AssociationRejectedError):
            association.echo()
        with pytest.raises(AssociationRejectedError, match=r"1\.2\.3\.4"):
            association.store_encoded(b"", "1.2.3.4", "1.2.3", EXPLICIT)


def test_a_file_that_cannot_be_sent_costs_only_itself(
    server: StorageServer, intake: MemoryIntake, tmp_path: Path
) -> None:
    not_dicom = tmp_path / "x.dcm"
    not_dicom.write_bytes(bytes(1000))
    with associate(PeerAddress("127.0.0.1", server.port, "NODE"), "CT1", [CT]) as association:
        for path in (tmp_path / "absent.dcm", not_dicom, tmp_path):
            with pytest.raises(InputError):
                association.store(path, CT_IMAGE, "1.2.3", EXPLICIT)
        assert store(association) == 0
    assert len(intake.stored) == 1


def test_an_association_that_the_peer_ended_is_not_usable(server: StorageServer) -> None:
    association = associate(PeerAddress("127.0.0.1", server.port, "NODE"), "CT1", [CT])
    assert association.usable
    server.stop(0)
    wait_until(lambda: not association.usable, 5, "the end was noticed")
    association.release()
