"""A table as text, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from trainers.evaluate.aims import INPUT, Verdict, gain, ratio, verdicts
from trainers.evaluate.bootstrap import Estimate
from trainers.evaluate.table import DETECTED, FIGURES, Figure, Table

HEADLINES: Final = (
    "PSNR abdomen", "SSIM abdomen", "PSNR lung", "SSIM lung", "noise", "noise frequency", "pattern in noise",
    "strong edges wider", "moderate edges wider", "moderate edges modulation", "bias lung", "bias fat",
    "bias soft tissue", "bias bone", "d' 6 mm +50 HU", "contrast kept 6 mm +50 HU", "CNR 6 mm +50 HU",
    "d' 6 mm -20 HU", "d' 10 mm -20 HU", "d' tube +50 HU", "contrast kept tube +50 HU", "d' tube -20 HU",
    "invented", "erased", "drawn", "left of removed nodules", "removed by slope", "residual blob", "seconds",
)  # fmt: skip
"""What fits into a text: all else is in CSV, JSON and on the page."""

GAINED: Final = ("PSNR abdomen", "SSIM abdomen")
"""Whose gain over the input, paired by patient, has a line of its own."""

_NARROWEST: Final = 30


def text(table: Table) -> str:
    """For a terminal: a block for each dose, a line for each figure, a column for each denoiser; then the aims."""
    names = list(table.kinds)
    width = max(_NARROWEST, *map(len, names)) + 2
    lines = [*table.notes, f"{table.patients} patients", ""]
    for dose in table.doses:
        lines.append(f"{f'dose {100 * dose:g} %':<32}" + "".join(f"{name:>{width}}" for name in names))
        for title, shown in listed(table, dose, HEADLINES):
            lines.append(f"{title:<32}" + "".join(f"{one:>{width}}" for one in shown))
        lines.append("")
    for name, kind in table.kinds.items():
        if kind == "ours":
            lines += [f"aims, {name}", *(f"  {verdict}" for verdict in verdicts(table, name)), ""]
    return "\n".join(lines)


def listed(table: Table, dose: float, figures: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """(title, a cell for each denoiser) of what was measured at a dose; gains and ratios follow their figure."""
    for figure in (FIGURES[name] for name in figures):
        lines = [(titled(figure), _cells(table, figure, dose, Table.value))]
        if figure.name in GAINED:
            lines.append((f"{titled(figure)}: gain", _cells(table, figure, dose, gain_over_input)))
        if figure.name in DETECTED:
            lines.append((f"{figure.name}: ratio", _cells(table, figure, dose, over_input)))
            lines.append((f"{figure.name}: lower in", [fallen(table, figure.name, name, dose) for name in table.kinds]))
        yield from ((title, cells) for title, cells in lines if any(cell != "-" for cell in cells))


def _cells(table: Table, figure: Figure, dose: float, told: Callable[[Table, str, str, float], Estimate]) -> list[str]:
    """What is told of a figure of each denoiser, and of how many patients where some are missing."""
    found = [told(table, figure.name, name, dose) for name in table.kinds]
    of = [f" n={one.patients}" if math.isfinite(one.value) and one.patients < table.patients else "" for one in found]
    return [f"{written(figure, one)}{few}" for one, few in zip(found, of, strict=True)]


def gain_over_input(table: Table, figure: str, denoiser: str, dose: float) -> Estimate:
    """By how much a figure is above that of the low dose itself, paired by patient."""
    return table.against(figure, (denoiser, INPUT), dose, gain)


def over_input(table: Table, figure: str, denoiser: str, dose: float) -> Estimate:
    """How many times a figure is that of the low dose itself, paired by patient."""
    return table.against(figure, (denoiser, INPUT), dose, ratio)


def fallen(table: Table, figure: str, denoiser: str, dose: float) -> str:
    """In how many patients a figure is lower than that of the low dose itself; `-` where nobody knows."""
    lower, known = table.lower(figure, (denoiser, INPUT), dose)
    return f"{lower} of {known}" if known else "-"


def titled(figure: Figure) -> str:
    """A figure with its unit."""
    return f"{figure.name}, {figure.unit}" if figure.unit else figure.name


def written(figure: Figure, found: Estimate) -> str:
    """A figure with its interval; `-` where it was not measured."""
    if not math.isfinite(found.value):
        return "-"
    value = f"{found.value:.{figure.decimals}f}"
    if found.interval is None:
        return value
    return f"{value} [{found.interval[0]:.{figure.decimals}f}, {found.interval[1]:.{figure.decimals}f}]"


def as_csv(table: Table) -> str:
    """A line for each denoiser, dose, patient and measured figure: all that was measured."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("denoiser", "dose", "patient", "figure", "value"))
    for row in table.rows:
        writer.writerows((row.denoiser, row.dose, row.patient, name, value) for name, value in row.figures.items())
    return out.getvalue()


def as_json(table: Table) -> str:
    """All figures with their intervals, and the aims."""
    found: dict[str, Any] = {
        "notes": table.notes,
        "patients": table.patients,
        "figures": list(_entries(table)),
        "aims": {
            name: [_entry(one) for one in verdicts(table, name)]
            for name, kind in table.kinds.items()
            if kind in ("ours", "partial")
        },
    }
    return json.dumps(found, indent=1)


def _entries(table: Table) -> Iterator[dict[str, Any]]:
    for dose in table.doses:
        for name in table.kinds:
            for figure in FIGURES.values():
                found = table.value(figure.name, name, dose)
                if math.isfinite(found.value):
                    gained = gain_over_input(table, figure.name, name, dose)
                    said = {"denoiser": name, "dose": dose, "figure": figure.name, "unit": figure.unit}
                    yield {**said, **_told(found), "gain": _told(gained), **_detected(table, figure.name, name, dose)}


def _detected(table: Table, figure: str, denoiser: str, dose: float) -> dict[str, Any]:
    """Of a d' more: its ratio, and in how many patients of how many it is lower."""
    if figure not in DETECTED:
        return {}
    ratios = _told(over_input(table, figure, denoiser, dose))
    return {"ratio": ratios, "lower": table.lower(figure, (denoiser, INPUT), dose)}


def _entry(verdict: Verdict) -> dict[str, Any]:
    said = {"aim": str(verdict.aim), "reached": verdict.reached, "sure": verdict.is_sure, "against": verdict.against}
    return {**said, **_told(verdict.found), **({} if verdict.lower is None else {"lower": verdict.lower})}


def _told(found: Estimate) -> dict[str, Any]:
    value = found.value if math.isfinite(found.value) else None
    interval: Sequence[float] | None = found.interval
    return {"value": value, "interval": interval, "patients": found.patients}
