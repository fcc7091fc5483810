"""N-services of a modality and of an archive, by pynetdicom as their client, over a real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association

from dicomnode.core.notification import (
    AVAILABILITY,
    PROCEDURE_STEP,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    Availability,
    CommitmentReport,
    StepContent,
    StepState,
)
from dicomnode.core.ports import Noted
from dicomnode.errors import StoreError
from dicomnode.net.contexts import Kind
from dicomnode.net.dimse import CommandField, Element
from dicomnode.net.query import contexts_of
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import Caller, ScpSettings
from dicomnode.net.scu import PeerAddress
from dicomnode.net.scu import associate as associate_ourselves
from tests.net.clients import MemoryIntake

STEP_UID = "1.2.840.4711.1"


@dataclass
class Heard:
    """`Notifications` in memory. `answer` is what each call returns, or the error that it raises."""

    answer: Noted | Exception = Noted.TAKEN
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def _take(self, *call: object) -> Noted:
        self.calls.append(call)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def committed(self, peer: str, report: CommitmentReport) -> Noted:
        return self._take("committed", peer, report)

    def step_created(self, peer: str, sop_instance_uid: str, step: StepContent) -> Noted:
        return self._take("created", peer, sop_instance_uid, step)

    def step_changed(self, peer: str, sop_instance_uid: str, step: StepContent) -> Noted:
        return self._take("changed", peer, sop_instance_uid, step)

    def available(self, peer: str, availability: Availability) -> Noted:
        return self._take("available", peer, availability)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def server(heard: Heard) -> Iterator[StorageServer]:
    callers = (Caller("CT1", "ct1", "127.0.0.1"), Caller("PACS", "pacs", "127.0.0.1"))
    settings = ScpSettings(("NODE",), "127.0.0.1", 0, callers, accept_unknown=True)
    server = StorageServer(settings, MemoryIntake(), notifications=heard)
    server.start()
    yield server
    server.stop(grace_s=0.2)


def associate(
    server: StorageServer, calling_ae: str, sop_class: str, syntax: str = ImplicitVRLittleEndian
) -> Association:
    return _associate(server, calling_ae, (sop_class, syntax), [])


def associate_in_role(
    server: StorageServer, calling_ae: str, sop_class: str, role: tuple[bool, bool] | None
) -> Association:
    """`role`: as SCU, as SCP."""
    roles = [] if role is None else [build_role(sop_class, scu_role=role[0], scp_role=role[1])]
    return _associate(server, calling_ae, (sop_class, ImplicitVRLittleEndian), roles)


def _associate(server: StorageServer, calling_ae: str, context: tuple[str, str], roles: list[Any]) -> Association:
    ae = AE(calling_ae)
    ae.add_requested_context(*context)
    return ae.associate("127.0.0.1", server.port, ae_title="NODE", ext_neg=roles)


def responses(association: Association) -> list[Dataset]:
    """Command sets that come from now on: pynetdicom gives the status only."""
    found: list[Dataset] = []
    association.bind(evt.EVT_DIMSE_RECV, lambda event: found.append(event.message.command_set))
    return found


def item(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def step(state: str = "IN PROGRESS", images: tuple[str, ...] = ()) -> Dataset:
    """What a scanner says of its step, as far as we read it, and something of what we do not."""
    references = [item(ReferencedSOPClassUID="1.2.3", ReferencedSOPInstanceUID=uid) for uid in images]
    series = item(SeriesInstanceUID="1.2.3.4", ProtocolName="Thorax", ReferencedImageSequence=references)
    return item(
        PatientName="Doe^Jane",
        PerformedProcedureStepStatus=state,
        ScheduledStepAttributesSequence=[item(StudyInstanceUID="1.2.3", AccessionNumber="A1")],
        PerformedSeriesSequence=[series] if images else [],
    )


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_step_is_taken_in_from_its_begin_to_its_end(server: StorageServer, heard: Heard, syntax: str) -> None:
    association = associate(server, "CT1", PROCEDURE_STEP, syntax)
    said = responses(association)
    created, _ = association.send_n_create(step(), PROCEDURE_STEP, STEP_UID)
    changed, _ = association.send_n_set(step("COMPLETED", ("1.2.3.4.1", "1.2.3.4.2")), PROCEDURE_STEP, STEP_UID)
    association.release()
    assert (created.Status, changed.Status) == (0, 0)
    assert [(each.AffectedSOPClassUID, each.AffectedSOPInstanceUID) for each in said] == 2 * [
        (PROCEDURE_STEP, STEP_UID)
    ]
    assert heard.calls == [
        ("created", "ct1", STEP_UID, StepContent(StepState.IN_PROGRESS, "1.2.3", ())),
        (
            "changed",
            "ct1",
            STEP_UID,
            StepContent(StepState.COMPLETED, "1.2.3", (("1.2.3.4", ("1.2.3.4.1", "1.2.3.4.2")),)),
        ),
    ]


def test_a_step_without_a_uid_is_named_by_us(server: StorageServer, heard: Heard) -> None:
    association = associate(server, "CT1", PROCEDURE_STEP)
    said = responses(association)
    created, _ = association.send_n_create(step(), PROCEDURE_STEP)
    association.release()
    assert created.Status == 0
    assert said[0].AffectedSOPInstanceUID == heard.calls[0][2]


@pytest.mark.parametrize(
    ("answer", "status"),
    [(Noted.UNKNOWN, 0x0112), (Noted.FINAL, 0x0110), (StoreError("the index took no row"), 0x0110)],
)
def test_a_step_that_cannot_be_changed_is_answered_so(
    server: StorageServer, heard: Heard, answer: Noted | Exception, status: int
) -> None:
    heard.answer = answer
    association = associate(server, "CT1", PROCEDURE_STEP)
    said = responses(association)
    changed, _ = association.send_n_set(step("COMPLETED"), PROCEDURE_STEP, STEP_UID)
    association.release()
    assert changed.Status == status
    assert said[0].get("ErrorID") == (0xA710 if answer is Noted.FINAL else None)


def test_a_second_step_of_a_uid_is_a_duplicate_and_none_begins_at_its_end(server: StorageServer, heard: Heard) -> None:
    heard.answer = Noted.KNOWN
    association = associate(server, "CT1", PROCEDURE_STEP)
    assert association.send_n_create(step(), PROCEDURE_STEP, STEP_UID)[0].Status == 0x0111
    assert association.send_n_create(step("COMPLETED"), PROCEDURE_STEP, STEP_UID)[0].Status == 0x0106
    association.release()
    assert len(heard.calls) == 1


def test_an_archive_tells_what_it_has_available(server: StorageServer, heard: Heard) -> None:
    there = item(ReferencedSOPClassUID="1.2", ReferencedSOPInstanceUID="1.2.3.4.1", InstanceAvailability="ONLINE")
    away = item(ReferencedSOPClassUID="1.2", ReferencedSOPInstanceUID="1.2.3.4.2", InstanceAvailability="OFFLINE")
    series = item(SeriesInstanceUID="1.2.3.4", ReferencedSOPSequence=[there, away])
    association = associate(server, "PACS", AVAILABILITY)
    notification = item(StudyInstanceUID="1.2.3", ReferencedSeriesSequence=[series])
    answer, _ = association.send_n_create(notification, AVAILABILITY, "1.2.9")
    association.release()
    assert answer.Status == 0
    assert heard.calls == [("available", "pacs", Availability("1.2.3", (("1.2.3.4", ("1.2.3.4.1",)),)))]


def report(transaction_uid: str = "1.2.99") -> Dataset:
    kept = item(ReferencedSOPClassUID="1.2", ReferencedSOPInstanceUID="1.2.3.4.1")
    lost = item(ReferencedSOPClassUID="1.2", ReferencedSOPInstanceUID="1.2.3.4.2", FailureReason=0x0112)
    return item(TransactionUID=transaction_uid, ReferencedSOPSequence=[kept], FailedSOPSequence=[lost])


@pytest.mark.parametrize("role", [(False, True), (True, True), None])
def test_an_archive_reports_on_an_association_of_its_own(
    server: StorageServer, heard: Heard, role: tuple[bool, bool] | None
) -> None:
    association = associate_in_role(server, "PACS", STORAGE_COMMITMENT, role)
    (context,) = association.accepted_contexts
    assert (context.as_scu, context.as_scp) == ((True, False) if role is None else (False, True))
    said = responses(association)
    answer, _ = association.send_n_event_report(report(), 2, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    association.release()
    assert answer.Status == 0
    assert said[0].EventTypeID == 2
    assert heard.calls == [
        ("committed", "pacs", CommitmentReport("1.2.99", ("1.2.3.4.1",), {"1.2.3.4.2": 0x0112}, is_whole=False))
    ]


def test_who_wants_us_to_commit_finds_that_we_do_not(server: StorageServer, heard: Heard) -> None:
    association = associate_in_role(server, "CT1", STORAGE_COMMITMENT, (True, False))
    assert association.is_rejected or not association.accepted_contexts
    association = associate(server, "CT1", STORAGE_COMMITMENT)
    answer, _ = association.send_n_action(report(), 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    association.release()
    assert answer.Status == 0x0211
    assert heard.calls == []


def test_a_report_that_was_not_asked_for_is_answered_so(server: StorageServer, heard: Heard) -> None:
    heard.answer = Noted.UNKNOWN
    association = associate_in_role(server, "PACS", STORAGE_COMMITMENT, (False, True))
    send = association.send_n_event_report
    assert send(report(), 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)[0].Status == 0x0112
    assert send(report(), 7, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)[0].Status == 0x0113
    association.release()


@pytest.mark.parametrize("sop_class", [PROCEDURE_STEP, AVAILABILITY, STORAGE_COMMITMENT])
def test_strangers_are_not_heard(server: StorageServer, heard: Heard, sop_class: str) -> None:
    """Anyone may store here: nobody who is no configured peer may tell us what to believe."""
    association = associate(server, "STRANGER", sop_class)
    if sop_class == STORAGE_COMMITMENT:
        answer, _ = association.send_n_event_report(report(), 1, sop_class, STORAGE_COMMITMENT_INSTANCE)
    else:
        answer, _ = association.send_n_create(step(), sop_class, STEP_UID)
    association.release()
    assert answer.Status == 0x0124
    assert heard.calls == []


def test_a_deflated_message_is_not_agreed_to(server: StorageServer) -> None:
    association = associate(server, "CT1", PROCEDURE_STEP, DeflatedExplicitVRLittleEndian)
    assert not association.accepted_contexts


def test_a_message_without_a_data_set_is_answered_so(server: StorageServer, heard: Heard) -> None:
    association = associate(server, "CT1", PROCEDURE_STEP)
    answer, _ = association.send_n_create(None, PROCEDURE_STEP, STEP_UID)
    association.release()
    assert answer.Status == 0x0120
    assert heard.calls == []


def test_an_operation_that_a_class_does_not_know_is_answered_so(server: StorageServer, heard: Heard) -> None:
    association = associate(server, "PACS", AVAILABILITY)
    answer, _ = association.send_n_set(step(), AVAILABILITY, STEP_UID)
    association.release()
    assert answer.Status == 0x0211
    assert heard.calls == []


@pytest.mark.parametrize(
    ("data_set", "status"),
    [
        (b"\x40\x00\x52\x02\xff\xff\xff\x7fIN", 0x0110),
        (b"\x08\x00\x40\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 1000, 0x0110),
        (b"\x10\x00\x10\x00\x00\x00\x00\x02" + bytes(1 << 25), 0x0213),
    ],
    ids=["cut short", "nested", "large"],
)
def test_what_cannot_be_read_is_refused_and_the_association_goes_on(
    server: StorageServer, heard: Heard, data_set: bytes, status: int
) -> None:
    address = PeerAddress("127.0.0.1", server.port, "NODE")
    kind = Kind(PROCEDURE_STEP, ImplicitVRLittleEndian)
    with associate_ourselves(address, "CT1", contexts_of(PROCEDURE_STEP)) as association:
        for content, expected in ((data_set, status), (b"\x40\x00\x52\x02\x0c\x00\x00\x00IN PROGRESS ", 0)):
            values: dict[Element, int | str] = {Element.AFFECTED_SOP_INSTANCE_UID: STEP_UID}
            association.ask(kind, CommandField.N_CREATE_RQ, values, content)
            _, said = association.next_command()
            assert association.response(said).status == expected
    assert len(heard.calls) == 1
