"""What a card says of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from engines.bundle.provenance import Metric
from trainers.evaluate.aims import INPUT
from trainers.evaluate.bootstrap import Estimate
from trainers.evaluate.denoisers import Denoiser
from trainers.evaluate.table import DETECTED, FIGURES, Table
from trainers.evaluate.words import over_input

NOTED: Final = (
    "PSNR abdomen", "SSIM abdomen", "noise", "strong edges wider", "moderate edges wider", "bias lung", "bias fat",
    "bias soft tissue", "bias bone", "d' 6 mm +50 HU", "d' 6 mm -20 HU", "contrast kept 6 mm +50 HU",
    "d' tube -20 HU", "contrast kept tube +50 HU", "invented", "erased", "drawn",
)  # fmt: skip


def metrics_of(table: Table, denoiser: Denoiser) -> tuple[Metric, ...]:
    """The figures of a denoiser as it ships for its card, each beside that of the low dose itself."""
    return tuple(_metrics(table, denoiser.row(denoiser.shipped), f", {denoiser.output}" if denoiser.output else ""))


def _metrics(table: Table, denoiser: str, output: str) -> Iterator[Metric]:
    for dose in table.doses:
        for name in NOTED:
            found, baseline = (table.value(name, one, dose) for one in (denoiser, INPUT))
            if math.isfinite(found.value):
                metric = _metric(found, f"{name}{output}", FIGURES[name].decimals, dose)
                yield replace(metric, unit=FIGURES[name].unit, baseline=_baseline(baseline, FIGURES[name].decimals))
                if name in DETECTED:
                    yield from _fall(table, (name, denoiser), dose, output)


def _fall(table: Table, what: tuple[str, str], dose: float, output: str) -> Iterator[Metric]:
    """Of a d' its ratio to that of the low dose, and the patients in whom it falls."""
    name, denoiser = what
    found = over_input(table, name, denoiser, dose)
    if math.isfinite(found.value):
        yield _metric(found, f"{name} over that of the low dose{output}", FIGURES[name].decimals, dose)
        lower, known = table.lower(name, (denoiser, INPUT), dose)
        fallen = Estimate(lower, None, known)
        yield replace(_metric(fallen, f"{name} lower than with the low dose{output}", 0, dose), unit="patients")


def _metric(found: Estimate, name: str, decimals: int, dose: float) -> Metric:
    return Metric(
        name=name,
        value=round(found.value, decimals),
        subgroup=f"{100 * dose:g} % dose, simulated",
        patients=found.patients,
        interval=None if found.interval is None else _rounded(found.interval, decimals),
    )


def _baseline(found: Estimate, decimals: int) -> float | None:
    return round(found.value, decimals) if math.isfinite(found.value) else None


def _rounded(interval: tuple[float, float], decimals: int) -> tuple[float, float]:
    return round(interval[0], decimals), round(interval[1], decimals)
