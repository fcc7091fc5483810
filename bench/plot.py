"""The medians as a picture: an SVG of bars, a panel for each group of cases, a line from the slowest to the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from bench.results import Case, Results

_PANEL, _COLUMNS, _MARGIN = 560, 2, 28
_NAME, _BAR, _ROW, _HEAD = 190, 270, 24, 46
_OURS, _OTHERS, _FLOOR = "#1f6f8b", "#c3cad0", "#e3b448"

_FONT: Final = 'font-family="system-ui, sans-serif" font-size="13" fill="#222"'
_SPREAD: Final = 'stroke="#222" stroke-width="1.5"'
_SMALL: Final = 'font-size="11" fill="#667"'


def svg(results: Results) -> str:
    """Instances a second of all cases."""
    panels, heights = results.groups(), [_MARGIN] * _COLUMNS
    placed = []
    for cases in panels:
        column = heights.index(min(heights))
        placed.append(_panel(results, cases, (_MARGIN + column * (_PANEL + _MARGIN), heights[column])))
        heights[column] += _HEAD + _ROW * len(cases) + _MARGIN
    width, height = _MARGIN + _COLUMNS * (_PANEL + _MARGIN), max(heights)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    paper = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([head, paper, f"<g {_FONT}>", *placed, "</g>", "</svg>\n"])


def _panel(results: Results, cases: Sequence[Case], corner: tuple[int, int]) -> str:
    first = cases[0]
    title = f"{first.part}: {first.kind}, {first.associations} association{'s' * (first.associations > 1)}"
    ordered = sorted(cases, key=lambda case: -(results.median(case) or 0))
    most = max(max(figures.instances_s for figures in results.visits[case]) for case in cases)
    rows = [_row(results, case, _HEAD + _ROW * number, most) for number, case in enumerate(ordered)]
    bottom = _HEAD + _ROW * len(cases) - 4
    return "\n".join(
        [
            f'<g transform="translate({corner[0]},{corner[1]})">',
            f'<text y="14" font-weight="600">{escape(title)}</text>',
            f'<text y="31" {_SMALL}>{escape(first.where)}; instances/s, median, least to most</text>',
            f'<line stroke="#99a" x1="{_NAME}" x2="{_NAME}" y1="{_HEAD - 6}" y2="{bottom}"/>',
            *rows,
            "</g>",
        ]
    )


def _row(results: Results, case: Case, top: int, most: float) -> str:
    rates = [figures.instances_s for figures in results.visits[case]]
    median = results.median(case) or 0.0
    length, low, high = (value / most * _BAR for value in (median, min(rates), max(rates)))
    middle = top + 8
    parts = [
        f'<text x="{_NAME - 8}" y="{middle + 4}" text-anchor="end">{escape(case.subject)}</text>',
        f'<rect x="{_NAME}" y="{top}" width="{length:.1f}" height="16" rx="2" fill="{_colour(case)}"/>',
        f'<line {_SPREAD} x1="{_NAME + low:.1f}" x2="{_NAME + high:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{_NAME + max(length, high) + 8:.1f}" y="{middle + 4}">{median:,.0f}</text>',
    ]
    return "\n".join(parts)


def _colour(case: Case) -> str:
    if case.subject.startswith("dicomnode"):
        return _OURS
    return _FLOOR if case.subject.startswith("floor") else _OTHERS
