"""C-FIND: real archives, and peers that answer oddly, too much, or break off."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyRootFind  # type: ignore[attr-defined]

from dicomnode.core.headers import value
from dicomnode.errors import (
    AssociationLostError,
    AssociationRejectedError,
    PeerError,
    RequestFailedError,
    UsageError,
)
from dicomnode.net import pdu
from dicomnode.net.dimse import DATA_SET, NO_DATA_SET, Element, command, parse_command
from dicomnode.net.query import FIND_CONTEXTS, PATIENT_ROOT, STUDY_ROOT, Level, contexts_of, encode_identifier, find
from dicomnode.net.scu import Association, Opening, PeerAddress, Timeouts, associate
from dicomnode.testing.archives import DcmQrScp
from dicomnode.testing.peers import Call, Orthanc, dcmsend
from dicomnode.testing.processes import free_port
from tests.net.clients import EXPLICIT, IMPLICIT, Client, Script, answer_to, fragment, scripted
from tests.shared import shared_data

QUICK = Opening(Timeouts(connect_s=2, associate_s=2, response_s=2))
STUDIES = {"StudyInstanceUID": "", "PatientID": ""}
PENDING, CANCELLED = 0xFF00, 0xFE00


def check_answers_of(address: PeerAddress, paths: list[Path]) -> None:
    """All levels of one study, and that an association goes on after a query that was not heard to its end."""
    held = [dcmread(path, stop_before_pixels=True) for path in paths]
    study, series = held[0].StudyInstanceUID, held[0].SeriesInstanceUID
    above = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
    with associate(address, "NODE", FIND_CONTEXTS) as association:
        (found,) = find(association, Level.STUDY, {"StudyInstanceUID": "", "PatientID": held[0].PatientID})
        assert value(found, "StudyInstanceUID") == study
        counted = {**above, "Modality": "", "NumberOfSeriesRelatedInstances": ""}
        (found,) = find(association, Level.SERIES, counted)
        assert value(found, "Modality") == "CT"
        assert value(found, "NumberOfSeriesRelatedInstances") in (str(len(paths)), "")  # dcmqrscp does not count
        wanted = {**above, "SOPInstanceUID": ""}
        images = list(find(association, Level.IMAGE, wanted))
        assert sorted(value(image, "SOPInstanceUID") for image in images) == sorted(one.SOPInstanceUID for one in held)
        begun = find(association, Level.IMAGE, wanted)
        next(begun)
        begun.close()
        with pytest.raises(PeerError, match="more than 3 matches"):
            list(find(association, Level.IMAGE, wanted, most=3))
        assert list(find(association, Level.STUDY, {"StudyInstanceUID": "1.2.3.4"})) == []
        (patient,) = find(association, Level.PATIENT, {"PatientID": "", "PatientName": ""})
        assert value(patient, "PatientID") == held[0].PatientID
        assert list(find(association, Level.STUDY, {"StudyInstanceUID": "", "PatientID": "Müller*"})) == []


@pytest.mark.peer("orthanc")
@pytest.mark.peer("dcmtk")
def test_orthanc_answers(tmp_path: Path) -> None:
    paths = sorted(shared_data("ct/dicom/lidc0002").glob("*.dcm"))
    with Orthanc(tmp_path) as peer:
        assert dcmsend(Call(peer.port, peer.ae_title, "CT1"), paths) == 0
        check_answers_of(PeerAddress("127.0.0.1", peer.port, peer.ae_title), paths)


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("options", [(), ("--no-study-root",)])
def test_dcmqrscp_answers(options: tuple[str, ...], tmp_path: Path) -> None:
    paths = sorted(shared_data("ct/dicom/lidc0002").glob("*.dcm"))
    with DcmQrScp(tmp_path, options=options) as peer:
        peer.hold(paths)
        address = PeerAddress("127.0.0.1", peer.port, peer.ae_title)
        check_answers_of(address, paths)
        with associate(address, "NODE", FIND_CONTEXTS) as association:
            accepted = {kind.sop_class_uid for kind in association.accepted}
        assert (STUDY_ROOT.find in accepted) is not bool(options)


@pytest.mark.parametrize(
    ("name", "character_set"), [("Mueller^A*", ""), ("Müller^*", "ISO_IR 100"), ("Нowak^山田", "ISO_IR 192")]
)
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_keys_say_in_which_character_set_they_are(name: str, character_set: str, syntax: str) -> None:
    asked: list[Dataset] = []

    def answer(event: evt.Event) -> object:
        asked.append(event.identifier)
        found = Dataset()
        found.SpecificCharacterSet = "ISO_IR 13"  # only the answer's own counts
        found.PatientName = "ﾔﾏﾀﾞ^ﾀﾛｳ"
        yield PENDING, found
        other = Dataset()
        other.PatientID = "1"
        yield 0xFF01, other

    peer = AE("PACS")
    peer.add_supported_context(StudyRootFind, syntax)
    server = peer.start_server(("127.0.0.1", port := free_port()), block=False, evt_handlers=[(evt.EVT_C_FIND, answer)])
    assert server is not None
    try:
        with associate(PeerAddress("127.0.0.1", port, "PACS"), "NODE", FIND_CONTEXTS, QUICK) as association:
            first, other = find(association, Level.STUDY, {"PatientName": name, "StudyDate": "20200101-20201231"})
    finally:
        server.shutdown()
    assert value(first, "PatientName") == "ﾔﾏﾀﾞ^ﾀﾛｳ"
    assert value(other, "PatientName") == ""
    (identifier,) = asked
    assert identifier.get("SpecificCharacterSet", "") == character_set
    assert (identifier.PatientName, identifier.StudyDate) == (name, "20200101-20201231")
    assert identifier.QueryRetrieveLevel == "STUDY"


@given(
    st.dictionaries(
        st.sampled_from(("PatientName", "PatientID", "StudyDescription", "AccessionNumber")),
        st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\\"), max_size=30),
    )
)
def test_any_text_comes_back_from_an_identifier(keys: dict[str, str]) -> None:
    for syntax in (EXPLICIT, IMPLICIT):
        encoded = encode_identifier(Level.STUDY, keys, syntax)
        decoded = read_dataset(BytesIO(encoded), syntax == IMPLICIT, True)
        decoded.decode()
        for keyword, text in keys.items():
            assert str(decoded[keyword].value or "").rstrip(" =^") == text.rstrip(" =^")


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(UsageError, match="'PatientNmae' is no DICOM keyword"):
        encode_identifier(Level.STUDY, {"PatientNmae": "X"}, EXPLICIT)
    with pytest.raises(UsageError, match="NumberOfStudyRelatedInstances cannot"):
        encode_identifier(Level.STUDY, {"NumberOfStudyRelatedInstances": "many"}, EXPLICIT)


def said(message_id: int, status: int, identifier: bytes | None = None, comment: str = "") -> bytes:
    """An encoded C-FIND-RSP, in PDUs."""
    values: dict[Element, int | str] = {
        Element.COMMAND_FIELD: 0x8020,
        Element.MESSAGE_ID_BEING_RESPONDED_TO: message_id,
        Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET if identifier is None else DATA_SET,
        Element.STATUS: status,
        Element.ERROR_COMMENT: comment,
    }
    head = fragment(command(values), is_command=True)
    return head if identifier is None else head + fragment(identifier)


def answering(then: Callable[[Client], None]) -> Script:
    """Accept, read one request, then go on."""

    def script(client: Client) -> None:
        client.send(answer_to(client.read_pdu()[6:], STUDY_ROOT.find))
        client.read_pdu()
        client.read_pdu()
        then(client)

    return script


MATCH = encode_identifier(Level.STUDY, {"StudyInstanceUID": "1.2.3"}, EXPLICIT)


def ask(association: Association, most: int = 10) -> list[str]:
    return [value(match, "StudyInstanceUID") for match in find(association, Level.STUDY, STUDIES, most)]


@pytest.mark.parametrize(
    ("status", "comment", "hint", "transient"),
    [
        (0xA700, "", "the peer is busy or full", True),
        (0xA900, "", "some peers need the Patient ID", False),
        (0xC001, "Too many matches for DOE^JOHN", "there are too many matches: narrow the query", False),
        (0x0124, "", "allow our AE title", False),
        (0xFE00, "", "log", True),
        (0x7777, "", "log", False),
    ],
)
def test_failures_tell_what_to_do(status: int, comment: str, hint: str, transient: bool) -> None:
    def then(client: Client) -> None:
        client.send(said(1, PENDING, MATCH) + said(1, status, comment=comment))
        client.read_pdu()

    with (
        scripted(answering(then)) as address,
        pytest.raises(RequestFailedError, match=f"0x{status:04X}") as caught,
        associate(address, "NODE", FIND_CONTEXTS, QUICK) as association,
    ):
        ask(association)
    assert caught.value.status == status
    assert caught.value.transient is transient
    assert hint in caught.value.hint
    assert "DOE" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("garbage", [b"", b"\xff" * 40, MATCH[:-3], b"\x08\x00\x05\x00CS\xff\xff" + b"x" * 8])
def test_odd_identifiers_are_passed_over(garbage: bytes) -> None:
    def then(client: Client) -> None:
        client.send(said(1, PENDING) + said(1, PENDING, garbage) + said(1, 0xFF01, MATCH) + said(1, 0, MATCH))
        client.read_pdu()

    with scripted(answering(then)) as address, associate(address, "NODE", FIND_CONTEXTS, QUICK) as association:
        assert ask(association)[-1] == "1.2.3"
        association.abort()


@pytest.mark.parametrize("identifier", [MATCH, None])
def test_answers_without_end_are_cancelled(identifier: bytes | None) -> None:
    cancelled: list[int | None] = []

    def then(client: Client) -> None:
        client.send(said(1, PENDING, identifier) * 12)
        request = parse_command(client.read_pdu()[12:])
        cancelled.append(request.field)
        assert request.number(Element.MESSAGE_ID_BEING_RESPONDED_TO) == 1
        client.send(said(1, PENDING, MATCH) * 5 + said(1, CANCELLED))
        client.send(said(2, PENDING, MATCH) + said(2, 0))
        for _ in range(3):
            client.read_pdu()

    with scripted(answering(then)) as address:
        association = associate(address, "NODE", FIND_CONTEXTS, QUICK)
        with pytest.raises(PeerError, match="more than 10 matches"):
            ask(association)
        assert ask(association) == ["1.2.3"]  # it goes on
        association.abort()
    assert cancelled == [0x0FFF]


def test_who_does_not_care_for_a_cancel_is_cut_off() -> None:
    def then(client: Client) -> None:
        with pytest.raises(OSError):
            for _ in itertools.count():
                client.send(said(1, PENDING, MATCH))

    with scripted(answering(then)) as address:
        association = associate(address, "NODE", FIND_CONTEXTS, QUICK)
        matches = find(association, Level.STUDY, STUDIES)
        next(matches)
        matches.close()
        assert not association.usable


@pytest.mark.parametrize("last", [pdu.ABORT_BY_USER, b"", said(2, 0), fragment(b"\0\0", is_command=False)])
def test_an_end_in_the_middle_loses_the_association(last: bytes) -> None:
    def then(client: Client) -> None:
        client.send(said(1, PENDING, MATCH) + last)

    with (
        scripted(answering(then)) as address,
        pytest.raises(AssociationLostError),
        associate(address, "NODE", FIND_CONTEXTS, QUICK) as association,
    ):
        ask(association)


def test_an_identifier_without_end_loses_the_association() -> None:
    def then(client: Client) -> None:
        head = said(1, PENDING, b"")[:-12]
        client.send(head + fragment(bytes(60_000), is_last=False) * 40)

    with (
        scripted(answering(then)) as address,
        pytest.raises(AssociationLostError, match="more than"),
        associate(address, "NODE", FIND_CONTEXTS, QUICK) as association,
    ):
        ask(association)


def test_a_peer_that_does_not_query_is_told_of() -> None:
    def script(client: Client) -> None:
        client.send(answer_to(client.read_pdu()[6:]))
        client.read_pdu()

    with (
        scripted(script) as address,
        pytest.raises(AssociationRejectedError, match="Query/Retrieve"),
        associate(address, "NODE", contexts_of(PATIENT_ROOT.find), QUICK) as association,
    ):
        ask(association)
