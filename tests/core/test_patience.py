"""Patience: time counts only while a destination may be sent to."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.hours import WorkingHours, parse_hours
from dicomnode.core.patience import Pause, lost_patience_before

DAY = 86400.0
ALWAYS = WorkingHours()


def test_without_hours_and_pauses_it_is_plain_time() -> None:
    assert lost_patience_before(1000.0, 100.0, 0.0, ALWAYS, ()) == 900.0
    assert lost_patience_before(1000.0, 100.0, 950.0, ALWAYS, ()) is None, "nothing waits so long"


def test_a_pause_does_not_count() -> None:
    assert lost_patience_before(1000.0, 100.0, 0.0, ALWAYS, [(920.0, 970.0)]) == 850.0
    assert lost_patience_before(1000.0, 100.0, 0.0, ALWAYS, [(920.0, None)]) == 820.0
    assert lost_patience_before(1000.0, 100.0, 900.0, ALWAYS, [(910.0, None)]) is None


def test_closed_hours_do_not_count() -> None:
    at_noon = WorkingHours((parse_hours("12:00-13:00"),))
    now = 10 * DAY + 12.5 * 3600
    assert lost_patience_before(now, 1800.0, 0.0, at_noon, ()) == now - 1800.0
    assert lost_patience_before(now, 3600.0, 0.0, at_noon, ()) == 9 * DAY + 12.5 * 3600
    assert lost_patience_before(now, 2 * 3600.0, 0.0, at_noon, ()) == 8 * DAY + 12.5 * 3600
    assert lost_patience_before(now, 2 * 3600.0, 9 * DAY, at_noon, ()) is None


def test_patience_of_a_year_is_found() -> None:
    weekly = WorkingHours((parse_hours("sun 00:00-12:00"),))
    found = lost_patience_before(400 * 7 * DAY, 12 * 3600.0 * 300, 0.0, weekly, ())
    assert found is not None
    assert 99 * 7 * DAY <= found <= 101 * 7 * DAY


pauses = st.lists(st.tuples(st.integers(0, 20_000), st.none() | st.integers(0, 20_000)), max_size=4)


@settings(deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 20_000), pauses)
def test_it_is_what_counting_second_by_second_gives(now: int, patience: int, drawn: list[Pause]) -> None:
    found = lost_patience_before(now, patience, 0.0, ALWAYS, drawn)
    counted, since = 0, now
    while since > 0 and counted < patience:
        since -= 1
        counted += not any(paused <= since and (resumed is None or since < resumed) for paused, resumed in drawn)
    assert found == (since if counted == patience else None)
