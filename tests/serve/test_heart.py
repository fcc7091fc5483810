"""Signs of life of this process: steady, failing, stale, or of one whose work was given away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from dicomnode.flow.takeover import Cadence
from dicomnode.serve import heart as heart_module
from dicomnode.serve.heart import Heart
from dicomnode.store.claims import Claim
from dicomnode.store.database import Database
from dicomnode.store.index import processes
from dicomnode.store.index.processes import Sign
from dicomnode.store.schema import Process
from tests.store.receiving import open_database

SIGN = Sign("flow", "one", "home", 1, "one:flow:a", ("route",), "1")
CADENCE = Cadence(beat_s=5.0, dead_after_s=30.0)


class Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(heart_module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture(name="database")
def _database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path) as database:
        yield database


@pytest.fixture(name="told")
def _told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []

    def note(name: str, **_: Any) -> None:
        told.append(name)

    monkeypatch.setattr("dicomnode.telemetry.event", note)
    return told


def broken(**_: Any) -> AbstractContextManager[Session]:
    @contextmanager
    def failing() -> Iterator[Session]:
        raise OperationalError("UPDATE", {}, Exception("gone"))
        yield

    return failing()


def beating(database: Database, *, shared: bool = True) -> Heart:
    """A heart of a database that other machines may use, too."""
    claim = Claim(database, "flow of one", "")
    database.is_shared = shared
    heart = Heart(database, SIGN, claim, CADENCE)
    database.is_shared = False  # for SQLite's own sake
    return heart


def signs(database: Database) -> list[str]:
    with database.read() as session:
        return [row.executor_id for row in session.query(Process)]


def test_it_beats_until_it_takes_leave(database: Database) -> None:
    heart = Heart(database, SIGN, Claim(database, "flow of one", ""), Cadence(0.01, 30.0))
    heart.start()
    assert heart.is_alive
    assert not heart.is_lost
    assert signs(database) == [SIGN.executor_id]
    heart.stop()
    assert not heart.is_alive
    assert signs(database) == []


def test_steady_is_who_beat_without_a_gap(database: Database, clock: Clock) -> None:
    heart = beating(database)
    assert heart.steady_s == 0.0
    for _ in range(9):
        heart.beat()
        clock.now += 5.0
    assert heart.steady_s == 45.0
    clock.now += 20.0
    assert heart.steady_s == 0.0, "it is silent itself"
    heart.beat()
    clock.now += 5.0
    assert heart.steady_s == 5.0


def test_a_sign_that_cannot_be_given_is_told_once(
    database: Database, clock: Clock, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heart = beating(database)
    with monkeypatch.context() as patch:
        patch.setattr(database, "write", broken)
        assert [heart.beat() for _ in range(3)] == [False] * 3
    assert told == ["sign_of_life_failed"]
    assert heart.beat()
    with monkeypatch.context() as patch:
        patch.setattr(database, "write", broken)
        heart.beat()
    assert told == ["sign_of_life_failed"] * 2
    clock.now += 1.0
    assert not heart.is_lost


def test_no_work_is_begun_while_its_own_sign_is_stale(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    heart = beating(database)
    heart.beat()
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 3:
            heart.beat()
        return False

    monkeypatch.setattr(heart._stopping, "wait", wait)
    clock.now += 30.0
    heart.await_sign()
    assert waits == []
    clock.now += 0.1
    heart.await_sign()
    assert len(waits) == 3, "it went on with the next sign"


def test_on_one_machine_work_goes_on_without_signs(database: Database, clock: Clock) -> None:
    """A full disk must not stop what can be done; nobody else could take over."""
    heart = beating(database, shared=False)
    clock.now += 1e6
    heart.await_sign()


def test_it_is_lost_where_its_work_was_given_away(database: Database, clock: Clock) -> None:
    heart = beating(database)
    heart.beat()
    with database.write() as session:
        processes.record_takeover(session, [SIGN.executor_id], "two")
    clock.now += 100.0
    heart.beat()
    assert heart.is_lost
    clock.now += 100.0
    heart.await_sign()


def test_it_is_lost_where_another_has_its_place(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    heart = beating(database)
    monkeypatch.setattr(heart._claim, "holds", lambda: False)
    assert heart.beat()
    assert heart.is_lost


def test_without_a_first_sign_no_work_is_begun_on_several_machines(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    heart = beating(database)
    database.is_shared = True
    tries: list[float] = []

    def wait(seconds: float) -> bool:
        tries.append(seconds)
        if len(tries) == 3:
            monkeypatch.undo()
            database.is_shared = False
        return False

    monkeypatch.setattr(database, "write", broken)
    monkeypatch.setattr(heart._stopping, "wait", wait)
    heart.start()
    assert len(tries) == 3
    heart.stop()
