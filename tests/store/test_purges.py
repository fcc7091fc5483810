"""Files of series that are deleted, their rows kept, and instances that come again afterwards; on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from dicomnode.core.retention import Holdings
from dicomnode.core.routing import DestinationPolicy
from dicomnode.core.rules import RuleSpec
from dicomnode.store.index import purges
from dicomnode.store.index.arrivals import Identity, series_of
from dicomnode.store.index.jobs import record_plan
from dicomnode.store.index.purges import Noted
from dicomnode.store.schema import Instance, Job, Origin, Outbox, OutboxState, Purge, Series, SeriesState, StudyNeed
from tests.store.receiving import TO_PACS, Reception, ct_header, receiving, routing

pytestmark = pytest.mark.both_databases


def close(reception: Reception) -> None:
    with reception.database.write() as session:
        session.execute(
            update(Series).values(state=SeriesState.CLOSED.value, due_at=None, generation=Series.generation + 1)
        )


def deliver(reception: Reception, confirmed_at: float | None = 1100.0) -> None:
    """Everything that is ready arrives."""
    with reception.database.write() as session:
        session.execute(
            update(Outbox)
            .where(Outbox.state == OutboxState.READY)
            .values(state=OutboxState.SENT.value, confirmed_at=confirmed_at)
        )


def found(reception: Reception) -> Holdings:
    with reception.database.read() as session:
        return purges.holdings(session, session.get_one(Series, 1))


def purge(reception: Reception, now: float = 5000.0) -> Noted:
    """Note the purge of the first series, remove its files, note that they are gone."""
    with reception.database.write() as session:
        noted = purges.note(session, session.get_one(Series, 1), "older than 30 days", now)
    reception.files.remove_all(noted.files)
    with reception.database.write() as session:
        purges.finish(session, noted, now + 1)
    return noted


def test_what_arrives_waits_or_is_worked_on_is_in_progress(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        deliver(reception)
        assert found(reception).in_progress, "it arrives"
        close(reception)
        assert found(reception) == Holdings(False, 1000.0, False, False, 0, 0)
        with reception.database.write() as session:
            session.execute(update(Outbox).values(state=OutboxState.WITHHELD.value))
        assert found(reception).in_progress, "it waits for a person"


def test_what_waits_for_other_series_or_was_just_released_is_in_progress(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        deliver(reception)
        close(reception)
        with reception.database.write() as session:
            (job,) = record_plan(session, 1, 1, {}, [({}, [1])], 1.0)
            job.state, job.review = "withheld", "released"
        assert found(reception).in_progress, "it is about to be derived from"
        with reception.database.write() as session:
            session.execute(update(Job).values(state="derived"))
            session.add(
                StudyNeed(
                    study_row=1, rule="both", needs=["thin", "thick"], met={}, content=None, on_deadline="hold",
                    state="held", due_at=None, job_row=None,
                )
            )  # fmt: skip
        assert found(reception).in_progress, "a person is to say how it goes on"
        with reception.database.write() as session:
            session.execute(update(StudyNeed).values(state="fired"))
        assert not found(reception).in_progress


def test_what_is_not_proven_or_goes_nowhere_is_counted(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        reception.receive(ct_header(2))
        close(reception)
        deliver(reception, confirmed_at=None)
        assert (found(reception).unconfirmed, found(reception).unrouted) == (2, 0)
    with receiving(tmp_path / "none", routing(RuleSpec("mr", {"Modality": "MR"}, send=("pacs",)))) as reception:
        reception.receive(ct_header(1))
        close(reception)
        assert (found(reception).unconfirmed, found(reception).unrouted) == (0, 1)


def test_one_destination_without_proof_is_enough(tmp_path: Path) -> None:
    both = RuleSpec("both", {"Modality": "*"}, send=("pacs", "archive"))
    with receiving(tmp_path, routing(both)) as reception:
        reception.receive(ct_header(1))
        close(reception)
        deliver(reception)
        with reception.database.write() as session:
            session.execute(update(Outbox).where(Outbox.destination == "archive").values(confirmed_at=None))
        assert found(reception).unconfirmed == 1


def test_what_failed_to_arrive_is_not_tried_again_without_its_file(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        close(reception)
        with reception.database.write() as session:
            session.execute(update(Outbox).values(state=OutboxState.FAILED.value))
        assert found(reception).unconfirmed == 1
        purge(reception)
        assert [(row.state, row.reason) for row in reception.rows(Outbox)] == [("cancelled", purges.DELETED)]


def test_a_purge_leaves_rows_and_no_files(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        for number in (1, 2):
            reception.receive(ct_header(number))
        close(reception)
        deliver(reception)
        noted = purge(reception)
        assert len(noted.files) == 2
        assert list((tmp_path / "objects").rglob("*.dcm")) == []
        assert len(reception.rows(Instance)) == 2
        (row,) = reception.rows(Purge)
        assert (row.instances, row.size_bytes, row.at, row.removed_at) == (2, noted.size_bytes, 5000.0, 5001.0)
        with reception.database.read() as session:
            assert purges.is_purged(session, 1)
            assert purges.purged_instances(session, 1) == 2
            assert purges.candidates(session, 0, 9000.0, 10) == []


def test_a_purge_that_was_only_noted_is_found_again(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        close(reception)
        with reception.database.write() as session:
            noted = purges.note(session, session.get_one(Series, 1), "old", 5000.0)
        with reception.database.read() as session:
            assert purges.unfinished(session, 10) == [noted]
        with reception.database.write() as session:
            purges.finish(session, noted, 5001.0)
        with reception.database.read() as session:
            assert purges.unfinished(session, 10) == []


def test_the_very_same_instance_after_a_purge_is_stored_and_sent_again(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        close(reception)
        deliver(reception)
        purge(reception)
        reception.receive(ct_header(1), at=6000.0)
        old, new = reception.versions(ct_header(1))
        assert (old.active, new.active, new.version) == (False, True, 1)
        assert reception.files.path(new.file).exists()
        assert [state for _, _, state in reception.outbox()] == ["sent", "ready"]
        with reception.database.read() as session:
            assert not purges.is_purged(session, 1)
            assert [series.id for series in purges.candidates(session, 0, 9000.0, 10)] == [1]
        reception.receive(ct_header(1), at=6001.0)
        assert len(reception.versions(ct_header(1))) == 2, "and then the same bytes change nothing again"


def test_an_instance_that_comes_between_the_note_and_the_removal_is_not_lost(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        close(reception)
        deliver(reception)
        with reception.database.write() as session:
            noted = purges.note(session, session.get_one(Series, 1), "old", 5000.0)
        reception.receive(ct_header(1), at=5000.5)
        reception.files.remove_all(noted.files)
        new = reception.versions(ct_header(1))[-1]
        assert new.active
        assert reception.files.path(new.file).exists()


def test_a_second_purge_takes_what_came_since(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        close(reception)
        deliver(reception)
        first = purge(reception)
        reception.receive(ct_header(2), at=6000.0)
        close(reception)
        deliver(reception)
        second = purge(reception, now=9000.0)
        (row,) = reception.rows(Purge)
        assert (first.through, second.through, row.through, row.instances) == (1, 2, 2, 1)
        assert list((tmp_path / "objects").rglob("*.dcm")) == []


def test_a_series_without_instances_is_no_candidate(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header(1))
        with reception.database.write() as session:
            identity = Identity("P1", "", "1.2.3", "A1", "1.2.3.99", "CT")
            series_of(session, identity, Origin.RECEIVED, 1000.0)
            assert [one.id for one in purges.candidates(session, 0, 9000.0, 10)] == [1]


def test_candidates_are_looked_through_in_order(tmp_path: Path) -> None:
    with receiving(tmp_path, routing(TO_PACS, policies={"pacs": DestinationPolicy()})) as reception:
        for number in range(1, 6):
            reception.receive(ct_header(number, SeriesInstanceUID=f"1.2.3.{number}"), at=1000.0 + number)
        with reception.database.read() as session:
            assert [one.id for one in purges.candidates(session, 0, 1004.5, 3)] == [1, 2, 3]
            assert [one.id for one in purges.candidates(session, 3, 1004.5, 3)] == [4]
        assert reception.rows(Job) == []
