"""Control charts: few values say nothing, a steady figure is let be, a drift is seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.drift import PHANTOM, SERIES, Charting, chart, charts, sentence


def steady(seed: int, count: int, heavy: bool = False) -> list[float]:
    """Figures of one scanner, one in twenty of an odd patient where `heavy`."""
    noise = np.random.default_rng(seed)
    values = noise.normal(10.0, 1.0, count)
    if heavy:
        values[noise.random(count) < 0.05] += 15.0
    return [float(value) for value in values]


def alarms(values: list[float], charting: Charting = SERIES) -> bool:
    """Whether the chart alarms after any of the values."""
    return any(chart(values[:end], charting).state == "drifting" for end in range(len(values) + 1))


@given(st.lists(st.floats(-1e6, 1e6), max_size=SERIES.fewest - 1))
@settings(deadline=None)
def test_few_values_say_nothing(values: list[float]) -> None:
    assert chart(values).state == "few"


def test_values_that_are_no_numbers_are_no_values() -> None:
    assert chart([float("nan")] * 1000).state == "few"
    assert chart([*steady(1, 60), float("inf")]).state == "steady"


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "odd patients"])
def test_what_is_steady_rarely_alarms(heavy: bool) -> None:
    """Over 160 series after the baseline, looked at after each."""
    assert sum(alarms(steady(seed, 200, heavy)) for seed in range(100)) <= 5


@pytest.mark.parametrize("shift", [-2.0, 2.0])
def test_a_shift_of_two_spreads_is_seen_within_sixty_series(shift: float) -> None:
    seen = [alarms([*steady(seed, 60), *(value + shift for value in steady(seed + 999, 60))]) for seed in range(50)]
    assert sum(seen) >= 45


def test_a_slow_drift_does_not_take_its_baseline_along() -> None:
    values = [value + 0.03 * index for index, value in enumerate(steady(3, 200))]
    found = chart(values)
    assert found.state == "drifting"
    assert found.centre == pytest.approx(10.5, abs=1.0)


def test_one_odd_value_is_no_drift() -> None:
    assert chart([*steady(4, 80), 1e9]).state == "steady"


def test_a_phantom_that_never_changes_alarms_only_beyond_a_hundredth() -> None:
    same = [50.0] * 12
    assert chart([*same, *[50.2] * 20], PHANTOM).state == "steady"
    assert chart([*same, *[52.0] * 20], PHANTOM).state == "drifting"


def test_each_figure_has_a_chart_of_its_own_and_a_sentence() -> None:
    reports = [{"a": value} for value in [*steady(5, 60), *[20.0] * 40]]
    found = charts(reports, ("a", "b"), SERIES)
    assert set(found) == {"a"}
    told = sentence("noise before", "HU", found["a"])
    assert told.startswith("noise before drifts: from ")
    assert "HU" in told
