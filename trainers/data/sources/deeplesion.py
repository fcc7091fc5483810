"""DeepLesion (Yan et al., J Med Imaging 2018; 5:036501).

`Images_png/<patient>_<study>_<series>/<slice>.png`, 16 bit, HU plus 32768; and `DL_info.csv`, a row a lesion, with the
official split. Around each key slice a few neighbours are there, so a series of the original is several runs of slices.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from dicomnode.core.headers import finite
from trainers.data.pictures import read_picture
from trainers.data.series import LOWEST_HU, Credit, Series
from trainers.data.splits import Name
from trainers.errors import SourceError

CREDIT: Final = Credit(
    collection="DeepLesion",
    licence="NIH Clinical Center terms of use",
    attribution="Yan K, Wang X, Lu L, Summers R M. DeepLesion. J Med Imaging 2018; 5:036501. NIH Clinical Center.",
    source="https://nihcc.app.box.com/v/DeepLesion",
)
_FOLDER: Final = re.compile(r"(\d{6})_(\d{2})_(\d{2})")
_SLICE: Final = re.compile(r"(\d{3})\.png")
_ZERO: Final = 32768
_SPLITS: Final[Mapping[str, Name]] = {"1": "train", "2": "validation", "3": "test"}
_LARGEST_BYTES: Final = 256 << 20


@dataclass(frozen=True)
class Lesion:
    """One row of DL_info.csv; places are pixels of the slice, columns first.

    series       name of the folder
    slice_index  of the key slice, as the file's name has it
    recist       (x, y) of the ends of the long and of the short diameter
    box          (left, top, right, bottom)
    long_px, short_px  the diameters
    spacing_mm   (between slices, between rows and columns)
    split        the official one
    noisy        the row is marked as possibly wrong: such rows are left out of official figures
    """

    series: str
    slice_index: int
    recist: tuple[tuple[float, float], ...]
    box: tuple[float, float, float, float]
    long_px: float
    short_px: float
    spacing_mm: tuple[float, float]
    split: Name
    noisy: bool

    @property
    def patient(self) -> str:
        """As of the series."""
        return _patient(self.series)


def read_lesions(table: Path) -> tuple[Lesion, ...]:
    """The rows of DL_info.csv. Raises SourceError where one cannot be read, or a patient is in two splits."""
    try:
        if table.stat().st_size > _LARGEST_BYTES:
            raise SourceError(f"{table.name} is too large for DL_info.csv", "fetch it again")
        with table.open(newline="") as file:
            lesions = tuple(_lesion(row, f"{table.name}, row {at}") for at, row in enumerate(csv.DictReader(file), 2))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{table.name} cannot be read ({type(error).__name__})", "fetch it again") from None
    _require_one_split(lesions, table.name)
    return lesions


def read_deeplesion(images: Path, lesions: tuple[Lesion, ...], credit: Credit = CREDIT) -> Iterator[Series]:
    """The runs of neighbouring slices below `Images_png`, of the series that have lesions in the table."""
    spacing = {lesion.series: lesion.spacing_mm for lesion in lesions}
    for folder in sorted(path for path in images.iterdir() if path.is_dir() and path.name in spacing):
        for run in _runs(folder):
            yield _series(folder, run, spacing[folder.name], credit)


def _runs(folder: Path) -> Iterator[tuple[int, ...]]:
    numbers = sorted(int(found[1]) for path in folder.iterdir() if (found := _SLICE.fullmatch(path.name)))
    begins = [at for at, (one, next_one) in enumerate(pairwise(numbers), 1) if next_one != one + 1]
    for begin, end in pairwise((0, *begins, len(numbers))):
        if end > begin:
            yield tuple(numbers[begin:end])


def _series(folder: Path, run: tuple[int, ...], spacing_mm: tuple[float, float], credit: Credit) -> Series:
    stored = [read_picture(folder / f"{number:03d}.png", grey=False) for number in run]
    name = f"{folder.name}/{run[0]:03d}"
    if any(one.dtype != np.uint16 or one.shape != stored[0].shape or one.ndim != 2 for one in stored):
        raise SourceError(f"{name} has slices that are not 16-bit grey of one size", "fetch the series again")
    hu = (np.stack(stored).astype(np.int32) - _ZERO).clip(LOWEST_HU, np.iinfo(np.int16).max).astype(np.int16)
    step_mm, pixel_mm = spacing_mm
    return Series(
        patient=_patient(folder.name),
        name=name,
        hu=hu,
        spacing_mm=(step_mm, pixel_mm, pixel_mm),
        z_mm=np.array(run) * step_mm if len(run) > 1 else None,
        credit=credit,
    )


def _patient(series: str) -> str:
    return f"DeepLesion-{series[:6]}"


def _lesion(row: Mapping[str, str | None], where: str) -> Lesion:
    folder, _, slice_name = (row.get("File_name") or "").rpartition("_")
    number = _SLICE.fullmatch(slice_name)
    ends, box = _numbers(row, "Measurement_coordinates", 8, where), _numbers(row, "Bounding_boxes", 4, where)
    diameters = _numbers(row, "Lesion_diameters_Pixel_", 2, where)
    spacing = _numbers(row, "Spacing_mm_px_", 3, where)
    split = _SPLITS.get((row.get("Train_Val_Test") or "").strip())
    if not _FOLDER.fullmatch(folder) or number is None or split is None or min(spacing) <= 0:
        raise SourceError(f"{where} is no row of DL_info.csv", "fetch the table again")
    return Lesion(
        series=folder,
        slice_index=int(number[1]),
        recist=tuple((ends[at], ends[at + 1]) for at in range(0, 8, 2)),
        box=(box[0], box[1], box[2], box[3]),
        long_px=diameters[0],
        short_px=diameters[1],
        spacing_mm=(spacing[2], spacing[0]),
        split=split,
        noisy=(row.get("Possibly_noisy") or "").strip() == "1",
    )


def _numbers(row: Mapping[str, str | None], column: str, count: int, where: str) -> tuple[float, ...]:
    found = [finite(text.strip()) for text in (row.get(column) or "").split(",")]
    numbers = tuple(one for one in found if one is not None)
    if len(numbers) != count or len(found) != count:
        raise SourceError(f"{where}: {column} has not {count} numbers", "fetch the table again")
    return numbers


def _require_one_split(lesions: tuple[Lesion, ...], name: str) -> None:
    splits: dict[str, set[Name]] = defaultdict(set)
    for lesion in lesions:
        splits[lesion.patient].add(lesion.split)
    if any(len(own) > 1 for own in splits.values()):
        raise SourceError(f"{name} has a patient in two splits", "fetch the table again: the official one has none")
