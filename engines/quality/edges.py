"""How sharp an image is: width and modulation of edges that are found, not drawn.

Edges are found on the smoothed source, both images are read along the same lines across them, and the lines are
averaged before anything is measured: noise averages out, so a noisy source does not seem sharper than it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.quality.slices import Pixels, Places, blurred, gradient_of

_SMOOTHING_PX: Final = 2.0  # less, and an edge is found where noise steepens it: a noisy source then seems sharper
_REACH_PX: Final = 8.0
_STEP_PX: Final = 0.25
_PLATEAU_PX: Final = 4.0
_POSITIONS: Final = np.arange(-_REACH_PX, _REACH_PX + _STEP_PX / 2, _STEP_PX)
_MOST_PER_SLICE: Final = 600
_FEWEST: Final = 30
_UNEVEN: Final = 0.15
_FREQUENCIES: Final = 512  # of the transform of an edge, at steps of a quarter px: 0.0078 cycles a px apart

_REMAPPED: Final = 1024  # OpenCV takes fewer than 32767 rows of places at once

Lines = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Edges:
    """Places where one flat region meets another: all arrays have one entry an edge.

    row, column            the steepest point, in pixels
    down, across           unit vector from the darker to the brighter side
    low, high              mean of the source on either side, 4 to 8 px away
    """

    row: NDArray[np.float64]
    column: NDArray[np.float64]
    down: NDArray[np.float64]
    across: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def where(self, kept: Places) -> Edges:
        """The edges that are kept."""
        return Edges(*(getattr(self, name)[kept] for name in ("row", "column", "down", "across", "low", "high")))

    @property
    def step(self) -> NDArray[np.float64]:
        """Height of each edge, in the unit of the pixels."""
        return self.high - self.low


def find_edges(pixels: Pixels, measured: Places, steps: tuple[float, float]) -> Edges:
    """Edges whose height lies in `steps` and whose two sides are flat; `measured` is False where there is padding."""
    smoothed = blurred(pixels, _SMOOTHING_PX)
    candidates = _steepest_points(smoothed, measured, steps[0])
    if not len(candidates.row):
        return candidates
    lines = _read(smoothed, candidates)
    dark, bright = lines[:, _POSITIONS <= -_PLATEAU_PX], lines[:, _POSITIONS >= _PLATEAU_PX]
    low, high = dark.mean(axis=1), bright.mean(axis=1)
    step = high - low
    even = np.maximum(dark.std(axis=1), bright.std(axis=1)) <= _UNEVEN * step
    edges = Edges(candidates.row, candidates.column, candidates.down, candidates.across, low, high)
    return edges.where(even & (step >= steps[0]) & (step <= steps[1]))


def edge_width_px(
    pairs: Iterable[tuple[Pixels, Pixels, Places]], steps: tuple[float, float] = (100.0, 1e9)
) -> tuple[float, float] | None:
    """Distance in px over which the middle 50 % of the mean edge is made, (before, after); None: fewer than 30 edges.

    pairs  (slice before, the same slice after, True where measured)
    steps  (lowest, highest) height of the edges that count, in the unit of the pixels
    """
    lines = _mean_lines(pairs, steps)
    return None if lines is None else (_half_width_px(lines[0]), _half_width_px(lines[1]))


@dataclass(frozen=True)
class EdgeResponse:
    """What is left of edges.

    width_before_px, width_after_px  distance over which the middle 50 % of the mean edge is made
    half_per_px  frequency at which the source's modulation transfer has fallen to a half, in cycles a px
    modulation   modulation of the output at that frequency, as a share of the source's: 1 where nothing is lost
    """

    width_before_px: float
    width_after_px: float
    half_per_px: float
    modulation: float


def edge_response(
    pairs: Iterable[tuple[Pixels, Pixels, Places]], steps: tuple[float, float] = (100.0, 1e9)
) -> EdgeResponse | None:
    """Width and modulation at edges of `steps` height; None where fewer than 30. Arguments as of `edge_width_px`.

    The modulation transfer is the transform of the mean edge's derivative (ISO 12233; on images as they are it is
    AAPM TG-233's task transfer function, section 3.2.2: it holds for this contrast and this noise).
    """
    lines = _mean_lines(pairs, steps)
    if lines is None:
        return None
    before, after = (np.abs(np.fft.rfft(np.diff(line), _FREQUENCIES)) for line in lines)
    half = int(np.argmax(before < 0.5 * before[0]))
    return EdgeResponse(
        _half_width_px(lines[0]),
        _half_width_px(lines[1]),
        half / (_FREQUENCIES * _STEP_PX),
        float(after[half] / before[half]),
    )


def _mean_lines(
    pairs: Iterable[tuple[Pixels, Pixels, Places]], steps: tuple[float, float]
) -> tuple[Lines, Lines] | None:
    """The mean edge before and after, dark side 0 and bright side 1; None where fewer than 30 were found."""
    before: list[Lines] = []
    after: list[Lines] = []
    for old, new, measured in pairs:
        edges = find_edges(old, measured, steps)
        before.append(_normalised(old, edges))
        after.append(_normalised(new, edges))
    if sum(len(lines) for lines in before) < _FEWEST:
        return None
    return np.concatenate(before).mean(axis=0), np.concatenate(after).mean(axis=0)


def _steepest_points(smoothed: Pixels, measured: Places, least_step: float) -> Edges:
    """Local maxima of the gradient along its own direction, at most 600, evenly taken in reading order."""
    down, across = gradient_of(smoothed)
    slope = np.asarray(cv2.magnitude(down, across), dtype=np.float32)
    reach = 2 * int(_REACH_PX) + 3
    inside = cv2.erode(
        measured.astype(np.uint8), np.ones((reach, reach), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    # An edge of the least step that the scanner and the smoothing blur by 3 px is this steep: 1 / (sqrt(2 pi) 3 px).
    row, column = (index.astype(np.float64) for index in np.nonzero((inside > 0) & (slope > least_step / 7.5)))
    here = slope[row.astype(int), column.astype(int)]
    unit_down, unit_across = (part[row.astype(int), column.astype(int)] / here for part in (down, across))
    ahead, behind = (
        _values(slope, row + sign * unit_down, column + sign * unit_across, cv2.INTER_LINEAR) for sign in (1.0, -1.0)
    )
    nothing = np.zeros(len(row))
    edges = Edges(row, column, unit_down.astype(np.float64), unit_across.astype(np.float64), nothing, nothing)
    edges = edges.where((here > ahead) & (here >= behind))
    taken = np.zeros(len(edges.row), dtype=np.bool_)
    taken[:: max(1, -(-len(taken) // _MOST_PER_SLICE))] = True
    return edges.where(taken)


def _read(pixels: Pixels, edges: Edges) -> Lines:
    """Values along the line across each edge: (edges, positions)."""
    rows = edges.row[:, None] + edges.down[:, None] * _POSITIONS
    columns = edges.column[:, None] + edges.across[:, None] * _POSITIONS
    return _values(pixels, rows, columns, cv2.INTER_CUBIC)


def _values(pixels: Pixels, rows: Lines, columns: Lines, interpolation: int) -> Lines:
    """The image between its pixels; beyond its border it goes on as it ends."""
    padded = -(-rows.size // _REMAPPED) * _REMAPPED
    across, down = (np.resize(axis, padded).astype(np.float32).reshape(-1, _REMAPPED) for axis in (columns, rows))
    if not padded:
        return np.zeros(rows.shape)
    values = cv2.remap(pixels, across, down, interpolation, borderMode=cv2.BORDER_REPLICATE)
    return values.ravel()[: rows.size].astype(np.float64).reshape(rows.shape)


def _normalised(pixels: Pixels, edges: Edges) -> NDArray[np.float64]:
    return (_read(pixels, edges) - edges.low[:, None]) / edges.step[:, None]


def _half_width_px(line: NDArray[np.float64]) -> float:
    """From the last crossing of 25 % before the middle to the first of 75 % after it, linearly interpolated."""
    middle = int(np.argmin(np.abs(line - 0.5) + 0.05 * np.abs(_POSITIONS)))
    return _crossing(line, middle, 0.75, 1) - _crossing(line, middle, 0.25, -1)


def _crossing(line: NDArray[np.float64], middle: int, level: float, towards: int) -> float:
    at = middle
    while 0 <= at + towards < len(line) and (line[at + towards] - level) * towards < 0:
        at += towards
    end = min(max(at + towards, 0), len(line) - 1)
    rise = line[end] - line[at]
    part = 0.0 if rise == 0 else (level - line[at]) / rise
    return float(_POSITIONS[at] + part * towards * _STEP_PX)
