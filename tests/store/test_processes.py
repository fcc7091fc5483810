"""Signs of life, and whose work was taken over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from dicomnode.store.database import Database
from dicomnode.store.index import processes
from dicomnode.store.index.processes import Sign
from dicomnode.store.schema import Process
from tests.store.receiving import open_database

pytestmark = pytest.mark.both_databases

FLOW = Sign("flow", "one", "home 1", 7, "one:flow:a", ("route", "derive"), "1.0")


@pytest.fixture(name="database")
def _database_of_test(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path) as database:
        yield database


def beat(database: Database, sign: Sign) -> bool:
    with database.write(alone=False) as session:
        return processes.beat(session, sign)


def rows(database: Database) -> dict[tuple[str, str], Process]:
    with database.read() as session:
        return {(row.host, row.role): row for row in session.query(Process)}


def age(database: Database, executor_id: str, seconds: float) -> None:
    with database.write() as session:
        statement = update(Process).where(Process.executor_id == executor_id)
        session.execute(statement.values(beat_at=Process.beat_at - seconds))


def ages(database: Database) -> dict[str, float]:
    with database.read() as session:
        return dict(processes.ages(session))


def test_the_databases_clock_tells_the_time(database: Database) -> None:
    """The servers of tests run on this machine."""
    before = time.time()
    with database.read() as session:
        told = processes.clock(session)
        assert before - 0.01 <= told <= time.time() + 0.01  # SQLite's has milliseconds
        assert processes.clock(session) >= told


def test_a_sign_of_life_tells_who_it_is_and_when(database: Database) -> None:
    assert beat(database, FLOW)
    row = rows(database)["one", "flow"]
    assert (row.home, row.pid, row.executor_id, row.roles, row.version) == (
        "home 1", 7, "one:flow:a", ["route", "derive"], "1.0",
    )  # fmt: skip
    assert row.started_at == row.beat_at
    assert beat(database, FLOW)
    again = rows(database)["one", "flow"]
    assert again.started_at == row.started_at
    assert again.beat_at >= row.beat_at
    assert 0 <= ages(database)["one:flow:a"] < 60


def test_the_next_life_takes_the_place_of_the_last(database: Database) -> None:
    beat(database, FLOW)
    beat(database, replace(FLOW, executor_id="one:flow:b", version="2.0"))
    assert ages(database).keys() == {"one:flow:b"}
    assert rows(database)["one", "flow"].version == "2.0"


def test_who_ends_in_good_order_is_forgotten(database: Database) -> None:
    beat(database, FLOW)
    with database.write() as session:
        processes.leave(session, FLOW.executor_id)
    assert ages(database) == {}


def test_a_machine_forgets_what_it_runs_no_more(database: Database) -> None:
    for host in ("one", "two"):
        for role in ("flow", "receive-2"):
            beat(database, replace(FLOW, host=host, role=role, executor_id=f"{host}:{role}"))
    with database.write() as session:
        processes.forget_former(session, "one", ["flow"], alone=False)
    assert rows(database).keys() == {("one", "flow"), ("two", "flow"), ("two", "receive-2")}
    with database.write() as session:
        processes.forget_former(session, "another name", ["flow"], alone=True)
    assert rows(database) == {}


def test_a_namesake_is_one_with_another_data_folder_that_lives(database: Database) -> None:
    beat(database, FLOW)

    def has_namesake(host: str, home: str) -> bool:
        with database.read() as session:
            return processes.has_namesake(session, host, home, 30.0)

    assert has_namesake("one", "home 2")
    assert not has_namesake("one", "home 1"), "that is our own former life"
    assert not has_namesake("two", "home 2")
    age(database, FLOW.executor_id, 31.0)
    assert not has_namesake("one", "home 2"), "it is dead, and its name free"


def test_a_take_over_is_recorded_once_and_tells_the_one_that_was_dead(database: Database) -> None:
    beat(database, FLOW)
    with database.write() as session:
        (first,) = processes.record_takeover(session, [FLOW.executor_id], "two")
        assert (first.host, first.by_host) == ("one", "two")
    with database.write() as session:
        (other,) = processes.record_takeover(session, [FLOW.executor_id, "three:flow:x"], "four")
        assert other.host == "three", "one that left no sign is told by its name"
    with database.read() as session:
        assert [each.host for each in processes.takeovers(session, 9)] == ["three", "one"]
        assert processes.condemned(session, [FLOW.executor_id, "nobody"]) == {FLOW.executor_id}
    assert not beat(database, FLOW), "it learns so at its next sign"
    assert beat(database, replace(FLOW, executor_id="one:flow:next"))


def test_take_overs_are_not_remembered_for_ever(database: Database) -> None:
    for start in range(0, 600, 150):
        with database.write() as session:
            processes.record_takeover(session, [f"x:{number}" for number in range(start, start + 150)], "two")
    with database.read() as session:
        assert len(processes.takeovers(session, 9999)) == 200


def test_one_takes_over_at_a_time(database: Database) -> None:
    with database.read() as session:
        assert processes.may_take_over(session)
        with database.read() as other:
            assert processes.may_take_over(other) is not database.is_shared
    with database.read() as session:
        assert processes.may_take_over(session)
