"""Fetching: archives that say success and forget images, refuse, break off, or go away; counted in our own index."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomnode.core.ports import Incoming
from dicomnode.core.retrieving import RetrieveMethod
from dicomnode.core.types import Offer
from dicomnode.errors import DiskFullError
from dicomnode.flow.fetching import Source
from dicomnode.flow.retrieving import LEASE_S, RetrieveTerms, Retrieving
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import Caller, ScpSettings
from dicomnode.net.scu import Opening, Timeouts
from dicomnode.store.index import retrievals
from dicomnode.store.index.expectations import expectations_of
from dicomnode.store.index.retrievals import Request
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.intake import StoreIntake
from dicomnode.store.schema import Instance, Retrieval
from dicomnode.testing.archives import DcmQrScp
from dicomnode.testing.peers import Call, Orthanc, dcmsend
from dicomnode.testing.processes import wait_until
from tests.flow.archive import Archive, running
from tests.shared import shared_data
from tests.store.receiving import Reception, ct_header, receiving

OPENING = Opening(Timeouts(connect_s=2, associate_s=5, response_s=10))
RETRY = RetryPolicy(initial_s=10.0, maximum_s=10.0, patience_s=1000.0)
AUTO, GET, MOVE = RetrieveMethod.AUTO, RetrieveMethod.GET, RetrieveMethod.MOVE


def study(series: int = 2, instances: int = 4) -> list[Dataset]:
    """Small CT images without pixels."""
    made = []
    for number in range(series):
        for instance in range(instances):
            dataset = ct_header(instance + 1, SeriesInstanceUID=f"1.2.7.{number + 1}", AccessionNumber="A1")
            dataset.SOPInstanceUID = f"1.2.7.{number + 1}.{instance + 1}"
            dataset.SOPClassUID = CTImageStorage
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            made.append(dataset)
    return made


@dataclass
class Node:
    """A node as far as fetching goes: receivers, an index, and what fetches."""

    reception: Reception
    server: StorageServer
    sources: dict[str, Source]
    now: float = 5000.0

    def know(self, name: str, source: Source) -> None:
        self.sources[name] = source

    def ask(self, peer: str = "pacs", **wanted: object) -> int:
        with self.reception.database.write() as session:
            request = replace(Request(peer), **wanted)  # type: ignore[arg-type]
            return retrievals.request(session, request, self.now).id

    def retrieving(self, intake: StoreIntake | None = None, retry: RetryPolicy = RETRY, owner: str = "a") -> Retrieving:
        terms = RetrieveTerms(self.sources, retry)
        return Retrieving(self.reception.database, intake or self.reception.intake, owner, terms, lambda _: self.now)

    def row(self, retrieval: int) -> Retrieval:
        with self.reception.database.read() as session:
            return session.get_one(Retrieval, retrieval)

    def fetched(self, retrieval: int, worker: Retrieving | None = None) -> Retrieval:
        """Work once; the row then."""
        assert (worker or self.retrieving()).work()
        return self.row(retrieval)

    def uids(self) -> list[str]:
        return sorted({row.sop_instance_uid for row in self.reception.rows(Instance)})


@pytest.fixture(name="node")
def _node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr("dicomnode.flow.fetching._SETTLE_S", 0.5)
    with receiving(tmp_path / "node") as reception:
        callers = (Caller("PACS", "pacs"), Caller("QRSCP", "pacs"))
        server = StorageServer(ScpSettings(("NODE",), "127.0.0.1", 0, callers=callers), reception.intake)
        server.start()
        yield Node(reception, server, {})
        server.stop(grace_s=0.2)


@contextmanager
def archive_of(node: Node, archive: Archive, method: RetrieveMethod = AUTO) -> Iterator[Archive]:
    """The archive running, known to the node as `pacs`; it moves to the node's receivers."""
    if "move" in archive.services and archive.moves_to is None:
        archive.moves_to = node.server.port
    node.know("pacs", Source("pacs", archive.address, method, "NODE", OPENING, 1 << 24))
    with running(archive):
        yield archive


def all_of(instances: Sequence[Dataset]) -> list[str]:
    return sorted(str(one.SOPInstanceUID) for one in instances)


STUDY = {"study_instance_uid": str(study()[0].StudyInstanceUID)}


@pytest.mark.parametrize("method", [GET, MOVE])
def test_a_study_is_fetched_whole_and_counted(node: Node, method: RetrieveMethod) -> None:
    images = study()
    with archive_of(node, Archive(images), method) as archive:
        row = node.fetched(node.ask(**STUDY))
        assert archive.requests == [(method.value, "STUDY", 0)]
        assert (row.state, row.expected, row.held, row.missing) == ("complete", 8, 8, [])
        assert row.used == ("C-GET" if method is GET else "C-MOVE")
        assert row.sub_operations["completed"] == 8
        assert node.uids() == all_of(images)
        assert {one.peer for one in node.reception.rows(Instance)} == {"pacs"}
        with node.reception.database.read() as session:
            (told,) = expectations_of(session, images[0].StudyInstanceUID, "1.2.7.2")
        assert (told.source, told.peer, told.instances) == ("C-FIND", "pacs", 4)
        assert node.fetched(node.ask(**STUDY)).state == "complete"
        assert len(archive.requests) == 1  # all of it was here


def test_series_and_accession_numbers_are_fetched(node: Node) -> None:
    images = study(series=3)
    with archive_of(node, Archive(images)):
        row = node.fetched(node.ask(**STUDY, series_instance_uids=("1.2.7.2",)))
        assert (row.state, row.held) == ("complete", 4)
        assert {uid.rpartition(".")[0] for uid in node.uids()} == {"1.2.7.2"}
        assert node.fetched(node.ask(accession_number="A1")).held == 12
        row = node.fetched(node.ask(**STUDY, series_instance_uids=("1.2.7.2", "1.2.7.9")))
        assert (row.state, "does not list series 1.2.7.9" in row.reason) == ("partial", True)
        row = node.fetched(node.ask(accession_number="A2"))
        assert (row.state, row.reason) == ("failed", "the peer lists nothing of it")


@pytest.mark.parametrize("method", [GET, MOVE])
def test_a_success_with_images_missing_is_noticed_and_they_are_asked_for(node: Node, method: RetrieveMethod) -> None:
    images = study()
    with archive_of(node, Archive(images, once={"1.2.7.1.2", "1.2.7.2.1"}), method) as archive:
        row = node.fetched(node.ask(**STUDY))
    assert (row.state, row.held) == ("complete", 8)
    assert archive.requests == [(method.value, "STUDY", 0), (method.value, "IMAGE", 1), (method.value, "IMAGE", 1)]


def test_what_never_comes_makes_it_partial_and_is_named(node: Node) -> None:
    with archive_of(node, Archive(study(), silently_keeps={"1.2.7.1.2"})) as archive:
        row = node.fetched(node.ask(**STUDY))
    assert (row.state, row.expected, row.held, row.missing) == ("partial", 8, 7, ["1.2.7.1.2"])
    assert row.reason.startswith("7 of 8 instances; 1 did not come")
    assert row.hint
    assert archive.ways() == ["get", "get", "move"]  # a way that brings nothing is not tried again


def test_an_archive_without_c_get_is_asked_by_c_move(node: Node) -> None:
    with archive_of(node, Archive(study(), services=("find", "move"))) as archive:
        row = node.fetched(node.ask(**STUDY))
    assert (row.state, row.used, archive.ways()) == ("complete", "C-MOVE", ["move"])


def test_an_archive_that_does_not_know_us_as_destination_is_told_of(node: Node) -> None:
    node.know("pacs", Source("pacs", Archive([]).address, MOVE, "NODE", OPENING, 1 << 24))
    with archive_of(node, archive := Archive(study(), services=("find", "move")), MOVE):
        archive.moves_to = None
        row = node.fetched(node.ask(**STUDY))
    assert row.state == "failed"
    assert "0xA801" in row.reason
    assert "does not know our AE title" in row.hint


def test_an_archive_that_lists_no_images_is_counted_by_series(node: Node) -> None:
    with archive_of(node, Archive(study(), answers_images=False, once={"1.2.7.1.2"})) as archive:
        row = node.fetched(node.ask(**STUDY))
    assert (row.state, row.expected, row.held) == ("complete", 8, 8)
    assert archive.requests == [("get", "STUDY", 0), ("get", "SERIES", 0)]


def test_a_failure_that_may_pass_is_tried_again_until_patience_ends(node: Node) -> None:
    with archive_of(node, Archive(study(), status=0xA702)) as archive:
        retrieval = node.ask(**STUDY)
        row = node.fetched(retrieval)
        assert (row.state, row.attempts, row.lease_owner) == ("ready", 1, None)
        assert row.next_attempt_at >= node.now + RETRY.initial_s
        assert not node.retrieving().work()
        node.now += 20
        archive.status = None
        assert node.fetched(retrieval).state == "complete"


@pytest.mark.parametrize("held", [0, 7])
def test_an_archive_that_is_gone_is_given_up_when_patience_ends(node: Node, held: int) -> None:
    node.know("pacs", Source("pacs", Archive([]).address, AUTO, "NODE", OPENING, 1 << 24))
    retrieval = node.ask(**STUDY)
    assert node.fetched(retrieval).state == "ready"
    with node.reception.database.write() as session:  # as an attempt leaves it that was broken off
        row = session.get_one(Retrieval, retrieval)
        row.held, row.expected = held, 8
    node.now += RETRY.patience_s + 1
    row = node.fetched(retrieval)
    assert row.state == ("partial" if held else "failed")
    assert "cannot connect" in row.reason
    assert row.hint


def test_a_peer_that_the_configuration_does_not_have_is_waited_for(node: Node) -> None:
    retrieval = node.ask("vna", **STUDY)
    row = node.fetched(retrieval)
    assert (row.state, row.reason) == ("ready", "there is no peer 'vna' with host and port")
    assert "[peer.vna]" in row.hint


class Interfering(StoreIntake):
    """Does something before the n-th instance is taken in."""

    at = 3
    act: Callable[[], None]
    begun = 0

    def begin(self, offer: Offer) -> Incoming:  # type: ignore[override]
        self.begun += 1
        if self.begun == self.at:
            self.act()
        return super().begin(offer)


def interfering(node: Node, act: Callable[[], None]) -> Interfering:
    reception = node.reception
    intake = Interfering(reception.database, reception.files, reception.intake.routing, "retrieve")
    intake.act = act
    return intake


def test_a_full_disk_is_waited_for(node: Node) -> None:
    def fill() -> None:
        raise DiskFullError("full")

    with archive_of(node, Archive(study()), GET):
        intake = interfering(node, fill)
        row = node.fetched(node.ask(**STUDY), node.retrieving(intake))
    assert (row.state, row.held) == ("complete", 8)  # asked for again at once: the disk had room by then
    assert intake.begun == 9


def test_a_stop_half_way_keeps_what_came_and_goes_on_after_the_start(node: Node) -> None:
    images = study()
    stopping: list[threading.Thread] = []
    with archive_of(node, Archive(images), GET) as archive:
        worker = node.retrieving(interfering(node, lambda: stop()))

        def stop() -> None:
            stopping.append(threading.Thread(target=worker.stop))
            stopping[0].start()
            wait_until(worker._stopping.is_set, 5, "it was asked to stop")
            wait_until(lambda: bool(worker._interruption), 5, "its associations were cut off")

        retrieval = node.ask(**STUDY)
        worker.start()
        wait_until(lambda: bool(stopping), 10, "it was half way")
        stopping[0].join()
        row = node.row(retrieval)
        assert (row.state, row.lease_owner, row.attempts) == ("ready", None, 0)
        came = node.uids()
        assert 2 <= len(came) < len(images)
        row = node.fetched(retrieval)
        assert (row.state, node.uids()) == ("complete", all_of(images))
        assert [level for _, level, _ in archive.requests] == [
            "STUDY",
            *["IMAGE"] * (len(archive.requests) - 2),
            "SERIES",
        ]


def test_the_work_of_a_machine_that_died_goes_on_elsewhere(node: Node) -> None:
    retrieval = node.ask(**STUDY)
    with node.reception.database.write() as session:
        assert retrievals.lease_next(session, "dead", node.now, node.now + LEASE_S) is not None
    with archive_of(node, Archive(study())):
        assert not node.retrieving().work()
        node.now += LEASE_S
        assert node.fetched(retrieval).state == "complete"


@pytest.mark.parametrize(
    ("attempts", "state", "waits"), [(1, "ready", False), (9, "ready", True), (51, "failed", True)]
)
def test_what_a_killed_process_had_begun_is_taken_up_but_not_for_ever(
    node: Node, attempts: int, state: str, waits: bool
) -> None:
    retrieval = node.ask("vna", **STUDY)
    with node.reception.database.write() as session:
        row = retrievals.lease_next(session, "a", node.now, node.now + LEASE_S)
        assert row is not None
        row.attempts = attempts
    worker = node.retrieving()
    worker._take_up()
    row = node.row(retrieval)
    assert (row.state, row.lease_owner) == (state, None)
    with node.reception.database.read() as session:
        assert (retrievals.next_due(session, node.now) is None) == waits


def test_a_hostile_archive_ends_nothing_but_its_own_retrieval(node: Node) -> None:
    images = study()
    for image in images:
        image.PatientID = "*\\?\x1b[31m^=" + "x" * 300
        image.NumberOfSeriesRelatedInstances = "99999999999999999999"
    images[0].SOPInstanceUID = "../../etc/passwd"
    images[1].SeriesInstanceUID = "1..2"
    with archive_of(node, Archive(images)):
        row = node.fetched(node.ask(**STUDY))
    assert row.state in ("complete", "partial")
    assert not any("etc" in uid for uid in node.uids())


@pytest.mark.peer("orthanc")
@pytest.mark.peer("dcmtk")
def test_what_an_orthanc_loses_half_way_is_missing_and_named(node: Node, tmp_path: Path) -> None:
    paths = sorted(shared_data("ct/dicom/lidc0002").glob("*.dcm"))
    with Orthanc(tmp_path / "pacs", "PACS") as orthanc:
        assert dcmsend(Call(orthanc.port, "PACS", "CT1"), paths) == 0
        held = orthanc.instances()

        def lose() -> None:
            here = set(node.uids())
            lost = [identifier for identifier, uid in held.items() if uid not in here]
            for identifier in lost[-4:]:
                orthanc.delete(f"/instances/{identifier}")

        address = replace(Archive([]).address, port=orthanc.port)
        node.know("pacs", Source("pacs", address, AUTO, "NODE", OPENING, 1 << 24))
        study_uid = orthanc.get_json("/studies?expand")[0]["MainDicomTags"]["StudyInstanceUID"]
        retrieval = node.ask(study_instance_uid=study_uid)
        row = node.fetched(retrieval, node.retrieving(interfering(node, lose)))
        left = set(orthanc.sop_instance_uids())
    assert len(left) == 8
    assert (row.state, row.expected) == ("partial", 12)
    assert left <= set(node.uids())
    assert sorted(row.missing) == sorted(set(held.values()) - set(node.uids()))
    assert 1 <= len(row.missing) <= 4


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("options", [["--check-find", "--check-move"], ["--no-study-root", "--check-move"]])
def test_a_dcmqrscp_without_c_get_moves_everything(node: Node, tmp_path: Path, options: list[str]) -> None:
    """One that looks closely at keys, and one that knows the Patient Root only."""
    paths = sorted(shared_data("ct/dicom/lidc0002").glob("*.dcm"))
    moves_to = {"NODE": node.server.port}
    with DcmQrScp(tmp_path / "pacs", moves_to=moves_to, options=["--disable-get", *options]) as peer:
        peer.hold(paths)
        address = replace(Archive([]).address, port=peer.port, called_ae=peer.ae_title)
        node.know("pacs", Source("pacs", address, AUTO, "NODE", OPENING, 1 << 24))
        study_uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001.490157381160200744295382098329"
        row = node.fetched(node.ask(study_instance_uid=study_uid))
    assert (row.state, row.used, row.held) == ("complete", "C-MOVE", 12)
