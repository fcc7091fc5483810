"""The row of a rule that needs several series of a study, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.core.rules import Fulfilled, PlannedJob
from dicomnode.store.index import needs
from dicomnode.store.schema import Job, NeedState, Series, StudyNeed
from tests.store.receiving import Reception, ct_header, receiving

pytestmark = pytest.mark.both_databases

JOB = PlannedJob("stack", ("both",), ("ct-nlm",), {}, ())


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    with receiving(tmp_path) as reception:
        for number in (1, 2):
            reception.receive(ct_header(number, SeriesInstanceUID=f"1.2.3.{number}"))
        yield reception


def note(reception: Reception, number: int, now: float, *met: str) -> list[int]:
    """A closing of a series that fulfils these needs; the jobs that follow."""
    series = reception.rows(Series)[number - 1]
    closing = needs.Closing(series, 1, {"stack": [number]})
    found = Fulfilled("both", ("first", "second"), dict.fromkeys(met, "stack"), JOB)
    with reception.database.write() as session:
        needs.note_closing(session, closing, [found], now)
        return [job.id for job in needs.fire(session, series.study_row, now)]


def row(reception: Reception) -> StudyNeed:
    (found,) = reception.rows(StudyNeed)
    return found


def test_its_due_time_moves_with_each_closing_that_does_something(reception: Reception) -> None:
    assert note(reception, 1, 1000.0, "first") == []
    assert row(reception).due_at == 1600.0
    assert note(reception, 1, 1100.0, "first") == []
    assert row(reception).due_at == 1600.0, "the same closing once more"
    (job,) = note(reception, 2, 1500.0, "second")
    assert (row(reception).state, row(reception).due_at, row(reception).job_row) == ("fired", None, job)
    assert [made.instance_rows for made in reception.rows(Job)] == [[1]]
    assert note(reception, 2, 1500.0, "second") == [job], "not begun: handed on again"


def test_of_two_that_judge_it_one_ends_the_waiting(reception: Reception) -> None:
    note(reception, 1, 1000.0, "first")
    with reception.database.read() as session:
        assert needs.due_needs(session, 1599.0) == []
        (due,) = needs.due_needs(session, 1600.0)
    states = []
    for _ in range(2):
        with reception.database.write() as session:
            states.append(needs.end_waiting(session, due, 1600.0))
    assert states == [NeedState.DUE, None]


def test_a_routing_that_was_lost_is_asked_for_again_until_it_is_known_to_fail(reception: Reception) -> None:
    note(reception, 1, 1000.0, "first")
    for now in (1600.0, 2200.0):
        with reception.database.write() as session:
            (due,) = needs.due_needs(session, now)
            assert needs.due_needs(session, now - 1) == []
            assert needs.end_waiting(session, due, now) == NeedState.DUE
    with reception.database.write() as session:
        needs.give_up(session, 1)
        assert needs.due_needs(session, 9e9) == []
    assert row(reception).state == "ended"


def test_what_waits_is_let_go_on_by_a_person(reception: Reception) -> None:
    note(reception, 2, 1000.0, "second")
    with reception.database.write() as session:
        assert [one.rule for one in needs.go_on(session, row(reception).study_row, 1001.0)] == ["both"]
    with reception.database.write() as session:
        (due,) = needs.due_needs(session, 1001.0)
        assert needs.end_waiting(session, due, 1001.0) == NeedState.ENDED, "its input is not there"
        assert needs.go_on(session, due.study_row, 1002.0) == []
