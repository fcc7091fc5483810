"""Plots of a table as SVG: no font, no script and no picture from outside."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from trainers.evaluate.bootstrap import Estimate
from trainers.evaluate.table import FIGURES, Table
from trainers.evaluate.texture import FREQUENCIES_PER_MM

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 180, 28, 40
_COLOURS: Final = ("#777777", "#1f6f8b", "#d1495b", "#66a182", "#edae49", "#5c4b8a", "#00798c", "#9c6644", "#b0578d")
_TICKS: Final = 4

_WITH_STRENGTH: Final = re.compile(r"(.*) x (\d[\d.]*)")  # of `Denoiser.row`


@dataclass(frozen=True)
class Point:
    """x, y, and the interval of y where there is one."""

    x: float
    y: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Plot:
    """Lines by name over two axes."""

    title: str
    across: str
    up: str
    lines: Mapping[str, Sequence[Point]]


def plots(table: Table) -> list[Plot]:
    """What a page shows: figures over dose, noise power at each dose, and the curve of the strength."""
    shown = [
        Plot(f"{name} at each dose", "dose, %", unit, {one: _over_dose(table, name, one) for one in table.kinds})
        for name, unit in (("PSNR abdomen", "dB"), ("contrast kept 6 mm +50 HU", ""), ("moderate edges wider", "%"))
    ]
    shown += [
        Plot(f"Noise power at {100 * dose:g} % dose", "cycles / mm", "HU² mm²", _power(table, dose))
        for dose in table.doses
    ]
    return [*shown, *strength_curves(table)]


def strength_curves(table: Table) -> list[Plot]:
    """What is gained, and what it costs, by how much of what is removed is removed: at each dose below the full."""
    rows = [_parted(name)[0] for name in table.kinds]
    names = [name for name in dict.fromkeys(rows) if rows.count(name) > 1]
    wanted = ("PSNR abdomen", "contrast kept 6 mm +50 HU", "moderate edges wider", "worst bias bone")
    return [
        Plot(
            f"{figure} by strength, {100 * dose:g} % dose",
            "strength",
            FIGURES[figure].unit,
            {name: _over_strength(table, (figure, name), dose) for name in names},
        )
        for dose in table.doses
        if dose < 1 and names
        for figure in wanted
    ]


def svg(plot: Plot) -> str:
    """A plot; lines without points are left out."""
    lines = {name: _told(points) for name, points in plot.lines.items()}
    lines = {name: points for name, points in lines.items() if points}
    points = [point for own in lines.values() for point in own]
    if not points:
        return ""
    across = _range([point.x for point in points])
    up = _range([y for point in points for y in (point.y, *(point.interval or ()))])
    drawn = [_line(name, own, (across, up), number) for number, (name, own) in enumerate(lines.items())]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="11">'
        f'<text x="{_LEFT}" y="16" font-weight="bold">{escape(plot.title)}</text>'
        f"{_axes(plot, across, up)}{''.join(drawn)}</svg>"
    )


def _over_dose(table: Table, figure: str, denoiser: str) -> list[Point]:
    return [_point(100 * dose, table.value(figure, denoiser, dose)) for dose in sorted(table.doses)]


def _power(table: Table, dose: float) -> dict[str, list[Point]]:
    return {
        name: [Point(at, table.value(f"NPS {at:.2f}/mm", name, dose).value) for at in FREQUENCIES_PER_MM]
        for name in table.kinds
    }


def _over_strength(table: Table, what: tuple[str, str], dose: float) -> list[Point]:
    figure, name = what
    parted = {one: _parted(one) for one in table.kinds}
    strengths = {strength: one for one, (base, strength) in parted.items() if base == name}
    strengths[0.0] = next(iter(table.kinds))
    found = [_point(strength, table.value(figure, strengths[strength], dose)) for strength in sorted(strengths)]
    return _told(found)


def _parted(row: str) -> tuple[str, float]:
    """The denoiser that a row is of, and its strength."""
    found = _WITH_STRENGTH.fullmatch(row)
    return (found[1], float(found[2])) if found else (row, 1.0)


def _point(x: float, found: Estimate) -> Point:
    return Point(x, found.value, found.interval)


def _told(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point.y)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


Range = tuple[float, float]


def _x(value: float, across: Range) -> float:
    return _LEFT + (value - across[0]) / (across[1] - across[0]) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, up: Range) -> float:
    return _HEIGHT - _BOTTOM - (value - up[0]) / (up[1] - up[0]) * (_HEIGHT - _TOP - _BOTTOM)


def _line(name: str, points: Sequence[Point], ranges: tuple[Range, Range], number: int) -> str:
    across, up = ranges
    colour = _COLOURS[number % len(_COLOURS)]
    places = " ".join(f"{_x(point.x, across):.1f},{_y(point.y, up):.1f}" for point in points)
    bars = "".join(
        f'<line stroke="{colour}" stroke-opacity="0.5" x1="{_x(point.x, across):.1f}" x2="{_x(point.x, across):.1f}" '
        f'y1="{_y(point.interval[0], up):.1f}" y2="{_y(point.interval[1], up):.1f}"/>'
        for point in points
        if point.interval is not None
    )
    at = _TOP + 14 * (number + 1)
    return (
        f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{places}"/>{bars}'
        f'<text x="{_WIDTH - _RIGHT + 8}" y="{at}" fill="{colour}">{escape(name[:30])}</text>'
    )


def _axes(plot: Plot, across: Range, up: Range) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    frame = f'<path fill="none" stroke="#444" d="M{_LEFT},{_TOP}V{bottom}H{right}"/>'
    ticks = ""
    for step in range(_TICKS + 1):
        x, y = (one[0] + step / _TICKS * (one[1] - one[0]) for one in (across, up))
        ticks += f'<text x="{_x(x, across):.0f}" y="{bottom + 14}" text-anchor="middle">{x:.3g}</text>'
        ticks += f'<text x="{_LEFT - 6}" y="{_y(y, up) + 4:.0f}" text-anchor="end">{y:.3g}</text>'
    named = f'<text x="{(_LEFT + right) / 2:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(plot.across)}</text>'
    return f'{frame}{ticks}{named}<text x="8" y="{_TOP - 2}">{escape(plot.up)}</text>'
