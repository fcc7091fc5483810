"""The measurement of premature closings: its traces stay as they were fixed, and a small one comes out as the large."""

from __future__ import annotations

import hashlib

import pytest

from bench.arrivals.__main__ import answers, main, table
from bench.arrivals.figures import FIXED_S, SETTINGS, Point, configured_point, fixed_point, learned_point
from bench.arrivals.plot import svg
from bench.arrivals.simulate import Closed, Judgement, fixed
from bench.arrivals.traces import DEVELOPMENT_SEEDS, HELD_OUT_SEEDS, Arrived, Ended, Event, Opened, hospital
from dicomnode.core.quiet import LEARNING
from dicomnode.core.types import AssociationEnd, CompletenessPolicy

STUDIES = 25


@pytest.fixture(name="senders", scope="module")
def _senders() -> list[list[Event]]:
    return list(hospital(DEVELOPMENT_SEEDS[0], STUDIES).values())


def test_the_traces_are_those_that_were_fixed_before_the_learner() -> None:
    digest = hashlib.sha256(repr(hospital(HELD_OUT_SEEDS[0], 5)).encode()).hexdigest()
    assert digest == "f258dc8d9fa9ddfd2a681574d9492e4060d78bca1e9faf24dcf56b875d160478"
    assert not set(DEVELOPMENT_SEEDS) & set(HELD_OUT_SEEDS)


def test_events_are_in_order_and_associations_hold_what_they_carry(senders: list[list[Event]]) -> None:
    for events in senders:
        assert [event.at for event in events] == sorted(event.at for event in events)
        opened: set[int] = set()
        for event in events:
            if isinstance(event, Opened):
                opened.add(event.association)
            assert event.association in opened
            if isinstance(event, Ended):
                opened.remove(event.association)
        assert not opened


def test_a_fixed_time_cuts_what_pauses_longer_and_always_waits_as_long() -> None:
    events: list[Event] = [Arrived(at, 0, 1, series, None) for at, series in ((0.0, 1), (1.0, 2), (4.0, 1), (5.0, 2))]
    events.append(Arrived(900.0, 0, 1, 1, None, late=True))
    assert fixed(events, 3.5) == [Closed(True, 3.5), Closed(True, 3.5)]
    assert fixed(events, 4.0) == [Closed(False, 4.0), Closed(False, 4.0)]


def test_our_judgement_closes_every_series_after_its_end() -> None:
    released = AssociationEnd.RELEASED
    events = [Opened(0.0, 0), Arrived(0.1, 0, 1, 1, 0.0), Arrived(9.0, 0, 1, 1, 1.0), Ended(9.1, 0, released)]
    assert Judgement(CompletenessPolicy(), None).run(events) == [Closed(False, 20.0)]


def test_learning_cuts_less_than_fixed_times_and_waits_less(senders: list[list[Event]]) -> None:
    points = [
        configured_point(senders),
        *(fixed_point(senders, each) for each in FIXED_S if each >= 20),
        *(learned_point(senders, setting) for setting in SETTINGS if setting.margin in (1.0, LEARNING.margin, 4.0)),
    ]
    assert all(answers(points).values()), table(points)


def test_the_figures_are_told_as_a_table_and_a_picture() -> None:
    points = [
        Point("fixed", "10 s", 100, 5, 50, 2, 10.0, 10.0, 10.0),
        Point("learned", "margin 2, 5 s until learned (20)", 100, 0, 50, 0, 3.0, 4.0, 9.0),
    ]
    assert "learned is no worse in either: 3.0 s, 0.000 %" in table(points)[2]
    picture = svg(points)
    assert picture.startswith("<svg")
    assert "fixed, 10 s" in picture
    assert "learned, margin 2" in picture


def test_help_is_there() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
