"""Who is dead, and that what it had begun is given back once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update
from sqlalchemy.orm import Session

from dicomnode.flow import takeover
from dicomnode.flow.takeover import Cadence, Successor, dead
from dicomnode.store.database import Database
from dicomnode.store.index import processes
from dicomnode.store.index.processes import Sign
from dicomnode.store.schema import Association, Process
from tests.store.receiving import open_database

AFTER_S = 30.0


def test_who_left_no_sign_is_dead_at_once() -> None:
    assert dead(["a", "b"], {"b": 0.0}, AFTER_S, 0.0) == {"a"}


@pytest.mark.parametrize(("age_s", "is_dead"), [(0.0, False), (AFTER_S, False), (AFTER_S + 0.1, True)])
def test_who_fell_silent_is_dead_after_a_while(age_s: float, is_dead: bool) -> None:
    assert ("a" in dead(["a"], {"a": age_s}, AFTER_S, AFTER_S)) is is_dead


def test_who_has_no_work_is_nobodys_concern() -> None:
    assert dead([], {"a": 1e9}, AFTER_S, 1e9) == set()


def test_after_an_outage_everybody_gets_the_time_to_give_a_sign() -> None:
    """All are silent for as long as the database was away; the first that comes back must not condemn the others."""
    assert dead(["a", "b"], {"a": 100.0, "b": 100.0}, AFTER_S, AFTER_S - 1) == set()


@given(st.dictionaries(st.sampled_from("abcd"), st.floats(0, 100)), st.floats(0, 100))
def test_who_gave_a_sign_within_the_time_is_never_dead(ages: dict[str, float], steady_s: float) -> None:
    found = dead("abcd", ages, AFTER_S, steady_s)
    assert all(ages.get(one, 1e9) > AFTER_S for one in found)
    assert found >= set("abcd") - ages.keys()


@pytest.mark.parametrize(("dead_after_s", "beat_s"), [(2.0, 0.4), (10.0, 2.0), (30.0, 5.0), (3600.0, 5.0)])
def test_several_signs_of_life_fit_into_the_time(dead_after_s: float, beat_s: float) -> None:
    assert Cadence.of(dead_after_s) == Cadence(beat_s, dead_after_s)


@dataclass
class Pulse:
    """We, as steady as the test wants."""

    executor_id: str = "two:flow:me"
    steady_s: float = 1e9


@dataclass
class Begun:
    """Workflows by the executor that began them."""

    counts: dict[str, int]
    asked: list[list[str]] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)

    def owners(self) -> frozenset[str]:
        return frozenset(self.counts)

    def recover(self, executor_ids: Collection[str]) -> int:
        self.asked.append(sorted(executor_ids))
        return sum(self.counts.pop(each, 0) for each in executor_ids)

    def dropped(self) -> frozenset[str]:
        return frozenset(self.missing)

    def give_back(self, ids: Collection[str]) -> None:
        self.missing -= set(ids)


@pytest.fixture(name="database", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer("postgresql"))])
def _database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        with open_database(tmp_path) as database:
            yield database
        return
    new_url: Callable[[], str] = request.getfixturevalue("new_postgresql_url")
    database = Database(new_url(), "none")
    yield database
    database.close()


@pytest.fixture(name="told")
def _told(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    told: list[object] = []
    monkeypatch.setattr(takeover, "event", lambda name, **fields: told.append((name, *list(fields.values())[:1])))
    return told


def sign_in(session: Session, host: str, silent_s: float) -> str:
    executor_id = f"{host}:flow:x"
    processes.beat(session, Sign("flow", host, host, 1, executor_id, ("enhance",), "1"))
    session.execute(update(Process).where(Process.host == host).values(beat_at=processes.clock(session) - silent_s))
    return executor_id


def sign(database: Database, host: str, silent_s: float = 0.0) -> str:
    with database.write() as session:
        return sign_in(session, host, silent_s)


def successor(database: Database, begun: Begun, pulse: Pulse | None = None) -> Successor:
    return Successor(database, begun, pulse or Pulse(), "two", Cadence.of(AFTER_S))


def test_the_work_of_the_dead_is_given_back_and_that_of_the_living_is_not(
    database: Database, told: list[object]
) -> None:
    silent, lives = sign(database, "one", AFTER_S + 1), sign(database, "three", AFTER_S - 5)
    begun = Begun({silent: 2, lives: 1, "four:flow:gone": 1, Pulse.executor_id: 1})
    one = successor(database, begun)
    assert one.take_over(0.0) == 3
    assert begun.counts.keys() == {lives, Pulse.executor_id}
    assert told == [("work_taken_over", "four"), ("work_taken_over", "one")]
    assert one.take_over(0.0) == 0
    assert begun.asked == [["four:flow:gone", silent]]


def test_one_that_wakes_up_has_lost_its_work(database: Database, told: list[object]) -> None:
    silent = sign(database, "one", AFTER_S + 1)
    successor(database, Begun({silent: 1})).take_over(0.0)
    with database.write() as session:
        assert not processes.beat(session, Sign("flow", "one", "one", 1, silent, (), "1"))
    begun = Begun({silent: 1})
    assert successor(database, begun, Pulse(steady_s=0.0)).take_over(0.0) == 1, "what it began after that, too"
    assert len(told) == 1


def test_a_judge_that_was_away_itself_waits(database: Database, told: list[object]) -> None:
    begun = Begun({sign(database, "one", AFTER_S + 1): 1})
    assert successor(database, begun, Pulse(steady_s=AFTER_S - 1)).take_over(0.0) == 0
    assert begun.counts
    assert told == []


def test_what_we_let_fall_ourselves_is_given_back_once_it_is_surely_lost(
    database: Database, told: list[object]
) -> None:
    begun = Begun({})
    one = successor(database, begun)
    begun.missing = {"enhance:1:1", "enhance:2:1"}
    assert one.take_over(100.0) == 0
    begun.missing = {"enhance:1:1", "enhance:3:1"}  # the second began
    assert one.take_over(100.0 + AFTER_S) == 0
    assert one.take_over(101.0 + AFTER_S) == 1
    assert told == [("work_resumed", "enhance:1:1")]
    assert begun.missing == {"enhance:3:1"}


def test_what_was_open_at_a_receiver_that_died_is_broken_off(database: Database, told: list[object]) -> None:
    """On one machine a receiver does so itself, at its next start."""
    with database.write() as session:
        for host, silent_s in (("one", AFTER_S + 1), ("three", 1.0)):
            row = {"peer": "ct", "calling_ae": "CT", "called_ae": "NODE", "source_address": "", "opened_at": 1.0}
            session.add(Association(id=len(host), owner=f"{host}/flow", **row))
            session.flush()
            sign_in(session, host, silent_s)
    successor(database, Begun({}), Pulse(steady_s=0.0)).take_over(9.0)
    successor(database, Begun({})).take_over(9.0)
    with database.read() as session:
        ended = {row.owner: (row.ended_at, row.ended) for row in session.query(Association)}
    if database.is_shared:
        assert ended == {"one/flow": (9.0, "lost"), "three/flow": (None, None)}
        assert told == [("reception_lost", "one")]
    else:
        assert set(ended.values()) == {(None, None)}
