"""What closing a series teaches of its sender, and what other evidence the rows give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from dicomnode.core.quiet import Pace, Silence
from dicomnode.core.types import (
    AssociationEnd,
    Completeness,
    CompletenessPolicy,
    Expectation,
    Expected,
    LatePolicy,
    Sender,
    Verdict,
)
from dicomnode.store.index import series as series_index
from dicomnode.store.index.expectations import expect
from dicomnode.store.index.pace import pace_of, sender_key
from dicomnode.store.schema import Association, PaceRow, Series
from tests.store.receiving import SCANNER, TO_PACS, WAITS, Reception, ct_header, receiving, routing

pytestmark = pytest.mark.both_databases

COMPLETE = Verdict(Completeness.COMPLETE, None, ("all are here",), 1.0)
RELEASED, LOST = AssociationEnd.RELEASED, AssociationEnd.LOST


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    with receiving(tmp_path) as reception:
        yield reception


def series_with(reception: Reception, uid: str = "1.2.3.4") -> Series:
    (series,) = [row for row in reception.rows(Series) if row.series_instance_uid == uid]
    return series


def send(
    reception: Reception, numbers: dict[int, float], end: AssociationEnd | None, uid: str = "1.2.3.4", **sender: str
) -> None:
    """Instances by number at their times, by one association that ends right after the last."""
    times = list(numbers.values())
    opener = replace(SCANNER, received_at=times[0], **sender)  # type: ignore[arg-type]
    association = reception.intake.association_opened(opener)
    for number, at in numbers.items():
        header = ct_header(number, SeriesInstanceUID=uid, SOPInstanceUID=f"{uid}.{number}")
        reception.receive(header, opener, at=at, association=association)
    if end is not None:
        reception.intake.association_ended(association, end)
        with reception.database.write() as session:  # the intake's clock is not the tests'
            session.execute(update(Association).where(Association.id == association).values(ended_at=times[-1] + 0.1))


def close(reception: Reception, now: float, uid: str = "1.2.3.4") -> None:
    with reception.database.write() as session:
        assert series_index.close(session, series_with(reception, uid), COMPLETE, now)


def learned(reception: Reception, sender: Sender = SCANNER) -> Pace:
    with reception.database.read() as session:
        return pace_of(session, sender)


def longest_s(pace: Pace, kind: Silence) -> float:
    return pace.sketches[kind].longest_s(0.0)


def test_a_sender_is_known_by_its_name_or_by_its_title_and_address() -> None:
    assert sender_key(SCANNER) == "scanner"
    assert sender_key(replace(SCANNER, peer="")) == "SCANNER@10.0.0.1"


def test_a_closed_series_teaches_its_longest_pause(reception: Reception) -> None:
    send(reception, {1: 1000.0, 2: 1004.0, 3: 1005.0}, None)
    close(reception, 1065.0)
    pace = learned(reception)
    assert longest_s(pace, Silence.OPEN) == pytest.approx(4.0, rel=0.1)
    assert Silence.RELEASED not in pace.sketches
    assert pace.series(Silence.OPEN) == 1


def test_what_came_after_a_premature_closing_lengthens_the_wait(reception: Reception) -> None:
    send(reception, {1: 1000.0, 2: 1000.2}, RELEASED)
    close(reception, 1005.2)
    before = learned(reception).quiet(WAITS)
    send(reception, {3: 1012.0}, RELEASED)
    close(reception, 1020.0)
    after = learned(reception).quiet(WAITS)
    assert before.released_s == WAITS.released_quiet_s
    assert after.released_s > 11.8
    assert learned(reception).series(Silence.OPEN) == pytest.approx(2, abs=0.01)


def test_an_instance_that_is_corrected_later_teaches_nothing(reception: Reception) -> None:
    send(reception, {1: 1000.0, 2: 1000.2}, RELEASED)
    close(reception, 1005.2)
    before = learned(reception)
    header = ct_header(2, SeriesInstanceUID="1.2.3.4", SOPInstanceUID="1.2.3.4.2", PatientName="Corrected^Name")
    reception.receive(header, SCANNER, at=1050.0)
    close(reception, 1060.0)
    assert learned(reception).quiet(WAITS).released_s <= before.quiet(WAITS).released_s


def test_where_late_instances_are_ignored_they_teach_with_the_next_series(tmp_path: Path) -> None:
    waits = CompletenessPolicy(late=LatePolicy.IGNORE)
    with receiving(tmp_path, routing(TO_PACS, waits=waits)) as reception:
        send(reception, {1: 1000.0}, RELEASED)
        close(reception, 1005.0)
        send(reception, {2: 1012.0}, RELEASED)
        assert series_with(reception).state == "closed"
        send(reception, {1: 1100.0}, RELEASED, uid="1.2.3.5")
        close(reception, 1110.0, "1.2.3.5")
        assert longest_s(learned(reception), Silence.RELEASED) == pytest.approx(12.0, rel=0.1)
        assert learned(reception).series(Silence.OPEN) == pytest.approx(3, abs=0.01)


def test_what_comes_much_later_teaches_nothing(reception: Reception) -> None:
    send(reception, {1: 1000.0}, RELEASED)
    close(reception, 1005.0)
    send(reception, {2: 9000.0}, RELEASED)
    close(reception, 9010.0)
    assert longest_s(learned(reception), Silence.RELEASED) == 0.0


def test_another_series_in_a_pause_is_a_silence_of_its_own(reception: Reception) -> None:
    send(reception, {1: 1000.0, 2: 1008.0}, RELEASED)
    send(reception, {1: 1003.0}, RELEASED, uid="1.2.3.5")
    close(reception, 1020.0)
    assert longest_s(learned(reception), Silence.MOVED_ON) == pytest.approx(8.0, rel=0.1)


def test_each_sender_is_learned_by_itself(reception: Reception) -> None:
    send(reception, {1: 1000.0}, RELEASED)
    send(reception, {1: 1000.0}, RELEASED, uid="1.2.3.5", peer="other")
    close(reception, 1005.0)
    close(reception, 1005.0, "1.2.3.5")
    assert [row.sender for row in reception.rows(PaceRow)] == ["other", "scanner"]


def test_nothing_is_learned_where_the_policy_forbids_it(tmp_path: Path) -> None:
    with receiving(tmp_path, routing(TO_PACS, waits=CompletenessPolicy(quiet_max_s=0.0))) as reception:
        send(reception, {1: 1000.0}, RELEASED)
        close(reception, 1005.0)
        assert reception.rows(PaceRow) == []


def test_evidence_tells_who_sent_it_and_what_else_is_going_on(reception: Reception) -> None:
    send(reception, {1: 1000.0}, LOST)
    send(reception, {2: 2000.0}, RELEASED)
    send(reception, {1: 3000.0}, None, uid="1.2.3.5")
    with reception.database.read() as session:
        evidence = series_index.evidence(session, series_with(reception))
        other = series_index.evidence(session, series_with(reception, "1.2.3.5"))
    assert (evidence.ended, evidence.resumed, evidence.senders) == ((RELEASED,), 1, ("SCANNER",))
    assert (evidence.moved_on, evidence.siblings_arriving) == (True, 1)
    assert (other.moved_on, other.siblings_arriving) == (False, 1)
    assert evidence.opened_at == 1000.0
    assert evidence.quiet is not None
    assert evidence.quiet.series == 0


def test_another_sender_of_the_study_has_not_moved_on(reception: Reception) -> None:
    send(reception, {1: 1000.0}, RELEASED)
    send(reception, {1: 3000.0}, None, uid="1.2.3.5", calling_ae="WORKSTATION")
    with reception.database.read() as session:
        assert not series_index.evidence(session, series_with(reception)).moved_on


def test_lists_and_counts_are_held_against_what_is_here(reception: Reception) -> None:
    send(reception, {1: 1000.0, 2: 1001.0}, RELEASED)
    with reception.database.write() as session:
        for told in (
            Expectation("1.2.3.4", "1.2.3", "IAN", "ris", None, ("1.2.3.4.1", "1.2.3.4.9")),
            Expectation("1.2.3.4", "1.2.3", "C-FIND", "pacs", 7),
        ):
            expect(session, told, 1002.0)
    with reception.database.read() as session:
        evidence = series_index.evidence(session, series_with(reception))
    assert sorted(evidence.expectations, key=lambda one: one.source) == [
        Expected("C-FIND", "pacs", 7),
        Expected("IAN", "ris", 2, ("1.2.3.4.9",)),
    ]


def test_a_series_that_trickles_is_judged_though_instances_come(tmp_path: Path) -> None:
    with receiving(tmp_path, routing(TO_PACS, waits=CompletenessPolicy(longest_s=3.0))) as reception:
        for number in range(10):
            reception.receive(ct_header(number), at=1000.0 + 0.5 * number)
        assert series_with(reception).due_at == 1003.0
        close(reception, 1005.0)
        reception.receive(ct_header(10), at=2000.0)
        series = series_with(reception)
        assert (series.opened_at, series.due_at) == (2000.0, 2001.0)


def test_a_held_series_waits_for_a_person_or_another_instance(reception: Reception) -> None:
    send(reception, {1: 1000.0}, RELEASED)
    incomplete = Verdict(Completeness.INCOMPLETE, None, ("1 is missing",), 0.8)
    with reception.database.write() as session:
        assert series_index.hold(session, series_with(reception), incomplete)
    series = series_with(reception)
    assert (series.state, series.due_at) == ("held", None)
    with reception.database.write() as session:
        assert series_index.ask_to_close(session, series, "operator", 5000.0)
    series = series_with(reception)
    assert (series.state, series.due_at, series.close_by) == ("receiving", 5000.0, "operator")
    close(reception, 5000.0)
    with reception.database.write() as session:
        assert not series_index.ask_to_close(session, series, "operator", 5001.0)
    assert series_with(reception).close_by is None


def test_an_instance_opens_a_held_series_again(reception: Reception) -> None:
    send(reception, {1: 1000.0}, RELEASED)
    with reception.database.write() as session:
        series_index.hold(session, series_with(reception), COMPLETE)
    reception.receive(ct_header(2), at=7000.0)
    series = series_with(reception)
    assert (series.state, series.opened_at, series.generation) == ("receiving", 7000.0, 0)
