"""Taking in instances: what becomes of bytes, rows and outbox rows, and of what is wrong, repeated or sent back."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from sqlalchemy import delete, event, update

from dicomnode.core.routing import DestinationPolicy
from dicomnode.core.rules import RuleSpec
from dicomnode.core.types import AssociationEnd, Offer, Outcome, Receipt
from dicomnode.errors import DiskFullError, IndexAwayError, InputError, MismatchError, StoreError
from dicomnode.store.files import FileStore
from dicomnode.store.index import outbox
from dicomnode.store.index.arrivals import Arrival
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.intake import StoreIntake
from dicomnode.store.schema import Association, Instance, Outbox, Patient, Series, SeriesState, Study
from dicomnode.testing.processes import wait_until
from tests.store.receiving import (
    PACS,
    SCANNER,
    TO_PACS,
    Reception,
    ct_header,
    encoded,
    open_database,
    receiving,
    routing,
)


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    with receiving(tmp_path) as reception:
        yield reception


@pytest.mark.both_databases
def test_an_instance_becomes_rows_and_a_file(reception: Reception) -> None:
    row = reception.intake.association_opened(SCANNER)
    reception.receive(ct_header(3), association=row)
    (patient,), (study,), (series,), (instance,) = map(reception.rows, (Patient, Study, Series, Instance))
    assert (patient.patient_id, patient.issuer) == ("P1", "")
    assert (study.patient_row, study.study_instance_uid, study.accession_number) == (patient.id, "1.2.3", "A1")
    assert (series.study_row, series.series_instance_uid, series.modality) == (study.id, "1.2.3.4", "CT")
    assert (series.state, series.generation, series.last_at, series.due_at) == ("receiving", 0, 1000.0, 1001.0)
    assert (instance.series_row, instance.association_row) == (series.id, row)
    assert (instance.peer, instance.calling_ae, instance.called_ae) == ("scanner", "SCANNER", "DICOMNODE")
    assert (instance.active, instance.matched, instance.derived_by_us) == (True, True, False)
    assert (instance.position_mm, instance.orientation) == (6.0, "\\".join(["1.000", *["0.000"] * 3, "1.000", "0.000"]))
    path = reception.files.path(instance.file)
    assert path.stat().st_size == instance.size_bytes
    assert path.read_bytes().endswith(encoded(ct_header(3)))
    assert dcmread(path).SOPInstanceUID == instance.sop_instance_uid


def test_an_instance_and_its_outbox_rows_are_one_transaction(
    reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(reception.intake._recorder._insert_outbox, "many", fail)
    with pytest.raises(StoreError):
        reception.receive(ct_header())
    assert_nothing_kept(reception)
    assert reception.rows(Series) == []
    monkeypatch.undo()
    reception.receive(ct_header())
    assert reception.outbox() == [("pacs", "1.2.3.4.1", "ready")]


@pytest.mark.both_databases
def test_the_same_bytes_again_change_nothing(reception: Reception) -> None:
    reception.receive(ct_header(), at=1000.0)
    (before,) = reception.rows(Instance)
    reception.receive(ct_header(), at=1001.0)
    (after,) = reception.rows(Instance)
    assert after.id == before.id
    assert len(reception.outbox()) == 1
    assert len(list(reception.folder.rglob("*.dcm"))) == 1


@pytest.mark.both_databases
def test_the_same_bytes_again_are_judged_by_rules_that_have_changed(reception: Reception) -> None:
    """An administrator mends a rule, and sends the study again."""
    reception.receive(ct_header(1), at=1000.0)
    reception.receive(ct_header(2), at=1000.0)
    close_series(reception)
    reception.intake.routing = routing(RuleSpec("both", {"Modality": "CT"}, send=("pacs", "archive")))
    reception.receive(ct_header(1), at=2000.0)
    assert [row.state for row in reception.rows(Series)] == ["receiving"]
    assert sorted((destination, uid) for destination, uid, _ in reception.outbox()) == [
        ("archive", "1.2.3.4.1"), ("pacs", "1.2.3.4.1"), ("pacs", "1.2.3.4.2"),
    ]  # fmt: skip
    close_series(reception)
    reception.receive(ct_header(1), at=3000.0)
    assert [row.state for row in reception.rows(Series)] == ["closed"], "by the same rules there is nothing to judge"
    assert len(reception.rows(Instance)) == 2


@pytest.mark.both_databases
def test_the_same_bytes_again_do_not_reopen_a_closed_series(reception: Reception) -> None:
    reception.receive(ct_header())
    close_series(reception)
    reception.receive(ct_header(), at=1500.0)
    assert [series.state for series in reception.rows(Series)] == ["closed"]


@pytest.mark.both_databases
def test_other_bytes_under_the_same_uid_are_kept_beside_and_forwarded(reception: Reception) -> None:
    reception.receive(ct_header())
    close_series(reception)
    reception.receive(ct_header(PatientName="Doe^John"), at=1100.0)
    versions = reception.versions(ct_header())
    assert [version.active for version in versions] == [False, True]
    assert all(reception.files.path(version.file).exists() for version in versions)
    assert [state for _, _, state in reception.outbox()] == ["cancelled", "ready"], (
        "the older one had not been sent yet"
    )
    assert [series.state for series in reception.rows(Series)] == ["receiving"]


@pytest.mark.both_databases
def test_when_the_first_version_comes_again_after_another_it_is_the_newest_again(reception: Reception) -> None:
    first, second = ct_header(), ct_header(PatientName="Doe^John")
    for at, version in enumerate((first, second)):
        reception.receive(version, at=1000.0 + at)
    mark_sent(reception)
    reception.receive(first, at=1002.0)
    assert [version.active for version in reception.versions(first)] == [True, False]
    states = [state for _, _, state in reception.outbox()]
    assert states == ["ready", "sent"], "the destination has the second version, which is no longer true"


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID"])
def test_uids_that_differ_from_the_announced_ones_are_refused(reception: Reception, keyword: str) -> None:
    sent = ct_header(**{keyword: "1.2.3.99"})
    with pytest.raises(MismatchError, match=keyword):
        reception.receive_bytes(ct_header(), encoded(sent))
    assert_nothing_kept(reception)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("uid", [None, "", "1.2.x", "../../etc/passwd", "1" * 65])
def test_what_cannot_be_filed_is_refused(reception: Reception, keyword: str, uid: str | None) -> None:
    sent = ct_header(**{keyword: None})
    if uid is not None:
        sent[keyword] = DataElement(keyword, "UI", uid, validation_mode=IGNORE)
    with pytest.raises(InputError):
        reception.receive_bytes(ct_header(), encoded(sent))
    assert_nothing_kept(reception)


def test_elements_out_of_order_are_found(reception: Reception) -> None:
    """PS3.5 7.1 forbids it; the quick reader of the start stops where no more should come."""
    content, place = encoded(ct_header()), encoded(ct_header()).index(b"\x20\0\x0d\0UI")
    early = b"\x88\0\x40\1UI\4\x001.9\0"  # Storage Media File-set UID (0088,0140), before (0020,000D)
    pixels = b"\xe0\x7f\x10\0OW\0\0" + (4096).to_bytes(4, "little") + bytes(4096)
    reception.receive_bytes(ct_header(), content[:place] + early + content[place:] + pixels)
    assert len(reception.versions(ct_header())) == 1


@pytest.mark.parametrize("uid", ["", "1.2.x", "../../etc/passwd", "1..2", "/etc/passwd", "1" * 65, "1.2\0"])
def test_announced_uids_that_are_none_are_refused_before_a_byte_is_written(reception: Reception, uid: str) -> None:
    for offered in (("1.2.3", uid), (uid, "1.2.3")):
        with pytest.raises(InputError):
            reception.intake.begin(Offer(SCANNER, 1, offered[0], offered[1], "1.2.840.10008.1.2.1"))
    assert_nothing_kept(reception)


def test_what_is_no_data_set_is_refused(reception: Reception) -> None:
    for content in (b"", b"\xff" * 100, encoded(ct_header())[:20]):
        with pytest.raises(InputError):
            reception.receive_bytes(ct_header(), content)
    assert_nothing_kept(reception)


def test_what_is_aborted_leaves_nothing(reception: Reception) -> None:
    incoming = reception.intake.begin(Offer(SCANNER, 1, "1.2.3", "1.2.3.4", "1.2.840.10008.1.2.1"))
    incoming.write([b"half"])
    incoming.abort()
    assert_nothing_kept(reception)


def assert_nothing_kept(reception: Reception) -> None:
    assert reception.rows(Instance) == []
    kept = [path for path in reception.folder.rglob("*") if path.is_file()]
    assert {path.name.partition("-")[0] for path in kept} == {"node.sqlite"}


def test_what_waits_for_its_series_is_held(tmp_path: Path) -> None:
    rule = RuleSpec("both", {"Modality": "CT"}, send=("pacs", "archive"), priority="urgent")
    policies = {"archive": DestinationPolicy(when_complete=True, calling_ae="DICOMNODE")}
    with receiving(tmp_path, routing(rule, policies=policies)) as reception:
        reception.receive(ct_header())
        assert reception.outbox() == [("pacs", "1.2.3.4.1", "ready"), ("archive", "1.2.3.4.1", "held")]
        assert [(row.rules, row.priority, row.origin) for row in reception.rows(Outbox)] == [
            (["both"], 10, "received")
        ] * 2


def test_the_senders_ae_title_is_passed_through_where_asked_for(tmp_path: Path) -> None:
    rule = RuleSpec("both", {"Modality": "CT"}, send=("pacs", "archive"))
    with receiving(tmp_path, routing(rule, policies={"archive": DestinationPolicy(calling_ae="")})) as reception:
        reception.receive(ct_header())
        assert [(row.destination, row.calling_ae) for row in reception.rows(Outbox)] == [
            ("pacs", "DICOMNODE"),
            ("archive", "SCANNER"),
        ]


def test_what_no_rule_matches_is_kept_and_marked(tmp_path: Path) -> None:
    with receiving(tmp_path, routing(RuleSpec("mr", {"Modality": "MR"}, send=("pacs",)))) as reception:
        reception.receive(ct_header())
        assert [row.matched for row in reception.rows(Instance)] == [False]
        assert reception.outbox() == []


@pytest.mark.both_databases
def test_what_a_destination_sends_back_is_kept_but_not_forwarded(tmp_path: Path) -> None:
    rule = RuleSpec("all", {"Modality": "*"}, send=("pacs", "archive"))
    with receiving(tmp_path, routing(rule)) as reception:
        reception.receive(ct_header())
        close_series(reception)
        mark_sent(reception)
        reception.receive(ct_header(PatientName="Coerced^Name"), PACS)
        assert [version.active for version in reception.versions(ct_header())] == [True, False]
        assert {state for _, _, state in reception.outbox()} == {"sent"}
        assert [series.state for series in reception.rows(Series)] == ["closed"]
        assert [row.kept_back for row in reception.rows(Instance)] == [[], ["round trip: pacs sent it back"]]


def test_what_a_destination_sends_back_before_it_was_sent_there_is_no_round_trip(reception: Reception) -> None:
    reception.receive(ct_header())
    reception.receive(ct_header(PatientName="Other^Name"), PACS)
    assert [version.active for version in reception.versions(ct_header())] == [False, True]


def test_a_round_trip_is_forwarded_where_a_rule_says_echo(tmp_path: Path) -> None:
    rule = RuleSpec("all", {"Modality": "*"}, send=("pacs", "archive"), echo=True)
    with receiving(tmp_path, routing(rule)) as reception:
        reception.receive(ct_header())
        mark_sent(reception)
        reception.receive(ct_header(PatientName="Coerced^Name"), PACS)
        assert [version.active for version in reception.versions(ct_header())] == [False, True]
        assert [state for _, _, state in reception.outbox()].count("ready") == 2


def test_what_we_derived_is_known_again(reception: Reception) -> None:
    reception.receive(ct_header(1, ManufacturerModelName="dicomnode", ImageType=["DERIVED", "SECONDARY"]))
    reception.receive(ct_header(2, ManufacturerModelName="Scan 9", ImageType=["DERIVED", "SECONDARY"]))
    assert [row.derived_by_us for row in reception.rows(Instance)] == [True, False]


def test_an_instance_without_geometry_has_no_position(reception: Reception) -> None:
    reception.receive(ct_header(ImagePositionPatient=None))
    assert [(row.position_mm, row.orientation) for row in reception.rows(Instance)] == [(None, None)]


@pytest.mark.both_databases
def test_many_threads_at_once_all_get_their_own_answer(reception: Reception) -> None:
    count = 24
    start = threading.Barrier(count)
    answers: list[object] = [None] * count

    def send(number: int) -> None:
        start.wait()
        good = number % 4 != 0
        sent = ct_header(number) if good else ct_header(number, StudyInstanceUID=None)
        try:
            reception.receive(sent)
            answers[number] = "stored"
        except InputError as error:
            answers[number] = type(error)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == ["stored" if number % 4 else InputError for number in range(count)]
    stored = {row.sop_instance_uid for row in reception.rows(Instance)}
    assert stored == {f"1.2.3.4.{number}" for number in range(count) if number % 4}
    assert len(reception.rows(Series)) == 1


def batch_of(reception: Reception, datasets: list[Dataset]) -> list[Exception | None]:
    """Send all while the index is busy, so that all but the first come into one batch; what each is answered."""
    answers: list[Exception | None] = [None] * len(datasets)
    row = reception.intake.association_opened(SCANNER)

    def send(number: int) -> None:
        try:
            reception.receive(datasets[number], association=row)
        except Exception as error:  # noqa: BLE001  the test looks at it
            answers[number] = error

    threads = [threading.Thread(target=send, args=(number,), daemon=True) for number in range(len(datasets))]
    with reception.database.write() as session:
        session.connection()  # takes the write lock
        for thread in threads:
            thread.start()
        wait_until(lambda: len(reception.intake._waiting) == len(datasets) - 1, 20, "all but the first wait")
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a sender waits for ever"
    return answers


def fail_for(reception: Reception, monkeypatch: pytest.MonkeyPatch, uid: str, error: Exception) -> None:
    """Have the index refuse one instance."""
    real = reception.intake._recorder.record

    def record(cursor: Any, arrival: Arrival, opened: Any) -> bool:
        if arrival.file.sop_instance_uid == uid:
            raise error
        return real(cursor, arrival, opened)

    monkeypatch.setattr(reception.intake._recorder, "record", record)


def test_a_bad_row_does_not_fail_the_others_of_its_batch(reception: Reception, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_for(reception, monkeypatch, "1.2.3.4.2", sqlite3.DataError("insert Doe^Jane"))
    answers = batch_of(reception, [ct_header(number) for number in range(5)])
    assert [type(answer) for answer in answers] == [type(None), type(None), StoreError, type(None), type(None)]
    assert "Doe" not in str(answers[2])
    assert len(reception.rows(Instance)) == 4
    assert len(list(reception.folder.rglob("*.dcm"))) == 4, "what has no row has no file"


@pytest.mark.parametrize(
    "error",
    [OverflowError("Doe^Jane"), UnicodeEncodeError("utf-8", "Doe", 0, 1, "Doe"), KeyError("Doe"), RuntimeError("Doe")],
)
def test_no_error_leaves_a_sender_without_an_answer(
    reception: Reception, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fail_for(reception, monkeypatch, "1.2.3.4.1", error)
    answers = batch_of(reception, [ct_header(number) for number in range(3)])
    assert isinstance(answers[1], StoreError)
    assert "Doe" not in str(answers[1])
    assert (answers[0], answers[2]) == (None, None)
    reception.receive(ct_header(7))


def test_a_file_that_has_a_row_after_all_is_kept(reception: Reception, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may have committed, and gone before it said so."""
    real = reception.database.statements

    @contextmanager
    def gone_after_the_commit() -> Iterator[Any]:
        with real() as cursor:
            yield cursor
        raise sqlite3.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(reception.database, "statements", gone_after_the_commit)
    with pytest.raises(StoreError):
        reception.receive(ct_header())
    monkeypatch.undo()
    (instance,) = reception.rows(Instance)
    assert reception.files.path(instance.file).exists()
    reception.receive(ct_header())
    assert [each.id for each in reception.rows(Instance)] == [instance.id]


def test_a_commit_that_came_through_is_not_taken_for_another_instance_at_the_next_try(
    reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = reception.database.statements, [sqlite3.IntegrityError("as a conflict, which is tried again")]

    @contextmanager
    def failing_after_the_commit() -> Iterator[Any]:
        with real() as cursor:
            yield cursor
        if failures:
            raise failures.pop()

    monkeypatch.setattr(reception.database, "statements", failing_after_the_commit)
    reception.receive(ct_header())
    (instance,) = reception.rows(Instance)
    assert reception.files.path(instance.file).exists()


def test_an_index_out_of_reach_is_tried_once_for_all_who_wait(
    reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try may take a minute (`BUSY_TIMEOUT_S`): one for each sender would take their patience."""
    real, tries = reception.database.statements, []

    @contextmanager
    def locked() -> Iterator[Any]:
        with real() as cursor:
            yield cursor
            tries.append(1)
            raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(reception.database, "statements", locked)
    answers = batch_of(reception, [ct_header(number) for number in range(5)])
    assert [type(answer) for answer in answers] == [IndexAwayError] * 5
    assert len(tries) == 2, "for the first sender, who came before the others, and for those together"
    assert_nothing_kept(reception)


def test_nobody_is_told_of_success_by_a_commit_that_fell_over(
    reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reception.database.statements

    def fall_over(*_: object) -> None:
        with real():
            raise RuntimeError

    monkeypatch.setattr(reception.intake, "_record", fall_over)
    answers = batch_of(reception, [ct_header(number) for number in range(3)])
    assert None not in answers
    assert reception.rows(Instance) == []


def test_the_same_other_bytes_at_once_are_one_version(reception: Reception, monkeypatch: pytest.MonkeyPatch) -> None:
    reception.receive(ct_header(PatientID="P1"))
    real, waiting = reception.files.same_content, [ct_header(PatientID="P2")]

    def compare(key: str, other: str) -> bool:
        if waiting:  # while the first is compared the second comes, over another association
            reception.receive(waiting.pop())
        return real(key, other)

    monkeypatch.setattr(reception.files, "same_content", compare)
    reception.receive(ct_header(PatientID="P2"))
    assert [version.active for version in reception.versions(ct_header())] == [False, True]
    assert len(list(reception.folder.rglob("*.dcm"))) == 2


def test_a_file_that_was_deleted_by_hand_comes_back_when_it_is_sent_again(reception: Reception) -> None:
    reception.receive(ct_header())
    reception.files.remove(reception.rows(Instance)[0].file)
    reception.receive(ct_header())
    assert [version.active for version in reception.versions(ct_header())] == [False, True]
    assert reception.files.path(reception.versions(ct_header())[1].file).exists()


def test_while_the_index_is_out_of_reach_no_file_stays(reception: Reception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else senders that try again for hours fill the disk."""

    @contextmanager
    def gone() -> Iterator[Any]:
        raise sqlite3.OperationalError("connection refused")
        yield

    monkeypatch.setattr(reception.database, "statements", gone)
    monkeypatch.setattr(reception.database, "read", gone)
    with pytest.raises(IndexAwayError):
        reception.receive(ct_header())
    assert list((reception.folder / "objects").rglob("*.dcm")) == []


def test_a_full_disk_under_the_index_is_out_of_resources(reception: Reception) -> None:
    """SQLite's own way to be as full as it is now: SQLITE_FULL at the next page."""
    engine = reception.database.engine
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count=1"))
    engine.dispose()
    with pytest.raises(DiskFullError):
        for number in range(2000):
            reception.receive(ct_header(number, PatientID=f"P{number}" * 8, StudyInstanceUID=f"1.2.3.{number}"))
    assert len(list((reception.folder / "objects").rglob("*.dcm"))) == len(reception.rows(Instance))


def test_what_another_receiver_wrote_meanwhile_is_seen_at_the_next_try(
    reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, collisions = reception.intake._recorder.record, [sqlite3.IntegrityError("UNIQUE"), None]

    def record(cursor: Any, arrival: Arrival, opened: Any) -> bool:
        if (collision := collisions.pop(0)) is not None:
            raise collision
        return real(cursor, arrival, opened)

    monkeypatch.setattr(reception.intake._recorder, "record", record)
    reception.receive(ct_header())
    assert len(reception.rows(Instance)) == 1


@pytest.mark.parametrize("count", ["1e30", "99999999999999999999", "-3", "nan", "1e308"])
def test_an_absurd_count_of_instances_is_not_believed(reception: Reception, count: str) -> None:
    sent = encoded(ct_header(NumberOfSeriesRelatedInstances=1))
    held = b"\x20\x00\x09\x12IS\x02\x001 "
    assert held in sent
    text = count.encode() + b" " * (len(count) % 2)
    hostile = sent.replace(held, held[:6] + len(text).to_bytes(2, "little") + text)
    reception.receive_bytes(ct_header(), hostile)
    assert [series.expected for series in reception.rows(Series)] == [None]


def test_a_count_of_instances_is_evidence(reception: Reception) -> None:
    reception.receive(ct_header(NumberOfSeriesRelatedInstances=12))
    (series,) = reception.rows(Series)
    assert (series.expected, series.expected_source) == (12, "NumberOfSeriesRelatedInstances")


@pytest.mark.both_databases
def test_after_a_kill_half_files_are_set_aside_and_open_associations_are_lost(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        row = reception.intake.association_opened(SCANNER)
        ended = reception.intake.association_opened(SCANNER)
        reception.receive(ct_header(1), association=row)
        reception.receive(ct_header(2), association=ended)
        reception.intake.association_ended(ended, AssociationEnd.RELEASED)
        half = reception.intake.begin(Offer(SCANNER, row, "1.2.3", "1.2.3.4", "1.2.840.10008.1.2.1"))
        half.write([b"half"])
    with receiving(tmp_path) as reception:
        reception.intake.recover()
        ends = {association.id: association.ended for association in reception.rows(Association)}
        assert ends == {row: "lost", ended: "released"}
        stored = {reception.files.path(each.file) for each in reception.rows(Instance)}
        assert set((tmp_path / "objects").rglob("*.dcm")) == stored
        (stray,) = (tmp_path / "strays").iterdir()
        assert stray.read_bytes().endswith(b"half")
        assert [series.state for series in reception.rows(Series)] == ["receiving"]


def test_what_an_index_has_forgotten_is_set_aside_whole(tmp_path: Path) -> None:
    """It was put back from a backup: what came since has no row, and may be nowhere else."""
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        (kept,) = reception.rows(Instance)
        reception.receive(ct_header(2))
        with reception.database.write() as session:
            session.execute(delete(Outbox).where(Outbox.instance_row != kept.id))
            session.execute(delete(Instance).where(Instance.id != kept.id))
        reception.intake.recover()
        assert reception.files.path(kept.file).exists()
        (stray,) = (tmp_path / "strays").iterdir()
        assert dcmread(stray).SOPInstanceUID == "1.2.3.4.2"


def test_a_file_with_a_row_is_no_stray_though_a_clock_jumped(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1), at=9e9)
        reception.receive(ct_header(2), at=1.0)
        reception.intake.recover()
        assert not (tmp_path / "strays").exists()


def test_a_receiver_leaves_alone_what_is_anothers(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        row = reception.intake.association_opened(SCANNER)
        reception.receive(ct_header(), association=row)
        half = reception.intake.begin(Offer(SCANNER, row, "1.2.3", "1.2.3.4", "1.2.840.10008.1.2.1"))
        half.write([b"half"])
        other = StoreIntake(
            reception.database, FileStore(tmp_path, 0, sync=False, owner="other"), routing(TO_PACS), "other"
        )
        other.recover()
        assert [association.ended for association in reception.rows(Association)] == [None]
        assert len(list(tmp_path.rglob("*.dcm"))) == 2


def test_an_association_that_brings_nothing_is_not_recorded(reception: Reception) -> None:
    row = reception.intake.association_opened(SCANNER)
    reception.intake.association_ended(row, AssociationEnd.RELEASED)
    assert reception.rows(Association) == []


@pytest.mark.both_databases
def test_the_end_of_an_association_makes_its_series_due_sooner(reception: Reception) -> None:
    row = reception.intake.association_opened(SCANNER)
    reception.receive(ct_header(), association=row)
    with reception.database.write() as session:
        session.execute(update(Series).values(due_at=9e9))
    reception.intake.association_ended(row, AssociationEnd.RELEASED)
    (series,) = reception.rows(Series)
    assert series.due_at is not None
    assert series.due_at < 9e9


def test_the_index_that_fails_is_an_error_without_its_text(tmp_path: Path) -> None:
    with open_database(tmp_path) as database, receiving(tmp_path) as reception:
        with database.write() as session:
            session.connection().exec_driver_sql("ALTER TABLE series RENAME TO gone")
        with pytest.raises(StoreError) as caught:
            reception.receive(ct_header(), replace(SCANNER, calling_ae="SECRET"))
        assert "SECRET" not in str(caught.value)


def close_series(reception: Reception) -> None:
    with reception.database.write() as session:
        session.execute(update(Series).values(state=SeriesState.CLOSED.value, due_at=None, generation=1))


def mark_sent(reception: Reception) -> None:
    for row in reception.rows(Outbox):
        with reception.database.write() as session:
            outbox.record_answer(session, Receipt(row.id, Outcome.SENT, 0, "", "", False), RetryPolicy(), 1001.0)
