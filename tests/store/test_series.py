"""When a series is due, what speaks for its completeness, and closing it while instances may still come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.core.routing import DestinationPolicy
from dicomnode.core.rules import RuleSpec
from dicomnode.core.types import AssociationEnd, Completeness, CompletenessPolicy, Verdict
from dicomnode.store.index import jobs
from dicomnode.store.index import series as series_index
from dicomnode.store.schema import Outbox, Series
from tests.store.receiving import SCANNER, Reception, ct_header, receiving, routing

WAIT = Verdict(Completeness.WAIT, 1500.0, ("an association is open",), 0.0)
COMPLETE = Verdict(Completeness.COMPLETE, None, ("all are here",), 1.0)

pytestmark = pytest.mark.both_databases


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    rule = RuleSpec("hold", {"Modality": "CT"}, send=("pacs",))
    with receiving(tmp_path, routing(rule, policies={"pacs": DestinationPolicy(True, "NODE")})) as reception:
        yield reception


def only_series(reception: Reception) -> Series:
    (series,) = reception.rows(Series)
    return series


def close(reception: Reception, series: Series, now: float = 2000.0) -> int | None:
    with reception.database.write() as session:
        return series_index.close(session, series, COMPLETE, now)


def test_a_series_is_due_once_it_has_been_quiet(reception: Reception) -> None:
    reception.receive(ct_header(1), at=1000.0)
    reception.receive(ct_header(2), at=1003.0)
    with reception.database.read() as session:
        assert series_index.due_series(session, 1003.9) == []
        assert [series.id for series in series_index.due_series(session, 1004.0)] == [only_series(reception).id]


def test_the_longest_due_comes_first(reception: Reception) -> None:
    for number, at in ((1, 1002.0), (2, 1000.0), (3, 1001.0)):
        reception.receive(ct_header(number, SeriesInstanceUID=f"1.2.3.{number}"), at=at)
    with reception.database.read() as session:
        due = series_index.due_series(session, 9000.0, limit=2)
    assert [series.series_instance_uid for series in due] == ["1.2.3.2", "1.2.3.3"]


def test_evidence_is_what_is_known_of_the_arrival(reception: Reception) -> None:
    opened, released = (reception.intake.association_opened(SCANNER) for _ in range(2))
    reception.receive(ct_header(1, NumberOfSeriesRelatedInstances=5), at=1000.0, association=opened)
    reception.receive(ct_header(3), at=1002.0, association=released)
    reception.receive(ct_header(3, PatientName="Doe^John"), at=1003.0, association=released)
    reception.intake.association_ended(released, AssociationEnd.RELEASED)
    with reception.database.read() as session:
        evidence = series_index.evidence(session, only_series(reception))
    assert (evidence.instances, evidence.first_at, evidence.last_at) == (2, 1000.0, 1003.0)
    assert (evidence.open_associations, evidence.ended) == (1, (AssociationEnd.RELEASED,))
    assert (evidence.expected, evidence.expected_source) == (5, "NumberOfSeriesRelatedInstances")
    assert evidence.positions_mm == ((2.0, 6.0),)


def test_positions_are_grouped_by_orientation(reception: Reception) -> None:
    sagittal = [0, 1, 0, 0, 0, -1]
    reception.receive(ct_header(2))
    reception.receive(ct_header(1))
    reception.receive(ct_header(3, ImageOrientationPatient=sagittal, ImagePositionPatient=[-7, 0, 0]))
    reception.receive(ct_header(4, ImageOrientationPatient=[1, 0.0001, 0, 0, 1, 0]))
    reception.receive(ct_header(5, ImagePositionPatient=None))
    reception.receive(ct_header(6, ImagePositionPatient=[0, 0, "1e308"], ImageOrientationPatient=[1e8, 0, 0, 0, 1, 0]))
    with reception.database.read() as session:
        positions = series_index.evidence(session, only_series(reception)).positions_mm
    assert sorted(map(len, positions)) == [1, 3], "what cannot be placed is in no group"
    assert (2.0, 4.0, 8.0) in positions
    assert (7.0,) in positions


def test_closing_counts_a_generation_and_lets_go_what_was_held(reception: Reception) -> None:
    reception.receive(ct_header())
    assert [state for _, _, state in reception.outbox()] == ["held"]
    assert close(reception, only_series(reception)) == 1
    series = only_series(reception)
    assert (series.state, series.generation, series.due_at, series.closed_at) == ("closed", 1, None, 2000.0)
    assert series.verdict == {"state": "complete", "until": None, "reasons": ["all are here"], "confidence": 1.0}
    assert [state for _, _, state in reception.outbox()] == ["ready"]
    assert reception.rows(Outbox)[0].created_at == 2000.0, "no patience of the destination's was used up meanwhile"


def test_who_closes_a_series_while_it_is_judged_is_not_overruled(reception: Reception) -> None:
    reception.receive(ct_header())
    judged = only_series(reception)
    with reception.database.write() as session:
        assert series_index.ask_to_close(session, judged, "anna", 1900.0)
        assert not series_index.hold(session, judged, COMPLETE)
    assert (only_series(reception).state, only_series(reception).due_at) == ("receiving", 1900.0)


def test_an_instance_between_judging_and_closing_keeps_it_open(reception: Reception) -> None:
    reception.receive(ct_header(1), at=1000.0)
    judged = only_series(reception)
    reception.receive(ct_header(2), at=1001.0)
    assert close(reception, judged) is None
    assert only_series(reception).state == "receiving"
    assert {state for _, _, state in reception.outbox()} == {"held"}


def test_a_series_is_closed_once(reception: Reception) -> None:
    reception.receive(ct_header())
    judged = only_series(reception)
    assert close(reception, judged) == 1
    assert close(reception, judged) is None
    assert only_series(reception).generation == 1


def unplanned(reception: Reception) -> list[int]:
    with reception.database.read() as session:
        return [series.generation for series in jobs.unplanned_series(session, closed_before=9e9)]


def plan(reception: Reception, generation: int) -> None:
    with reception.database.write() as session:
        jobs.record_plan(session, 1, generation, {}, [], 2000.0)


def test_a_series_is_unplanned_until_its_last_closing_has_a_plan(reception: Reception) -> None:
    reception.receive(ct_header(1), at=1000.0)
    assert unplanned(reception) == []
    close(reception, only_series(reception))
    assert unplanned(reception) == [1]
    plan(reception, 1)
    assert unplanned(reception) == []
    reception.receive(ct_header(2), at=5000.0)
    assert unplanned(reception) == [], "it is not closed"
    close(reception, only_series(reception))
    assert unplanned(reception) == [2]
    plan(reception, 2)
    assert unplanned(reception) == []


def test_a_plan_that_comes_after_the_next_closing_is_none_of_it(reception: Reception) -> None:
    reception.receive(ct_header(1), at=1000.0)
    close(reception, only_series(reception))
    reception.receive(ct_header(2), at=5000.0)
    close(reception, only_series(reception))
    plan(reception, 1)
    assert unplanned(reception) == [2]
    plan(reception, 2)
    plan(reception, 1)
    assert unplanned(reception) == []


def test_a_late_slice_opens_it_again_and_the_generation_grows(reception: Reception) -> None:
    reception.receive(ct_header(1), at=1000.0)
    close(reception, only_series(reception))
    reception.receive(ct_header(2), at=5000.0)
    series = only_series(reception)
    assert (series.state, series.generation, series.due_at) == ("receiving", 1, 5001.0)
    assert close(reception, series) == 2
    with reception.database.read() as session:
        assert len(series_index.active_instances(session, series.id)) == 2


def test_a_judgement_is_postponed_unless_an_instance_came_in_between(reception: Reception) -> None:
    reception.receive(ct_header(1), at=1000.0)
    judged = only_series(reception)
    with reception.database.write() as session:
        series_index.postpone(session, judged, WAIT, 1500.0)
    assert only_series(reception).due_at == 1500.0
    reception.receive(ct_header(2), at=1010.0)
    with reception.database.write() as session:
        series_index.postpone(session, judged, WAIT, 1600.0)
    assert only_series(reception).due_at == 1011.0


def test_of_several_limits_the_tightest_holds_until_it_is_closed(tmp_path: Path) -> None:
    tight = RuleSpec("tight", {"InstanceNumber": "1"}, send=("pacs",), quiet_s=2.0, deadline_s=30.0)
    loose = RuleSpec("loose", {"Modality": "CT"}, send=("pacs",))
    with receiving(tmp_path, routing(tight, loose)) as reception:
        reception.receive(ct_header(1, InstanceNumber=1))
        reception.receive(ct_header(2, InstanceNumber=2))
        assert series_index.policy(only_series(reception)) == CompletenessPolicy(2.0, 5.0, 30.0, quiet_max_s=2.0)
        close(reception, only_series(reception))
        reception.receive(ct_header(3, InstanceNumber=3))
        assert series_index.policy(only_series(reception)) == CompletenessPolicy(60.0, 5.0, 600.0)


def test_the_same_series_uid_in_two_studies_is_two_series(reception: Reception) -> None:
    reception.receive(ct_header(1))
    reception.receive(ct_header(2, StudyInstanceUID="1.2.9"))
    assert len(reception.rows(Series)) == 2


def test_a_slow_clock_moves_no_time_backwards(reception: Reception) -> None:
    reception.receive(ct_header(1), at=1000.0)
    reception.receive(ct_header(2), replace(SCANNER, received_at=990.0))
    assert only_series(reception).last_at == 1000.0
