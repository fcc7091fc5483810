"""Does a figure drift? A robust control chart, from the figures of one scanner, protocol and engine in their order.

The first values are the baseline: its median is the centre, its median absolute deviation the spread. What comes after
is smoothed exponentially (EWMA: Roberts, Technometrics 1:239, 1959) and compared with limits that count in how
uncertain a centre of so few values is. A single odd patient is cut to three spreads and cannot raise an alarm alone; a
slow drift cannot pull its baseline along, since that stays. With few values there is no judgement at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

State = Literal["few", "steady", "drifting"]

_WEIGHT: Final = 0.1
_LIMIT: Final = 4.0  # in standard deviations of the smoothed value; tests say how rarely a steady figure passes it
_FARTHEST: Final = 3.0
_MAD_TO_SIGMA: Final = 1.4826
_LEAST_SHARE: Final = 0.01  # of the centre: a scanner that repeats itself exactly must not alarm at its first rounding
_MEDIAN_VARIANCE: Final = math.pi / 2  # of a median of n normal values, times n


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure's chart.

    values    how many there are
    centre    median of the baseline; None while there are too few
    spread    robust standard deviation of the baseline
    smoothed  where the figure is now
    limit     how far `smoothed` may be from `centre`
    """

    state: State
    values: int
    centre: float | None = None
    spread: float | None = None
    smoothed: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Charting:
    """How many values the baseline has, and how many must follow before there is a judgement."""

    baseline: int = 40
    following: int = 10

    @property
    def fewest(self) -> int:
        return self.baseline + self.following


SERIES: Final = Charting()
"""Of patients' series, which differ."""

PHANTOM: Final = Charting(baseline=10, following=3)
"""Of a phantom, which is the same each day."""


def chart(values: Sequence[float], charting: Charting = SERIES) -> Chart:
    """Judge the last of `values`, the oldest first. Values that are no finite numbers are passed over."""
    known = [value for value in values if math.isfinite(value)]
    if len(known) < charting.fewest:
        return Chart("few", len(known))
    baseline, later = known[: charting.baseline], known[charting.baseline :]
    centre = median(baseline)
    spread = max(_MAD_TO_SIGMA * median(abs(value - centre) for value in baseline), _LEAST_SHARE * abs(centre), 1e-9)
    smoothed = 0.0
    for value in later:
        smoothed += _WEIGHT * (min(max((value - centre) / spread, -_FARTHEST), _FARTHEST) - smoothed)
    limit = _LIMIT * math.sqrt(_WEIGHT / (2 - _WEIGHT) + _MEDIAN_VARIANCE / len(baseline))
    state: State = "drifting" if abs(smoothed) > limit else "steady"
    return Chart(state, len(known), centre, spread, centre + smoothed * spread, limit * spread)


def charts(reports: Sequence[Mapping[str, float]], names: Iterable[str], charting: Charting) -> dict[str, Chart]:
    """The chart of each named figure that any of the reports has, the oldest report first."""
    found = {name: [report[name] for report in reports if name in report] for name in names}
    return {name: chart(values, charting) for name, values in found.items() if values}


def sentence(meaning: str, unit: str, found: Chart) -> str:
    """What a drifting chart says, for people."""
    assert found.centre is not None
    assert found.smoothed is not None
    assert found.limit is not None
    shown = f" {unit}" if unit else ""
    return (
        f"{meaning} drifts: from {found.centre:.4g} to {found.smoothed:.4g}{shown}, "
        f"by more than {found.limit:.3g}{shown}"
    )
