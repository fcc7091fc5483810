"""Proving deliveries at an archive that does what a test wants: reports here, there, twice, never, or of others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from dicomnode.core.notification import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from dicomnode.core.proof import ProofKind, ProofPolicy
from dicomnode.net.query import STUDY_ROOT
from dicomnode.net.scu import PeerAddress
from dicomnode.store.schema import Commitment, Outbox, Proof
from dicomnode.testing.processes import free_port, wait_until
from tests.flow.asking import NODE, POLICY, Asked, asking, listening
from tests.store.receiving import ct_header

pytestmark = pytest.mark.both_databases
AE_TITLE = "ARCHIVE"
_N_ACTION_RSP = 0x8130
Then = Callable[["Archive", Any, Dataset], None]


@dataclass
class Archive:
    """Accepts Storage Commitment and C-FIND, or less. `then` is what it does once it has answered N-ACTION.

    lost   numbers of instances that it does not hold
    asked  N-ACTION requests: Action Information, with the command set's elements
    """

    port: int
    classes: tuple[str, ...] = (STORAGE_COMMITMENT, STUDY_ROOT.find)
    then: Then = lambda *_: None
    lost: tuple[int, ...] = ()
    status: int = 0
    breaks_off: bool = False
    before: Callable[[], None] = lambda: None
    asked: list[Dataset] = field(default_factory=list)
    commands: list[Dataset] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    finds: int = 0

    @property
    def address(self) -> PeerAddress:
        return PeerAddress("127.0.0.1", self.port, AE_TITLE)

    def report(self, request: Dataset) -> tuple[Dataset, int]:
        """What it keeps of what it was asked for, and the event type."""
        gone = {f"1.2.3.4.{number}" for number in self.lost}
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        members = list(request.ReferencedSOPSequence)
        report.ReferencedSOPSequence = [each for each in members if each.ReferencedSOPInstanceUID not in gone]
        failed = [each for each in members if each.ReferencedSOPInstanceUID in gone]
        for each in failed:
            each.FailureReason = 0x0112
        if failed:
            report.FailedSOPSequence = failed
        return report, 2 if failed else 1

    def tell(self, association: Any, request: Dataset) -> None:
        report, event_type = self.report(request)
        answer, _ = association.send_n_event_report(report, event_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
        self.answers.append(answer.get("Status", -1))

    def act(self, event: Any) -> tuple[int, None]:
        self.before()
        self.asked.append(event.action_information)
        if self.breaks_off:
            event.assoc.abort()
        return self.status, None

    def answered(self, event: Any) -> None:
        """Only then: pynetdicom's acceptor does one thing at a time."""
        if event.message.command_set.CommandField == _N_ACTION_RSP:
            threading.Thread(target=self.then, args=(self, event.assoc, self.asked[-1])).start()

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        self.finds += 1
        for number in range(1, 20):
            if number not in self.lost:
                match = Dataset()
                match.QueryRetrieveLevel, match.SOPInstanceUID = "IMAGE", f"1.2.3.4.{number}"
                yield 0xFF00, match
        yield 0x0000, None


def on_the_same(archive: Archive, association: Any, request: Dataset) -> None:
    archive.tell(association, request)


def all_on_the_same(count: int) -> Then:
    """Reports on all requests once there are so many."""

    def report(archive: Archive, association: Any, _: Dataset) -> None:
        for request in archive.asked if len(archive.asked) == count else []:
            archive.tell(association, request)

    return report


def never(archive: Archive, association: Any, request: Dataset) -> None:
    """Some archives forget."""


def calling(port: int, ae_title: str = AE_TITLE) -> Then:
    """Reports on an association of its own, as anybody."""

    def report(archive: Archive, _: Any, request: Dataset) -> None:
        ae = AE(ae_title)
        ae.add_requested_context(STORAGE_COMMITMENT, ImplicitVRLittleEndian)
        role = build_role(STORAGE_COMMITMENT, scp_role=True)
        association = ae.associate("127.0.0.1", port, ae_title=NODE, ext_neg=[role])
        archive.tell(association, request)
        association.release()

    return report


@contextmanager
def archive(then: Then = never, **options: Any) -> Iterator[Archive]:
    archive = Archive(free_port(), then=then, **options)
    ae = AE(AE_TITLE)
    for sop_class in archive.classes:
        ae.add_supported_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    ae.add_supported_context("1.2.840.10008.1.1")
    keep = (evt.EVT_DIMSE_RECV, lambda event: archive.commands.append(event.message.command_set))
    answered = (evt.EVT_DIMSE_SENT, archive.answered)
    handlers = [(evt.EVT_N_ACTION, archive.act), (evt.EVT_C_FIND, archive.find), keep, answered]
    server = ae.start_server(("127.0.0.1", archive.port), block=False, evt_handlers=handlers)
    try:
        yield archive
    finally:
        server.shutdown()


def ready(asked: Asked) -> list[int]:
    return [number for number, row in asked.rows.items() if row.state == "ready"]


def test_a_result_comes_on_the_association_that_asked(tmp_path: Path) -> None:
    policy = ProofPolicy(report_s=30.0)
    with archive(on_the_same, lost=(3,)) as there, asking(tmp_path, there.address, policy) as asked:
        asked.receive(range(1, 4))
        asked.prove(10)
        assert asked.confirmed == {1: "commitment", 2: "commitment", 3: None}
        assert there.answers == [0]
        asked.prove(0)
        assert asked.proof.failures == {"1.2.3.4.3": 0x0112}
    (action,) = [each for each in there.commands if each.CommandField == 0x0130]
    assert (action.RequestedSOPClassUID, action.RequestedSOPInstanceUID, action.ActionTypeID) == (
        STORAGE_COMMITMENT,
        STORAGE_COMMITMENT_INSTANCE,
        1,
    )
    assert "AffectedSOPClassUID" not in action
    assert "Priority" not in action


def test_a_report_by_another_peer_is_not_believed(tmp_path: Path) -> None:
    port = free_port()
    with (
        archive(calling(port, "OTHER")) as there,
        asking(tmp_path, there.address) as asked,
        listening(asked, port),
    ):
        asked.receive(range(1, 4))
        asked.prove(10)
        wait_until(lambda: bool(there.answers), 30, "the other had its answer")
        assert there.answers == [0x0112]
        assert set(asked.confirmed.values()) == {None}


def test_a_destination_that_never_reports_is_asked_by_find(tmp_path: Path) -> None:
    with archive(never) as there, asking(tmp_path, there.address) as asked:
        asked.receive(range(1, 4))
        asked.prove(10)
        for _ in range(2):
            asked.prove(POLICY.answer_s)
        assert (len(there.asked), there.finds) == (3, 0)
        assert len({request.TransactionUID for request in there.asked}) == 3
        asked.prove(POLICY.answer_s)
        assert (len(there.asked), there.finds) == (3, 1)
        assert set(asked.confirmed.values()) == {"find"}


def test_a_late_report_still_counts(tmp_path: Path) -> None:
    port = free_port()
    with archive(never) as there, asking(tmp_path, there.address) as asked, listening(asked, port):
        asked.receive(range(1, 4))
        asked.prove(10)
        asked.prove(POLICY.answer_s)
        calling(port)(there, None, there.asked[0])
        assert there.answers == [0]
        assert set(asked.confirmed.values()) == {"commitment"}
        calling(port)(there, None, there.asked[1])
        assert there.answers == [0, 0]


@pytest.mark.parametrize(
    ("kind", "classes", "by"),
    [
        (ProofKind.AUTO, (), "receipts"),
        (ProofKind.AUTO, (STUDY_ROOT.find,), "find"),
        (ProofKind.COMMITMENT, (), None),
        (ProofKind.FIND, (STORAGE_COMMITMENT,), None),
    ],
)
def test_what_a_destination_does_not_offer(
    tmp_path: Path, kind: ProofKind, classes: tuple[str, ...], by: str | None
) -> None:
    policy = ProofPolicy(kind, again_s=60.0)
    with archive(never, classes=classes) as there, asking(tmp_path, there.address, policy) as asked:
        asked.receive(range(1, 3))
        asked.prove(10)
        assert set(asked.confirmed.values()) == {by}
        if by is None:
            assert "offers no proof" in asked.proof.meaning
            assert asked.proof.due_at == asked.now + 60.0
            asked.prove(policy.patience_s)
            assert asked.proof.due_at is None


def test_a_destination_that_is_down_is_not_counted_as_asked(tmp_path: Path) -> None:
    nowhere = PeerAddress("127.0.0.1", free_port(), AE_TITLE)
    with asking(tmp_path, nowhere) as asked:
        asked.receive(range(1, 3))
        asked.prove(10)
        assert (asked.proof.asks, asked.proof.due_at) == (0, asked.now + POLICY.again_s)
        asked.prove(POLICY.again_s)
        assert asked.proof.due_at == asked.now + 2 * POLICY.again_s
        assert set(asked.confirmed.values()) == {None}


def test_a_question_whose_fate_is_not_known_is_put_again_as_the_same(tmp_path: Path) -> None:
    port = free_port()
    with archive(never) as there, asking(tmp_path, there.address) as asked, listening(asked, port):
        asked.receive(range(1, 3))
        there.breaks_off = True
        asked.prove(10)
        assert asked.proof.asks == 0
        there.breaks_off = False
        asked.prove(POLICY.again_s)
        assert len(there.asked) == 2
        assert len({request.TransactionUID for request in there.asked}) == 1
        assert asked.proof.asks == 1
        calling(port)(there, None, there.asked[0])
        assert asked.proof.asked_at is None


def test_where_the_association_breaks_off_what_was_asked_before_is_not_asked_again(tmp_path: Path) -> None:
    def break_off_next(archive: Archive, _: Any, __: Dataset) -> None:
        archive.breaks_off = True

    with archive(break_off_next) as there, asking(tmp_path, there.address) as asked:
        asked.receive([1])
        asked.reception.receive(ct_header(2, SeriesInstanceUID="1.2.3.5"))
        asked.receipts()
        there.before = lambda: wait_until(lambda: there.breaks_off or not there.asked, 10, "the first was answered")
        asked.prove(10)
        first, second = asked.reception.rows(Proof)
        assert (first.asks, first.due_at) == (1, asked.now + POLICY.answer_s)
        assert (second.asks, second.due_at) == (0, asked.now + POLICY.again_s)


def test_a_destination_that_breaks_off_at_each_question_is_asked_otherwise(tmp_path: Path) -> None:
    with archive(never, breaks_off=True) as there, asking(tmp_path, there.address) as asked:
        asked.receive([1])
        asked.reception.receive(ct_header(2, SeriesInstanceUID="1.2.3.5"))
        asked.receipts()
        asked.prove(10)
        asked.prove(POLICY.again_s)
        requests = [request.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for request in there.asked]
        assert requests == ["1.2.3.4.1", "1.2.3.4.2"], "none stops the other"
        for _ in range(12):
            asked.prove(1800)
        assert {row.confirmed_by for row in asked.reception.rows(Outbox)} == {"find"}


def test_a_request_that_is_refused_is_put_again(tmp_path: Path) -> None:
    with archive(never, status=0x0213) as there, asking(tmp_path, there.address) as asked:
        asked.receive(range(1, 3))
        asked.prove(10)
        assert (len(there.asked), asked.proof.asks) == (1, 1)
        assert "resource limitation" in asked.proof.meaning
        there.status, there.then = 0, never
        asked.prove(POLICY.again_s)
        assert len(there.asked) == 2


def test_many_instances_are_asked_for_in_several_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.flow.inquiring.LARGEST_TRANSACTION", 2)
    with archive(all_on_the_same(3)) as there, asking(tmp_path, there.address, ProofPolicy(report_s=30.0)) as asked:
        asked.receive(range(1, 6))
        asked.prove(10)
        assert sorted(len(request.ReferencedSOPSequence) for request in there.asked) == [1, 2, 2]
        assert set(asked.confirmed.values()) == {"commitment"}
        assert len(asked.reception.rows(Commitment)) == 3
        asked.prove(0)
        assert asked.proof.due_at is None


def test_what_is_sent_again_three_times_is_left_to_a_person(tmp_path: Path) -> None:
    policy = ProofPolicy(ProofKind.FIND)
    with archive(lost=(2,)) as there, asking(tmp_path, there.address, policy) as asked:
        asked.receive(range(1, 4))
        for resends in range(4):
            assert asked.proof.resends == resends
            asked.prove(10)
            asked.prove(policy.again_s)
            if resends < 3:
                assert ready(asked) == [2]
                asked.receipts()
        assert ready(asked) == []
        assert asked.proof.due_at is None
        assert asked.confirmed == {1: "find", 2: None, 3: "find"}
        asked.prove(86400)
        assert there.finds == 8
