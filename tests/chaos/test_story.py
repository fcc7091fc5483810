"""The timeline and the causes that are found for delays."""

from __future__ import annotations

import json
from pathlib import Path

from chaos.faults import EVERYWHERE, Kind
from chaos.scanner import Sending, Series
from chaos.story import Happened, Moment, explained, moments, unexplained

UID = "1.2.3"
DOWN = Happened(Kind.DESTINATION_DOWN, "pacs", 110.0, 130.0)
CUT = Happened(Kind.DATABASE_CUT_OFF, EVERYWHERE, 150.0, 170.0)


def rows(originals_at: float, derived_at: float) -> list[tuple[object, ...]]:
    """As `chaos.story.TIMES` answers: series, destination, origin, closed, made, done."""
    return [
        (UID, "pacs", "received", 104.0, 101.0, originals_at),
        (UID, "archive", "received", 104.0, 101.0, 101.5),
        (UID, "pacs", "derived", 104.0, 105.0, derived_at),
        (UID, "archive", "derived", 104.0, 105.0, 105.5),
    ]


def sending() -> Sending:
    return Sending(Series(UID, ()), began_at=100.0, acknowledged_at=101.0)


def test_a_series_without_delay_is_one_line() -> None:
    assert explained([sending()], rows(102.0, 106.0), [DOWN], 90.0) == [f"{UID}: 0 slices, sent at 10.0 s, took 6.0 s"]


def test_a_delay_is_laid_to_what_was_broken_meanwhile() -> None:
    _, line = explained([sending()], rows(131.0, 106.0), [DOWN, CUT], 90.0)
    assert line == "    originals to pacs: 11.0 to 41.0 s <- destination down (pacs) 20.0 to 40.0 s"


def test_a_delay_is_not_laid_to_the_other_destination_nor_to_what_came_later() -> None:
    other = Happened(Kind.DESTINATION_DOWN, "archive", 110.0, 130.0)
    lines = explained([sending()], rows(131.0, 106.0), [other, CUT], 90.0)
    assert len(lines) == 2
    assert unexplained(lines) == 1


def test_what_was_broken_shortly_before_counts_where_nothing_was_meanwhile() -> None:
    killed = Happened(Kind.MACHINE_KILLED, "one", 95.0, 96.0)
    _, line = explained([sending()], rows(131.0, 106.0), [killed], 90.0)
    assert line.endswith("<- machine killed (one) 5.0 to 6.0 s")


def test_a_series_that_was_never_acknowledged_is_told() -> None:
    assert explained([Sending(Series(UID, ()), began_at=1.0)], [], [], 0.0) == [f"{UID}: never acknowledged"]


def test_moments_are_events_of_the_nodes_and_broken_lines_are_none(tmp_path: Path) -> None:
    entries = [
        {"event": "node_started", "timestamp": "2026-01-01T00:00:01Z", "pid": 7},
        {"event": "delivery_sent", "timestamp": "2026-01-01T00:00:02Z"},
    ]
    log = tmp_path / "node.log"
    log.write_text("\n".join([*map(json.dumps, entries), '{"event": "node_sta']))
    assert moments({"one": log}) == [Moment(1767225601.0, "one", "node_started", {"pid": 7})]
    assert moments({"one": log})[0].line(1767225600.0) == "    1.00 one      node_started         pid=7"
