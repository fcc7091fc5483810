"""Judging series that are due: closed with the workflow that routes them, or judged again later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from dicomnode.core.quiet import Pace, Silence
from dicomnode.core.types import AssociationEnd, CompletenessPolicy, OnDeadline
from dicomnode.flow.closing import Closer, route_call
from dicomnode.flow.port import Call
from dicomnode.store.schema import PaceRow, Series
from dicomnode.testing.processes import wait_until
from tests.store.receiving import SCANNER, TO_PACS, Reception, ct_header, receiving, routing


class Recorder:
    """An enqueue that notes what it is given; fails as often as it is told to."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.failures = 0

    def __call__(self, session: Session, call: Call) -> None:
        assert session.in_transaction()
        if self.failures:
            self.failures -= 1
            raise RuntimeError
        self.calls.append(call)


@pytest.fixture(name="reception")
def _reception(tmp_path: Path) -> Iterator[Reception]:
    with receiving(tmp_path) as reception:
        yield reception


@pytest.fixture(name="recorder")
def _recorder() -> Recorder:
    return Recorder()


def released(reception: Reception, *numbers: int, at: float = 1000.0) -> None:
    row = reception.intake.association_opened(SCANNER)
    for number in numbers:
        reception.receive(ct_header(number), at=at, association=row)
    reception.intake.association_ended(row, AssociationEnd.RELEASED)


def only_series(reception: Reception) -> Series:
    (series,) = reception.rows(Series)
    return series


def test_what_is_complete_is_closed_and_enqueued_in_one_transaction(reception: Reception, recorder: Recorder) -> None:
    released(reception, 1, 2, 3)
    closer = Closer(reception.database, recorder)
    assert closer.judge_due(9e9) == 1
    assert recorder.calls == [Call("route", "route", "route:1:1", (1, 1))] == [route_call(1, 1)]
    series = only_series(reception)
    assert (series.state, series.generation, series.closed_at) == ("closed", 1, 9e9)
    assert series.verdict is not None
    assert series.verdict["state"] == "complete"
    assert closer.judge_due(9.1e9) == 0
    assert len(recorder.calls) == 1


def test_what_cannot_be_enqueued_stays_open(reception: Reception, recorder: Recorder) -> None:
    released(reception, 1)
    recorder.failures = 1
    with pytest.raises(RuntimeError):
        Closer(reception.database, recorder).judge_due(9e9)
    assert only_series(reception).state == "receiving"
    assert Closer(reception.database, recorder).judge_due(9e9) == 1


def test_before_it_is_due_nothing_is_judged(reception: Reception, recorder: Recorder) -> None:
    released(reception, 1)
    due_at = only_series(reception).due_at
    assert due_at is not None
    assert Closer(reception.database, recorder).judge_due(due_at - 0.1) == 0
    assert recorder.calls == []


def test_a_series_that_waits_is_judged_when_its_time_comes(reception: Reception, recorder: Recorder) -> None:
    reception.receive(ct_header(1), at=1000.0)  # its association stays open: 60 s of silence are wanted
    closer = Closer(reception.database, recorder)
    assert closer.judge_due(1001.0) == 0
    assert only_series(reception).due_at == 1060.0
    assert closer.judge_due(1059.0) == 0
    assert closer.judge_due(1060.0) == 1


def test_a_gap_is_waited_for_until_the_deadline(reception: Reception, recorder: Recorder) -> None:
    released(reception, 1, 2, 3, 5, 6)
    closer = Closer(reception.database, recorder)
    assert closer.judge_due(1500.0) == 0
    assert closer.judge_due(1600.0) == 1
    verdict = only_series(reception).verdict
    assert verdict is not None
    assert verdict["state"] == "incomplete"
    assert "1 slice is missing by position: 1 at 8.00 mm" in verdict["reasons"][0]


def test_a_late_slice_closes_it_under_another_name(reception: Reception, recorder: Recorder) -> None:
    released(reception, 1, 2)
    closer = Closer(reception.database, recorder)
    closer.judge_due(2000.0)
    released(reception, 3, at=3000.0)
    closer.judge_due(9e9)
    assert [call.id for call in recorder.calls] == ["route:1:1", "route:1:2"]


def test_one_series_that_waits_does_not_keep_another(reception: Reception, recorder: Recorder) -> None:
    reception.receive(ct_header(1, SeriesInstanceUID="1.2.3.8"), at=1000.0)
    released(reception, 2)
    assert Closer(reception.database, recorder).judge_due(1010.0) == 1
    assert {series.series_instance_uid: series.state for series in reception.rows(Series)} == {
        "1.2.3.8": "receiving",
        "1.2.3.4": "closed",
    }


def test_the_thread_judges_until_it_is_stopped(reception: Reception, recorder: Recorder) -> None:
    released(reception, 1)
    closer = Closer(reception.database, recorder)
    closer.start()
    wait_until(lambda: len(recorder.calls) == 1, 20.0, "the series is closed")
    assert closer.is_alive
    closer.stop()
    assert not closer.is_alive


HOLD = CompletenessPolicy(quiet_s=60.0, released_quiet_s=5.0, deadline_s=600.0, on_deadline=OnDeadline.HOLD)


def test_what_is_incomplete_at_its_deadline_is_held_where_that_is_wanted(tmp_path: Path, recorder: Recorder) -> None:
    with receiving(tmp_path, routing(TO_PACS, waits=HOLD)) as reception:
        released(reception, 1, 2, 3, 5, 6)
        closer = Closer(reception.database, recorder)
        assert closer.judge_due(9e9) == 0
        assert (only_series(reception).state, recorder.calls) == ("held", [])
        assert closer.judge_due(9.1e9) == 0
        released(reception, 4, at=5000.0)
        assert closer.judge_due(9.2e9) == 1
        verdict = only_series(reception).verdict
        assert verdict is not None
        assert verdict["state"] == "complete"


def test_what_trickles_for_ever_ends_at_its_deadline(tmp_path: Path, recorder: Recorder) -> None:
    waits = CompletenessPolicy(longest_s=100.0)
    with receiving(tmp_path, routing(TO_PACS, waits=waits)) as reception:
        closer = Closer(reception.database, recorder)
        closed_at = []
        for number in range(60):
            now = 1000.0 + 2.0 * number
            reception.receive(ct_header(number), at=now)
            closed_at += [now] * closer.judge_due(now)
        assert closed_at[0] == 1100.0
        verdict = only_series(reception).verdict
        assert verdict is not None
        assert recorder.calls == [route_call(1, 1)]


def test_a_learned_time_closes_sooner_than_the_configured_one(reception: Reception, recorder: Recorder) -> None:
    with reception.database.write() as session:
        steady = Pace()
        for _ in range(500):
            steady = steady.learned({Silence.OPEN: 1.0})
        session.add(PaceRow(sender="scanner", content=steady.to_json(), learned_to=0, updated_at=0.0))
    reception.receive(ct_header(1), at=1000.0)
    closer = Closer(reception.database, recorder)
    assert closer.judge_due(1001.0) == 0
    due_at = only_series(reception).due_at
    assert due_at is not None
    assert 1002.0 <= due_at < 1004.0
    assert closer.judge_due(due_at) == 1


ARRIVALS = [0.0, 0.3, 0.6, 4.0, 4.2, 30.0, 30.1, 80.0, 200.0, 200.5]


def closings(folder: Path, restarts: frozenset[int], asleep: range = range(0)) -> list[float]:
    """When a series is closed whose instances come so; judged each half second. At a restart nothing in memory is left;
    while it sleeps nobody judges."""
    closed: list[float] = []
    stack = ExitStack()
    with stack:
        reception = stack.enter_context(receiving(folder))
        for tick in range(640):
            if tick in restarts:
                stack.close()
                reception = stack.enter_context(receiving(folder))
            now = 1000.0 + tick / 2
            for number, at in enumerate(ARRIVALS):
                if now - 0.5 < 1000.0 + at <= now:
                    reception.receive(ct_header(number), at=1000.0 + at)
            if tick not in asleep:
                closed += [now] * Closer(reception.database, Recorder()).judge_due(now)
    return closed


def test_the_waiting_survives_restarts(tmp_path: Path) -> None:
    never = closings(tmp_path / "never", frozenset())
    assert never[0] == 1140.0
    assert 1300.5 <= never[1] <= 1315.0, "the pause of 49.9 s was learned, and is waited out twice"
    assert closings(tmp_path / "often", frozenset(range(1, 640, 7))) == never


def test_what_became_due_while_nothing_ran_is_closed_at_once(tmp_path: Path) -> None:
    assert closings(tmp_path, frozenset({300}), asleep=range(250, 300))[0] == 1150.0
