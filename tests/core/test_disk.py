"""Levels of a disk, and how long it will do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.disk import Level, Marks, Sample, days_left, level

GB = 10**9
MARKS = Marks(warning_bytes=200 * GB, reserve_bytes=100 * GB)
DAY_S = 86400.0


def at_hour(hour: float, free_gb: float, total_gb: float = 1000) -> Sample:
    return Sample(hour * 3600.0, int(free_gb * GB), int(total_gb * GB))


@pytest.mark.parametrize(
    ("former", "free_gb", "now"),
    [
        (Level.AMPLE, 200, Level.AMPLE),
        (Level.AMPLE, 199.9, Level.WARNING),
        (Level.AMPLE, 99.9, Level.REFUSING),
        (Level.WARNING, 219.9, Level.WARNING),
        (Level.WARNING, 220, Level.AMPLE),
        (Level.REFUSING, 119.9, Level.REFUSING),
        (Level.REFUSING, 120, Level.WARNING),
        (Level.REFUSING, 210, Level.WARNING),
        (Level.REFUSING, 500, Level.AMPLE),
    ],
)
def test_a_level_is_entered_at_once_and_left_with_a_margin(former: Level, free_gb: float, now: Level) -> None:
    assert level(former, at_hour(0, free_gb), MARKS) is now


@given(st.lists(st.integers(0, 1000 * GB), min_size=1), st.sampled_from(list(Level)))
@settings(deadline=None)
def test_a_disk_that_stays_as_it_is_changes_its_level_once_at_most(frees: list[int], former: Level) -> None:
    for free in frees:
        former = level(former, Sample(0.0, free, 1000 * GB), MARKS)
        assert level(former, Sample(0.0, free, 1000 * GB), MARKS) is former
        assert (free < MARKS.reserve_bytes) <= (former is Level.REFUSING)


def test_days_are_counted_to_the_reserve() -> None:
    samples = [at_hour(24 * day, 700 - 50 * day) for day in range(5)]
    assert days_left(samples, 100 * GB) == pytest.approx(8.0)


def test_a_week_counts_and_what_was_before_does_not() -> None:
    before = [at_hour(24 * day, 900 - 90 * day) for day in range(7)]
    week = [at_hour(24 * (7 + day), 300 - 10 * day) for day in range(8)]
    assert days_left(before + week, 100 * GB) == pytest.approx(13.0)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [at_hour(0, 500)],
        [at_hour(0, 500), at_hour(5.9, 400)],
        [at_hour(0, 500), at_hour(24, 500)],
        [at_hour(0, 500), at_hour(24, 600)],
        [at_hour(0, 500), at_hour(24, 400), at_hour(25, 1390, 2000)],
    ],
    ids=["none", "one", "too short", "nothing used", "more is free", "a larger disk"],
)
def test_nothing_is_foretold_where_nothing_can_be(samples: list[Sample]) -> None:
    assert days_left(samples, 100 * GB) is None


def test_a_disk_below_its_reserve_has_no_day_left() -> None:
    assert days_left([at_hour(0, 150), at_hour(24, 50)], 100 * GB) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1e7), st.integers(0, 10**13)), max_size=50), st.integers(0, 10**13))
@settings(deadline=None)
def test_days_are_never_negative(points: list[tuple[float, int]], reserve: int) -> None:
    samples = [Sample(at, free, 10**13) for at, free in sorted(points)]
    days = days_left(samples, reserve)
    assert days is None or days >= 0
