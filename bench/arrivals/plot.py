"""The curve as a picture: premature closings against median delay, both on logarithmic scales, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from bench.arrivals.figures import Point

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 30, 50, 60
_DELAYS_S: Final = (1, 2, 5, 10, 20, 60, 100)
_SHARES: Final = (0.00005, 0.0001, 0.001, 0.01, 0.1, 0.5)
_OURS, _OTHERS = "#1f6f8b", "#b5482f"


def svg(points: Sequence[Point]) -> str:
    """The points of both kinds, each joined by a line. None at all is drawn at the foot of the scale."""
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    title = "Series closed too early, by how long the median series waits after its last instance"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
            '<g font-family="system-ui, sans-serif" font-size="12" fill="#222">',
            f'<text x="{_LEFT}" y="24" font-size="14" font-weight="600">{title}</text>',
            *_axes(),
            *_curve([point for point in points if point.kind == "fixed"], _OTHERS),
            *_curve([point for point in points if point.kind == "learned"], _OURS),
            "</g>",
            "</svg>\n",
        ]
    )


def _axes() -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    lines = []
    for delay_s in _DELAYS_S:
        x = _x(delay_s)
        lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{delay_s} s</text>')
    for share in _SHARES:
        y = _y(share)
        label = "none" if share == _SHARES[0] else f"{100 * share:g} %"
        lines.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    middle = (_LEFT + right) / 2
    lines.append(
        f'<text x="{middle}" y="{_HEIGHT - 16}" text-anchor="middle">median delay after the last instance</text>'
    )
    return lines


def _curve(points: Sequence[Point], colour: str) -> list[str]:
    places = [(_x(point.median_s), _y(point.share), point) for point in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    marks = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
        f'<text x="{x + 8:.1f}" y="{y - 6:.1f}" fill="{colour}">{_label(point)}</text>'
        for x, y, point in places
    ]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *marks]


def _label(point: Point) -> str:
    return f"{point.kind}, {point.setting.partition(',')[0]}"


def _x(delay_s: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * _part(delay_s, _DELAYS_S[0], _DELAYS_S[-1])


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * _part(share, _SHARES[0], _SHARES[-1])


def _part(value: float, least: float, most: float) -> float:
    """Where a value lies on a logarithmic scale, from 0 to 1."""
    return math.log(min(max(value, least), most) / least) / math.log(most / least)
