"""Prompts: where a person has marked a lesion, by a box or by its RECIST diameters.

RECIST 1.1 (Eisenhauer et al., 2009) measures a lesion on one slice by its longest diameter and the longest one that is
perpendicular to it. Points are (column, row) in pixels of the volume's grid, the centre of the first pixel at (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineInputError

Point = tuple[float, float]
Axis = tuple[Point, Point]

_ROI_DIAMETERS: Final = 2.0
"""A region of interest is twice as large as the lesion's long diameter (Tang et al., 2018)."""

_MOST_MARKS: Final = 1000
_LONGEST_PX: Final = 65536.0


@dataclass(frozen=True)
class Box:
    """(left, top, right, bottom) in pixels, on one slice."""

    slice_index: int
    box: tuple[float, float, float, float]

    @property
    def points(self) -> tuple[Point, ...]:
        """Its corners, around."""
        left, top, right, bottom = self.box
        return (left, top), (right, top), (right, bottom), (left, bottom)

    @property
    def diameter_px(self) -> float:
        """Its longer side."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)


@dataclass(frozen=True)
class Recist:
    """The two diameters of a lesion, each by its ends, on one slice."""

    slice_index: int
    long_axis: Axis
    short_axis: Axis

    @property
    def points(self) -> tuple[Point, ...]:
        """The ends of both, around."""
        (first, last), (one, other) = self.long_axis, self.short_axis
        return first, one, last, other

    @property
    def diameter_px(self) -> float:
        """Length of the long axis."""
        return float(np.hypot(*np.subtract(*self.long_axis)))


Mark = Box | Recist


@dataclass(frozen=True)
class Prompt:
    """What a person marked: one lesion or several."""

    marks: tuple[Mark, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.marks) <= _MOST_MARKS:
            raise EngineInputError(f"a prompt has {len(self.marks)} marks", f"give 1 to {_MOST_MARKS}")
        for mark in self.marks:
            if not np.isfinite(mark.points).all() or not 0 < mark.diameter_px <= _LONGEST_PX:
                raise EngineInputError("a mark has no extent, or no end", "draw it from one side to the other")


def recist_from_patient(
    long_mm: NDArray[np.float64], short_mm: NDArray[np.float64], affine: NDArray[np.float64]
) -> Recist:
    """Marks from points in patient coordinates, as an SR or an annotation tool gives them.

    long_mm, short_mm  (2, 3): the two ends of an axis in LPS mm
    affine             of the volume they were drawn on
    Raises EngineInputError where they do not lie on one slice.
    """
    inverse = np.linalg.inv(affine)
    places = np.concatenate((long_mm, short_mm)) @ inverse[:3, :3].T + inverse[:3, 3]
    slice_index = round(float(places[:, 2].mean())) if np.isfinite(places).all() else 0
    if not np.abs(places[:, 2] - slice_index).max() <= 0.5:
        raise EngineInputError("the RECIST marks do not lie on one slice", "draw both diameters on the same slice")
    first, last, one, other = ((float(column), float(row)) for column, row, _ in places)
    return Recist(slice_index, (first, last), (one, other))


@dataclass(frozen=True)
class Region:
    """Rows and columns of a slice: [top, bottom) x [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def window(self) -> tuple[slice, slice]:
        """As an index of (rows, columns)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def finer(self, factor: int) -> Region:
        """The same place on a grid with `factor` times the rows and columns."""
        return Region(factor * self.top, factor * self.bottom, factor * self.left, factor * self.right)


def region_of_interest(mark: Mark, rows: int, columns: int, multiple_px: int = 1) -> Region:
    """The square around a mark, twice its diameter, grown to a multiple and moved so that it lies on the slice.

    Smaller than that only where the slice is. Raises EngineInputError where the mark lies outside of the slice.
    """
    centre_column, centre_row = np.mean(mark.points, axis=0)
    if not (0 <= centre_column < columns and 0 <= centre_row < rows):
        raise EngineInputError("a mark lies outside of the image", "draw it on the series that the engine runs on")
    wanted = int(np.ceil(_ROI_DIAMETERS * mark.diameter_px / multiple_px)) * multiple_px
    top, bottom = _placed(float(centre_row), wanted, rows)
    left, right = _placed(float(centre_column), wanted, columns)
    return Region(top, bottom, left, right)


def drawn(prompt: Prompt, slice_index: int, rows: int, columns: int) -> NDArray[np.float32]:
    """A prompt as an image: 1 within the marks of this slice (the quadrilateral of the diameters' ends), 0 outside."""
    image = np.zeros((rows, columns), dtype=np.float32)
    for mark in prompt.marks:
        if mark.slice_index == slice_index:
            corners = np.clip(np.rint(mark.points), -rows - columns, rows + columns).astype(np.int32)
            cv2.fillConvexPoly(image, corners, 1.0)
    return image


def _placed(centre: float, length: int, limit: int) -> tuple[int, int]:
    """[begin, end) of this length around `centre`, moved into 0...limit."""
    length = min(length, limit)
    begin = min(max(round(centre + 0.5 - length / 2), 0), limit - length)
    return begin, begin + length
