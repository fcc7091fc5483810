"""Working hours in local time, through nights, weekends and changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.hours import WorkingHours, parse_hours

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")]


def at(text: str, fold: int = 0) -> float:
    """A time that the clock in Berlin shows."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


def hours(*written: str, zone: ZoneInfo = BERLIN) -> WorkingHours:
    return WorkingHours(tuple(map(parse_hours, written)), zone)


def test_no_hours_are_all_hours() -> None:
    always = WorkingHours()
    assert always.is_open(0.0)
    assert always.changes_at(0.0) is None
    assert always.open_between(5.0, 9.0) == [(5.0, 9.0)]


@pytest.mark.parametrize(
    ("when", "is_open"),
    [
        ("2026-11-21 17:59:59", False),
        ("2026-11-21 18:00", True),
        ("2026-11-21 23:59:59", True),
        ("2026-11-22 00:00", True),
        ("2026-11-22 05:59:59", True),
        ("2026-11-22 06:00", False),
    ],
)
def test_a_night(when: str, is_open: bool) -> None:
    assert hours("18:00-06:00").is_open(at(when)) == is_open


def test_weekdays_belong_to_the_evening_on_which_it_begins() -> None:
    night = hours("mon-fri 18:00-06:00")
    assert night.is_open(at("2026-11-21 03:00")), "Saturday morning is Friday's night"
    assert not night.is_open(at("2026-11-21 20:00")), "Saturday"
    assert not night.is_open(at("2026-11-23 03:00")), "Monday morning is Sunday's night"
    assert night.is_open(at("2026-11-23 18:00"))


def test_several_intervals_join() -> None:
    both = hours("mon-fri 18:00-06:00", "sat,sun 00:00-24:00")
    assert both.changes_at(at("2026-11-20 12:00")) == at("2026-11-20 18:00")
    assert both.changes_at(at("2026-11-20 18:00")) == at("2026-11-23 00:00"), "to the end of Sunday"


def test_when_it_opens_and_closes() -> None:
    night = hours("18:00-06:00")
    assert night.changes_at(at("2026-11-21 12:00")) == at("2026-11-21 18:00")
    assert night.changes_at(at("2026-11-21 18:00")) == at("2026-11-22 06:00")
    assert hours("mon 08:00-09:00").changes_at(at("2026-11-23 09:00")) == at("2026-11-30 08:00")
    assert hours("00:00-24:00").changes_at(at("2026-11-21 12:00")) is None


def test_the_night_on_which_the_clock_is_put_forward_is_an_hour_shorter() -> None:
    ((begin, end),) = hours("18:00-06:00").open_between(at("2026-03-28 12:00"), at("2026-03-29 12:00"))
    assert end - begin == 11 * 3600


def test_the_night_on_which_the_clock_is_put_back_is_an_hour_longer() -> None:
    ((begin, end),) = hours("18:00-06:00").open_between(at("2026-10-24 12:00"), at("2026-10-25 12:00"))
    assert end - begin == 13 * 3600


def test_an_end_that_the_clock_shows_twice_is_the_second() -> None:
    assert hours("18:00-02:30").is_open(at("2026-10-25 02:15", fold=1))
    assert not hours("18:00-02:30").is_open(at("2026-10-25 02:30", fold=1))
    assert hours("02:30-04:00").is_open(at("2026-10-25 02:30"))


def test_a_time_that_the_clock_skips_is_where_it_would_have_been() -> None:
    assert hours("18:00-02:30").changes_at(at("2026-03-29 01:59")) == at("2026-03-29 03:30")
    assert hours("02:30-04:00").changes_at(at("2026-03-29 01:59")) == at("2026-03-29 03:30")
    assert hours("02:30-03:00").open_between(at("2026-03-29 00:00"), at("2026-03-29 12:00")) == []


@pytest.mark.parametrize(
    "text",
    ["", "18-06", "18:00", "25:00-26:00", "24:00-06:00", "08:00-08:00", "someday 08:00-09:00", "mon- 08:00-09:00"],
)
def test_what_are_no_hours(text: str) -> None:
    with pytest.raises(ValueError, match=r"hours|day"):
        parse_hours(text)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("fri-mon 08:00-09:00", {4, 5, 6, 0}),
        ("Mon, Wed 8:00-09:00".replace(" 8", " 08"), {0, 2}),
        ("sun 08:00-09:00", {6}),
    ],
)
def test_days(text: str, days: set[int]) -> None:
    assert parse_hours(text).days == days


written = st.builds(
    lambda days, begin, end: f"{days}{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}",
    st.sampled_from(["", "mon-fri ", "sat,sun ", "wed ", "fri-mon "]),
    st.integers(0, 1438),
    st.just(1439),
) | st.sampled_from(["18:00-06:00", "mon-thu 22:30-02:30", "sun 23:00-22:00", "00:00-24:00"])
moments = st.integers(
    int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2028, 1, 1, tzinfo=UTC).timestamp())
)


@settings(deadline=None)
@given(st.lists(written, min_size=1, max_size=3), st.sampled_from(ZONES), moments, st.integers(1, 20 * 86400))
def test_the_three_questions_have_one_answer(texts: list[str], zone: ZoneInfo, since: int, length: int) -> None:
    asked = hours(*texts, zone=zone)
    intervals = asked.open_between(since, since + length)
    for moment in range(since, since + length, max(1, length // 50)):
        assert asked.is_open(moment) == any(begin <= moment < end for begin, end in intervals)
    for (_, end), (begin, _) in pairwise(intervals):
        assert end < begin
    change = asked.changes_at(since)
    if change is not None:
        assert change > since
        assert asked.is_open(change) != asked.is_open(since)
