"""What is an outage of the database, and that it is told once at each of its ends."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import psycopg.errors
import pytest
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicomnode.store import reach
from dicomnode.store.reach import Reach, enduring, is_out_of_reach


def lite(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("anything")
    error.sqlite_errorcode = code
    return error


OUT_OF_REACH: list[Exception] = [
    psycopg.OperationalError("connection refused"),
    psycopg.InterfaceError("the connection is closed"),
    psycopg.errors.AdminShutdown(),
    psycopg.errors.CannotConnectNow(),
    psycopg.errors.TooManyConnections(),
    psycopg.errors.DiskFull(),
    lite(sqlite3.SQLITE_BUSY),
    lite(sqlite3.SQLITE_FULL),
    lite(sqlite3.SQLITE_IOERR_FSYNC),
]
IN_REACH: list[Exception] = [
    psycopg.errors.UniqueViolation(),
    psycopg.errors.UndefinedTable(),
    psycopg.errors.DeadlockDetected(),
    psycopg.DataError("too long"),
    lite(sqlite3.SQLITE_ERROR),
    sqlite3.IntegrityError("UNIQUE constraint failed"),
    ValueError("of our own"),
]


def wrapped(cause: Exception) -> Exception:
    kind = {"IntegrityError": IntegrityError, "UniqueViolation": IntegrityError}.get(type(cause).__name__)
    kind = kind or (
        OperationalError if isinstance(cause, sqlite3.Error | psycopg.OperationalError) else ProgrammingError
    )
    return kind("SELECT 1", {}, cause)


@pytest.mark.parametrize("error", OUT_OF_REACH, ids=repr)
def test_what_is_an_outage(error: Exception) -> None:
    assert is_out_of_reach(error)
    assert is_out_of_reach(wrapped(error))


@pytest.mark.parametrize("error", IN_REACH, ids=repr)
def test_what_is_none(error: Exception) -> None:
    assert not is_out_of_reach(error)
    assert not is_out_of_reach(wrapped(error))


def test_a_pool_whose_connections_all_wait_is_an_outage() -> None:
    assert is_out_of_reach(PoolTimeoutError())


def test_a_table_that_is_not_there_is_a_fault_of_ours(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "empty")) as database, pytest.raises(sqlite3.OperationalError) as caught:
        database.execute("SELECT * FROM series")
    assert not is_out_of_reach(caught.value)


@pytest.fixture(name="told")
def _told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []

    def note(name: str, **_: Any) -> None:
        told.append(name)

    monkeypatch.setattr(reach, "event", note)
    return told


def use(reach: Reach, error: Exception | None) -> None:
    with enduring(), reach.watched():
        if error is not None:
            raise error


def test_an_outage_is_told_once_at_its_start_and_at_its_end(told: list[str]) -> None:
    watched = Reach()
    use(watched, None)
    assert told == []
    for _ in range(3):
        use(watched, OUT_OF_REACH[0])
    assert told == ["database_lost"]
    use(watched, None)
    use(watched, None)
    assert told == ["database_lost", "database_found"]
    use(watched, OUT_OF_REACH[0])
    assert told[2:] == ["database_lost"]


def test_a_use_that_began_before_the_outage_does_not_end_it(told: list[str]) -> None:
    watched = Reach()
    with watched.watched():
        use(watched, OUT_OF_REACH[0])
    assert told == ["database_lost"]
    with watched.watched():
        use(watched, OUT_OF_REACH[0])
    assert told == ["database_lost"], "nor does one that began in its middle, before it failed again"
    use(watched, None)
    assert told == ["database_lost", "database_found"]


def test_an_error_of_another_kind_says_nothing_of_the_database(told: list[str]) -> None:
    watched = Reach()
    with pytest.raises(ValueError, match="of our own"):
        use(watched, ValueError("of our own"))
    use(watched, OUT_OF_REACH[0])
    with pytest.raises(ValueError, match="of our own"):
        use(watched, ValueError("of our own"))
    assert told == ["database_lost"]
