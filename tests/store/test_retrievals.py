"""Retrievals in the index: one at a time of each peer, taken over when a lease runs out, and counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.core.retrieving import RetrievalState, SeriesAtPeer, count
from dicomnode.store.database import Database
from dicomnode.store.index import purges, retrievals
from dicomnode.store.index.retrievals import Request
from dicomnode.store.schema import Retrieval, Series
from tests.store.receiving import Reception, ct_header, receiving

pytestmark = pytest.mark.both_databases
NOW = 1000.0


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    with receiving(tmp_path) as reception:
        yield reception


@pytest.fixture(name="database")
def _database_of(reception: Reception) -> Database:
    return reception.database


def ask(database: Database, peer: str, at: float = NOW, series: tuple[str, ...] = ()) -> int:
    with database.write() as session:
        wanted = Request(peer, "1.2.3", series_instance_uids=series, requested_by="anna")
        return retrievals.request(session, wanted, at).id


def take(database: Database, owner: str, now: float) -> int | None:
    with database.write() as session:
        row = retrievals.lease_next(session, owner, now, now + 60)
        return None if row is None else row.id


def row_of(database: Database, row: int) -> Retrieval:
    with database.read() as session:
        return session.get_one(Retrieval, row)


def test_one_at_a_time_of_each_peer_the_oldest_first(database: Database) -> None:
    first, second, other = ask(database, "pacs"), ask(database, "pacs", NOW + 1), ask(database, "vna", NOW + 2)
    assert take(database, "a", NOW - 1) is None
    assert [take(database, owner, NOW + 3) for owner in "abc"] == [first, other, None]
    with database.write() as session:
        assert retrievals.finish(session, first, "a", (RetrievalState.COMPLETE, "all", ""), NOW + 4)
    assert take(database, "b", NOW + 5) == second


def test_a_lease_that_runs_out_is_taken_over_and_its_former_owner_has_no_say(database: Database) -> None:
    row = ask(database, "pacs")
    assert take(database, "dead", NOW) == row
    with database.write() as session:
        assert retrievals.renew(session, "dead", [row, 99], NOW + 100) == 1
    assert take(database, "b", NOW + 99) is None
    assert take(database, "b", NOW + 100) == row
    with database.write() as session:
        assert not retrievals.finish(session, row, "dead", (RetrievalState.FAILED, "late", ""), NOW + 101)
        assert not retrievals.postpone(session, row, "dead", ("late", ""), NOW + 500)
        retrievals.release(session, "dead")
    assert (row_of(database, row).lease_owner, row_of(database, row).attempts) == ("b", 2)


def test_what_is_released_was_not_tried_and_what_is_postponed_was(database: Database) -> None:
    row = ask(database, "pacs")
    assert take(database, "a", NOW) == row
    with database.write() as session:
        assert [one.id for one in retrievals.left_by(session, "a")] == [row]
        retrievals.release(session, "a")
        assert retrievals.left_by(session, "a") == []
    assert row_of(database, row).attempts == 0
    assert take(database, "a", NOW) == row
    with database.write() as session:
        assert retrievals.postpone(session, row, "a", ("no answer", "is it on?"), NOW + 30)
    assert take(database, "a", NOW + 29) is None
    assert take(database, "a", NOW + 30) == row
    assert row_of(database, row).attempts == 2
    assert row_of(database, row).reason == "no answer"


def test_what_was_listed_once_is_looked_for_to_the_end(database: Database) -> None:
    row = ask(database, "pacs")
    with database.write() as session:
        retrievals.note_listed(
            session, row, [SeriesAtPeer("1.1", "2.1", 2, ("3.1", "3.2"), frozenset(["1.9"]), "P"),
                           SeriesAtPeer("1.1", "2.2", 5)],
        )  # fmt: skip
    with database.write() as session:
        known = retrievals.note_listed(
            session, row, [SeriesAtPeer("1.1", "2.1", 2, ("3.2", "3.3"), frozenset(["1.8"]), "P"),
                           SeriesAtPeer("1.1", "2.2", 4), SeriesAtPeer("1.2", "2.3")],
        )  # fmt: skip
    assert known == (
        SeriesAtPeer("1.1", "2.1", 3, ("3.1", "3.2", "3.3"), frozenset(["1.8", "1.9"]), "P"),
        SeriesAtPeer("1.1", "2.2", 5, patient_id="P"),
        SeriesAtPeer("1.2", "2.3"),
    )


def test_the_index_is_counted_whoever_brought_it(reception: Reception) -> None:
    headers = [ct_header(number) for number in range(1, 4)]
    for header in headers:
        reception.receive(header)
    study, series = headers[0].StudyInstanceUID, headers[0].SeriesInstanceUID
    uids = tuple(header.SOPInstanceUID for header in headers)
    listed = SeriesAtPeer(study, series, 4, (*uids, "9.9"))
    row = ask(reception.database, "pacs")
    with reception.database.write() as session:
        retrievals.note_listed(session, row, [listed])
        assert retrievals.held(session, listed) == set(uids)
        assert retrievals.held(session, SeriesAtPeer(study, series, 4)) == set(uids)
        assert retrievals.held(session, SeriesAtPeer("1.9", series, 4)) == set()
        retrievals.note_counts(session, row, [count(listed, uids)])
    found = row_of(reception.database, row)
    assert (found.expected, found.held, found.missing) == (4, 3, ["9.9"])
    with reception.database.read() as session:
        ((told, instances, held),) = retrievals.of_series(session, study, series)
    assert (told.id, instances, held) == (row, 4, 3)


def test_what_retention_has_deleted_is_not_held(reception: Reception) -> None:
    for number in (1, 2):
        reception.receive(ct_header(number))
    with reception.database.write() as session:
        noted = purges.note(session, session.get_one(Series, 1), "older than 30 days", NOW)
        purges.finish(session, noted, NOW)
    reception.receive(ct_header(2, PatientSex="F"))  # came again since
    for uids in (("1.2.3.4.1", "1.2.3.4.2"), None):
        with reception.database.read() as session:
            assert retrievals.held(session, SeriesAtPeer("1.2.3", "1.2.3.4", 2, uids)) == {"1.2.3.4.2"}


def test_what_did_not_come_is_told_until_it_was_fetched_whole(database: Database) -> None:
    def end(state: RetrievalState, at: float, *series: str) -> int:
        row = ask(database, "pacs", at, series)
        assert take(database, "a", at) == row
        with database.write() as session:
            assert retrievals.finish(session, row, "a", (state, "", ""), at)
        return row

    def told(since: float) -> list[int]:
        with database.read() as session:
            return [row.id for row in retrievals.incomplete(session, since, NOW + 100, 10)]

    failed, partial = end(RetrievalState.FAILED, NOW), end(RetrievalState.PARTIAL, NOW + 1)
    assert (told(NOW), told(NOW + 1)) == ([partial, failed], [partial])
    other = end(RetrievalState.PARTIAL, NOW + 2, "1.2.9")
    end(RetrievalState.COMPLETE, NOW + 2, "1.2.8")
    assert told(NOW) == [other, partial, failed]
    end(RetrievalState.COMPLETE, NOW + 2, "1.2.9")
    assert told(NOW) == [partial, failed]
    end(RetrievalState.COMPLETE, NOW + 2)
    assert told(NOW) == []
    with database.read() as session:
        assert retrievals.ended_since(session, NOW) == {"failed": 1, "partial": 2, "complete": 3}


def test_what_the_peer_does_not_know_is_told_for_a_shorter_time(database: Database) -> None:
    listed = {"unasked": None, "unknown": (), "uncounted": (SeriesAtPeer("1.2.3", "1.2.3.4"),)}
    rows = {}
    for name, series in listed.items():
        rows[ask(database, "pacs", NOW)] = name
        row = take(database, "a", NOW)
        assert row is not None
        with database.write() as session:
            if series is not None:
                known = retrievals.note_listed(session, row, series)
                retrievals.note_counts(session, row, [count(one, ()) for one in known])
            assert retrievals.finish(session, row, "a", (RetrievalState.FAILED, "", ""), NOW)
    with database.read() as session:
        told = [rows[row.id] for row in retrievals.incomplete(session, NOW - 1, NOW, 10)]
        later = [rows[row.id] for row in retrievals.incomplete(session, NOW - 1, NOW + 1, 10)]
    assert (told, later) == (["uncounted", "unknown", "unasked"], ["uncounted", "unasked"])
