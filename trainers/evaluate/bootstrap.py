"""Intervals by drawing patients again, with replacement (Efron 1979): patients are independent, slices are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

RESAMPLES: Final = 1000
_LEVEL: Final = (2.5, 97.5)
_SEED: Final = 20

Rows = NDArray[np.intp]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure over patients. interval: 95 %, None where there are fewer than two patients or it cannot be told."""

    value: float
    interval: tuple[float, float] | None
    patients: int


def estimate(statistic: Callable[[Rows], Values], patients: int) -> Estimate:
    """`statistic` of all patients, with the percentile interval of what it is on patients drawn again.

    statistic  of the patients whose places it is given: (..., patients) -> (...). Differences of two denoisers are
               taken within it, so that they are paired: both see the same patients.
    """
    value = float(statistic(np.arange(patients)))
    if patients < 2 or not np.isfinite(value):
        return Estimate(value, None, patients)
    drawn = statistic(np.random.default_rng(_SEED).integers(patients, size=(RESAMPLES, patients)))
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return Estimate(value, None, patients)
    low, high = np.percentile(drawn, _LEVEL)
    return Estimate(value, (float(low), float(high)), patients)
