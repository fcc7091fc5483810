"""The grid of a derived image that has more rows and columns than its source, over the same place of the patient."""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from dicomnode.core.derive.elements import ascii_text, put_encoded
from dicomnode.core.headers import finite
from dicomnode.errors import InputError

_SPACINGS: Final = ("PixelSpacing", "ImagerPixelSpacing")
_HALVES: Final = 0.5


def factor_of(source: tuple[int, int], derived: tuple[int, ...]) -> int:
    """How many rows and columns of the derived image there are for one of the source; shapes are (rows, columns).

    Raises InputError where that is no whole number, or not the same for both.
    """
    factor = derived[0] // max(1, source[0])
    if factor < 1 or derived != (source[0] * factor, source[1] * factor):
        raise InputError(f"the result is {derived}, its source {source}", "this is a defect: report it")
    return factor


def put_grid(image: Dataset, source: Dataset, factor: int) -> None:
    """Spacing and position of pixels of which `factor` x `factor` fill one of the source (PS3.3 C.7.6.2, C.7.6.3).

    Image Position (Patient) is the centre of the first pixel, which moves towards the corner of the source's.
    """
    if factor == 1:
        return
    spacings = {keyword: _numbers(source, keyword, 2) for keyword in _SPACINGS}
    for keyword, found in spacings.items():
        if found is not None:
            _put(image, keyword, [spacing / factor for spacing in found])
    position, cosines = _numbers(source, "ImagePositionPatient", 3), _numbers(source, "ImageOrientationPatient", 6)
    spacing_mm = spacings["PixelSpacing"]
    if position is None or cosines is None or spacing_mm is None:
        return  # a projection has no place in the patient
    row_mm, column_mm = spacing_mm
    shift = _HALVES / factor - _HALVES
    along_row, along_column = cosines[:3], cosines[3:]
    moved = [
        place + shift * (across * column_mm + down * row_mm)
        for place, across, down in zip(position, along_row, along_column, strict=True)
    ]
    _put(image, "ImagePositionPatient", moved)


def _numbers(source: Dataset, keyword: str, count: int) -> list[float] | None:
    found = [finite(text) for text in ascii_text(source, keyword).split("\\")]
    numbers = [number for number in found if number is not None]
    return numbers if len(numbers) == len(found) == count else None


def _put(image: Dataset, keyword: str, numbers: list[float]) -> None:
    text = "\\".join(format_number_as_ds(number + 0.0) for number in numbers)
    put_encoded(image, keyword, text.encode("ascii"))
