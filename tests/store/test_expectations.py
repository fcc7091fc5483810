"""What is said of a series before and while it arrives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.core.types import Expectation
from dicomnode.store.index.expectations import expect, expectations_of
from dicomnode.store.schema import ExpectationRow, Series
from tests.store.receiving import Reception, ct_header, receiving

pytestmark = pytest.mark.both_databases

BY_FIND = Expectation("1.2.3.4", "1.2.3", "C-FIND", "pacs", 5)


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    with receiving(tmp_path) as reception:
        yield reception


def say(reception: Reception, *said: Expectation, at: float = 1002.0) -> None:
    with reception.database.write() as session:
        for expectation in said:
            expect(session, expectation, at)


def test_what_the_same_source_says_later_takes_the_place_of_what_it_said(reception: Reception) -> None:
    say(reception, BY_FIND)
    say(reception, Expectation("1.2.3.4", "1.2.3", "C-FIND", "pacs", 7), at=1003.0)
    say(reception, Expectation("1.2.3.4", "1.2.3", "IAN", "pacs", None, ("1.2.3.4.1", "1.2.3.4.2")), at=1004.0)
    with reception.database.read() as session:
        said = expectations_of(session, "1.2.3", "1.2.3.4")
    assert [(row.source, row.instances, row.sop_instance_uids, row.at) for row in said] == [
        ("C-FIND", 7, None, 1003.0),
        ("IAN", None, ["1.2.3.4.1", "1.2.3.4.2"], 1004.0),
    ]


def test_of_several_peers_each_has_its_say(reception: Reception) -> None:
    say(reception, BY_FIND, Expectation("1.2.3.4", "1.2.3", "C-FIND", "archive", 6))
    assert len(reception.rows(ExpectationRow)) == 2


def test_a_series_that_arrives_is_judged_at_once(reception: Reception) -> None:
    reception.receive(ct_header(1), at=1001.0)
    reception.receive(ct_header(2, StudyInstanceUID="1.2.9"), at=1001.0)
    say(reception, BY_FIND, at=1001.5)
    due = {series.study_row: series.due_at for series in reception.rows(Series)}
    assert due[1] == 1001.5
    assert due[2] is not None
    assert due[2] > 1001.5, "the same series UID in another study"


def test_a_judgement_that_is_overdue_stays_so(reception: Reception) -> None:
    reception.receive(ct_header(1), at=1001.0)
    (before,) = reception.rows(Series)
    say(reception, BY_FIND, at=9e9)
    (after,) = reception.rows(Series)
    assert after.due_at == before.due_at


def test_it_may_be_said_before_the_first_instance(reception: Reception) -> None:
    say(reception, BY_FIND)
    reception.receive(ct_header(1))
    with reception.database.read() as session:
        assert [row.instances for row in expectations_of(session, "1.2.3", "1.2.3.4")] == [5]
        assert expectations_of(session, "1.2.9", "1.2.3.4") == []
