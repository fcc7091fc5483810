"""What was measured, and what follows from it: a row for each denoiser, dose and patient."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainers.evaluate.bootstrap import Estimate, Rows, Values, estimate
from trainers.evaluate.denoisers import Kind
from trainers.evaluate.measures import EDGES_HU
from trainers.evaluate.nodules import LESIONS, size_of
from trainers.evaluate.texture import FREQUENCIES_PER_MM
from trainers.evaluate.windows import WINDOWS

Column = NDArray[np.float64]
"""Values of patients: (..., patients)."""
Statistic = Callable[..., Values]


def _mean(values: Column) -> Values:
    return np.asarray(values.mean(axis=-1))


def _worst(values: Column) -> Values:
    return np.asarray(np.abs(values).max(axis=-1))


def _over(values: Values, by: Values) -> Values:
    """NaN where there is nothing to divide by."""
    return np.asarray(np.divide(values, by, out=np.full_like(values, math.nan), where=by > 0))


_LEAST: Final = 0.01  # d' of what is gone: a geometric mean knows no 0


def _detectability(response: Column, variance: Column) -> Values:
    """Geometric mean over patients: a ratio of two is the geometric mean of each patient's ratio, and the noisiest
    count no more than others."""
    return np.asarray(np.exp(np.log(np.maximum(_over(response, np.sqrt(variance)), _LEAST)).mean(axis=-1)))


def _wider(before: Column, after: Column) -> Values:
    return 100.0 * (_over(_mean(after), _mean(before)) - 1.0)


def _to_noise(response: Column, noise: Column) -> Values:
    return _over(_mean(response), _mean(noise))


def _to_area(spots: Column, asked: Column) -> Values:
    """A spot in a patient of whom little is asked counts no more than one elsewhere."""
    return _over(_mean(spots), _mean(asked))


@dataclass(frozen=True)
class Figure:
    """A figure over patients.

    measured   the figures of a patient that it is made of
    statistic  of these, a column each (NaN where a patient has none)
    by         what the mean is divided by
    has_interval  the bootstrap can tell one: not of an extreme, which no patients drawn again exceed
    """

    name: str
    unit: str
    decimals: int
    measured: tuple[str, ...]
    statistic: Statistic = _mean
    by: float = 1.0
    has_interval: bool = True

    def of(self, columns: Sequence[Column], rows: Rows) -> Values:
        """Over the patients at `rows`: (..., patients) -> (...)."""
        return self.statistic(*(column[rows] for column in columns)) / self.by


def _figures() -> dict[str, Figure]:
    listed: list[Figure] = []
    for window in WINDOWS:
        listed.append(Figure(f"PSNR {window.name}", "dB", 2, (f"psnr {window.name}",)))
        listed.append(Figure(f"SSIM {window.name}", "", 4, (f"ssim {window.name}",)))
    listed += [
        Figure("noise", "HU", 1, ("noise",)),
        Figure("noise frequency", "1/mm", 3, ("nps mean frequency",)),
        Figure("pattern in noise", "", 2, ("nps excess",)),
    ]
    for name in EDGES_HU:
        listed.append(Figure(f"{name} edges wider", "%", 1, (f"{name} edges before", f"{name} edges after"), _wider))
        listed.append(Figure(f"{name} edges modulation", "", 3, (f"{name} edges modulation",)))
    for band in ("lung", "fat", "soft tissue", "bone"):
        listed.append(Figure(f"bias {band}", "HU", 2, (f"bias {band}",)))
        listed.append(Figure(f"worst bias {band}", "HU", 2, (f"bias {band}",), _worst, has_interval=False))
    for lesion in LESIONS:
        kind, contrast = str(lesion), abs(lesion.contrast_hu)
        listed.append(Figure(f"d' {kind}", "", 2, (f"{kind} response", f"{size_of(lesion)} variance"), _detectability))
        listed.append(Figure(f"contrast kept {kind}", "", 3, (f"{kind} response",), by=contrast))
        listed.append(Figure(f"CNR {kind}", "", 2, (f"{kind} response", "noise"), _to_noise))
    listed += [
        Figure("invented", "/100 cm²", 2, ("invented", "asked cm2"), _to_area, by=0.01),
        Figure("erased", "/100 cm²", 2, ("erased", "asked cm2"), _to_area, by=0.01),
        Figure("drawn", "/100 cm²", 2, ("drawn", "asked cm2"), _to_area, by=0.01),
        Figure("left of removed nodules", "", 3, ("left of removed nodules",)),
        Figure("removed", "HU", 1, ("removed",)),
        Figure("removed by slope", "", 3, ("removed by slope",)),
        Figure("residual at edges", "", 3, ("residual at edges",)),
        Figure("residual blob", "", 1, ("residual blob",)),
        Figure("seconds", "s", 3, ("seconds",)),
    ]
    listed += [Figure(f"NPS {at:.2f}/mm", "HU² mm²", 1, (f"nps {at:.2f}",)) for at in FREQUENCIES_PER_MM]
    return {figure.name: figure for figure in listed}


FIGURES: Final[Mapping[str, Figure]] = _figures()
"""Everything that a table can tell, in its order."""

DETECTED: Final = tuple(f"d' {lesion}" for lesion in LESIONS)
"""Figures whose fall in single patients is told."""


@dataclass(frozen=True)
class Row:
    """One denoiser on one patient at one dose. patient: a number, never an identity."""

    denoiser: str
    dose: float
    patient: int
    figures: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Table:
    """All rows, and what they are of.

    kinds   of each denoiser, in the order of the table; the first is the input itself
    notes   what a reader must know of how it was measured
    """

    rows: tuple[Row, ...]
    kinds: Mapping[str, Kind]
    notes: tuple[str, ...] = ()

    @cached_property
    def doses(self) -> tuple[float, ...]:
        """From the highest down."""
        return tuple(sorted({row.dose for row in self.rows}, reverse=True))

    @cached_property
    def patients(self) -> int:
        """How many there are."""
        return 1 + max((row.patient for row in self.rows), default=-1)

    @cached_property
    def _rows(self) -> Mapping[tuple[str, float], Mapping[int, Row]]:
        found: dict[tuple[str, float], dict[int, Row]] = {}
        for row in self.rows:
            found.setdefault((row.denoiser, row.dose), {})[row.patient] = row
        return found

    def columns(self, figure: Figure, denoiser: str, dose: float) -> list[Column]:
        """What a figure is made of, a value for each patient."""
        rows = self._rows.get((denoiser, dose), {})
        return [
            np.array([rows[at].figures.get(name, math.nan) if at in rows else math.nan for at in range(self.patients)])
            for name in figure.measured
        ]

    def value(self, figure: str, denoiser: str, dose: float) -> Estimate:
        """A figure with its interval."""
        known = FIGURES[figure]
        columns = self.columns(known, denoiser, dose)
        return self._estimate(known, [columns], lambda rows: known.of(columns, rows))

    def against(
        self, figure: str, denoisers: tuple[str, str], dose: float, compare: Callable[[Values, Values], Values]
    ) -> Estimate:
        """`compare(figure of the first, figure of the second)`, paired by patient: only those that both were measured
        on count."""
        known = FIGURES[figure]
        one, other = (self.columns(known, denoiser, dose) for denoiser in denoisers)
        missing = np.isnan([*one, *other]).any(axis=0)
        for column in (*one, *other):
            column[missing] = math.nan
        return self._estimate(known, [one, other], lambda rows: compare(known.of(one, rows), known.of(other, rows)))

    def lower(self, figure: str, denoisers: tuple[str, str], dose: float) -> tuple[int, int]:
        """In how many patients the figure is lower with the first than with the second; and of how many that is
        known."""
        known = FIGURES[figure]
        one, other = (
            known.of(self.columns(known, denoiser, dose), np.arange(self.patients)[:, None]) for denoiser in denoisers
        )
        return int(np.count_nonzero(one < other)), int(np.count_nonzero(np.isfinite(one) & np.isfinite(other)))

    def _estimate(
        self, figure: Figure, columns: Sequence[Sequence[Column]], statistic: Callable[[Rows], Values]
    ) -> Estimate:
        """Over the patients of whom all columns know something."""
        every = np.isfinite([column for group in columns for column in group]).all(axis=0)
        places = np.flatnonzero(every)
        if not len(places):
            return Estimate(math.nan, None, 0)
        found = estimate(lambda rows: statistic(places[rows]), len(places))
        return found if figure.has_interval else replace(found, interval=None)
