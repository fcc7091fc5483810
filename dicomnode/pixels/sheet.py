"""One page of pictures, curves and a table, drawn as pixels: A4 upright at 150 dots an inch, black on white.

Drawn with OpenCV's own strokes, so that it looks the same on every machine and needs no fonts. What is written on it is
ASCII; anything else is shown as a question mark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.uint8]
"""(rows, columns), 0 black."""

ROWS: Final = 1754
COLUMNS: Final = 1240

_MARGIN: Final = 60
_LINE: Final = 24
_GREY: Final = 150
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_CURVE_ROWS: Final = 360
_PICTURE_GAP: Final = 20
_WIDEST_LINE: Final = 110  # characters of the small letters that fit


@dataclass(frozen=True, eq=False)
class Picture:
    """A slice: float32 (rows, columns), shown from centre - width / 2 (black) to centre + width / 2 (white)."""

    caption: str
    pixels: NDArray[np.float32]
    centre: float
    width: float


@dataclass(frozen=True)
class Curve:
    """One line of a plot; the second and later ones are dashed."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Plot:
    """Curves over one axis, both beginning at 0."""

    title: str
    x_label: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, eq=False)
class Sheet:
    """All that is on the page. `table` is (what, value) in two columns; `notes` are sentences below it."""

    title: str
    subtitles: tuple[str, ...]
    pictures: tuple[Picture, ...]
    plot: Plot | None
    table: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def draw(sheet: Sheet) -> Canvas:
    """The page, (1754, 1240) uint8. What does not fit below is left out, and said so."""
    page: Canvas = np.full((ROWS, COLUMNS), 255, dtype=np.uint8)
    _write(page, sheet.title, (_MARGIN, 80), 1.0, 2)
    at = 115
    for line in sheet.subtitles:
        _write(page, line, (_MARGIN, at))
        at += _LINE
    at = _draw_pictures(page, sheet.pictures, at)
    if sheet.plot is not None:
        at = _draw_plot(page, sheet.plot, at)
    at = _draw_table(page, sheet.table, at)
    _draw_notes(page, sheet.notes, at)
    return page


def png(page: Canvas) -> bytes:
    """The page as a PNG file."""
    made, encoded = cv2.imencode(".png", page)
    assert made, "an 8-bit image of one channel can be encoded"
    return encoded.tobytes()


def grey(picture: Picture) -> Canvas:
    """Grey values of a picture by its window; what is no number is black."""
    low, high = picture.centre - picture.width / 2, picture.centre + picture.width / 2
    numbers = np.nan_to_num(picture.pixels.astype(np.float64), nan=low)
    levels: Canvas = np.rint((numbers.clip(low, high) - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    return levels


def _draw_pictures(page: Canvas, pictures: Sequence[Picture], at: int) -> int:
    if not pictures:
        return at
    room = (COLUMNS - 2 * _MARGIN - _PICTURE_GAP * (len(pictures) - 1)) // len(pictures)
    side = min(room, 480)
    for index, picture in enumerate(pictures):
        left = _MARGIN + index * (side + _PICTURE_GAP)
        _place(page, grey(picture), (left, at), side)
        _write(page, picture.caption, (left, at + side + _LINE))
        shown = f"centre {picture.centre:.4g}, width {picture.width:.4g}"
        _write(page, shown, (left, at + side + 2 * _LINE))
    return at + side + 4 * _LINE


def _place(page: Canvas, levels: Canvas, corner: tuple[int, int], side: int) -> None:
    """Fit a picture into a square, its proportions kept."""
    rows, columns = levels.shape
    scale = side / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    fitted = cv2.resize(levels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = corner
    page[top : top + size[1], left : left + size[0]] = fitted
    cv2.rectangle(page, (left - 1, top - 1), (left + size[0], top + size[1]), _GREY)


def _draw_plot(page: Canvas, plot: Plot, at: int) -> int:
    left, right, top, bottom = _MARGIN + 80, COLUMNS - _MARGIN, at + _LINE, at + _CURVE_ROWS - 2 * _LINE
    _write(page, plot.title, (_MARGIN, at))
    farthest = max((value for curve in plot.curves for value in curve.x), default=1.0) or 1.0
    highest = max((value for curve in plot.curves for value in curve.y), default=1.0) or 1.0
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = round(left + share * (right - left)), round(bottom - share * (bottom - top))
        cv2.line(page, (x, top), (x, bottom), 220)
        cv2.line(page, (left, y), (right, y), 220)
        _write(page, f"{share * farthest:.3g}", (x - 20, bottom + _LINE), 0.45)
        _write(page, f"{share * highest:.3g}", (_MARGIN, y + 5), 0.45)
    _write(page, plot.x_label, (right - 12 * len(plot.x_label), bottom + 2 * _LINE), 0.45)
    for index, curve in enumerate(plot.curves):
        points = [
            (round(left + x / farthest * (right - left)), round(bottom - y / highest * (bottom - top)))
            for x, y in zip(curve.x, curve.y, strict=True)
        ]
        _draw_line(page, points, dashed=index > 0)
        legend = (right - 100 - 200 * (len(plot.curves) - 1 - index), at)  # beside the title: no curve is there
        _draw_line(page, [(legend[0] - 80, legend[1] - 5), (legend[0] - 10, legend[1] - 5)], dashed=index > 0)
        _write(page, curve.label, legend)
    return at + _CURVE_ROWS + _LINE


def _draw_line(page: Canvas, points: Sequence[tuple[int, int]], *, dashed: bool) -> None:
    for (x, y), (to_x, to_y) in pairwise(points):
        pieces = max(1, round(math.hypot(to_x - x, to_y - y) / 8)) if dashed else 1
        for piece in range(0, pieces, 2):
            part = [
                (round(x + (to_x - x) * share), round(y + (to_y - y) * share))
                for share in (piece / pieces, min(1.0, (piece + 1) / pieces))
            ]
            cv2.line(page, part[0], part[1], 0, 2, cv2.LINE_AA)


def _draw_table(page: Canvas, table: Sequence[tuple[str, str]], at: int) -> int:
    half = math.ceil(len(table) / 2)
    for index, (what, value) in enumerate(table):
        left = _MARGIN if index < half else COLUMNS // 2 + 10
        line = at + (index % half) * _LINE
        if line < ROWS - _MARGIN:
            _write(page, what, (left, line))
            _write(page, value, (left + 390, line))
    return at + (half + 1) * _LINE


def _draw_notes(page: Canvas, notes: Sequence[str], at: int) -> None:
    lines = [line for note in notes for line in _wrapped(note)]
    room = max(0, (ROWS - _MARGIN - at) // _LINE)
    if len(lines) > room:
        lines = [*lines[: max(0, room - 1)], f"... and {len(lines) - max(0, room - 1)} more lines: see `dicomnode why`"]
    for index, line in enumerate(lines[:room]):
        _write(page, line, (_MARGIN, at + index * _LINE))


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= _WIDEST_LINE:
            lines.append("  ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1].strip() else f"{lines[-1]}{word}"
    return lines


def _write(page: Canvas, text: str, corner: tuple[int, int], size: float = 0.55, weight: int = 1) -> None:
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    cv2.putText(page, plain, corner, _FONT, size, 0, weight, cv2.LINE_AA)
