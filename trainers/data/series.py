"""What all sources yield: a CT series in HU, or a pair of series at two doses, or a natural picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOWEST_HU = -1024
"""What most scanners clip at. Padding outside the field of view is set to it."""

Stored = NDArray[np.int16]
"""HU, (slices, rows, columns)."""
Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Credit:
    """Who is to be named for an image, and on which terms it may be used; both reach the card of what is trained.

    collection   the published collection that it belongs to, such as "LIDC-IDRI"
    licence      as its publisher writes it, such as "CC BY 3.0"
    attribution  what the licence asks to be said
    source       where the copy was taken from
    """

    collection: str
    licence: str
    attribution: str = ""
    source: str = ""


@dataclass(frozen=True, eq=False)
class Series:
    """One stack of one patient.

    patient     identity within its collection; splits are made by it
    name        the file or folder that it came from, by its path below the folder of all images; safe to be printed
    hu          int16 HU (slices, rows, columns), sorted along z; often memory-mapped, never written to
    spacing_mm  (between slices, between rows, between columns); the first is the slice thickness of a lone slice
    z_mm        positions of the slices along the normal, (slices,); None where they are no neighbours
    kernel, kvp, maker, body_part   as DICOM has them ("" or None where it is not said)
    """

    patient: str
    name: str
    hu: Stored
    spacing_mm: tuple[float, float, float]
    z_mm: NDArray[np.float64] | None
    credit: Credit
    kernel: str = ""
    kvp: float | None = None
    maker: str = ""
    body_part: str = ""

    @property
    def slices(self) -> int:
        """How many there are."""
        return int(self.hu.shape[0])

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """(between rows, between columns)."""
        return self.spacing_mm[1], self.spacing_mm[2]


@dataclass(frozen=True, eq=False)
class PairedSeries:
    """The same slices at two doses, made by a scanner or by the collection's own simulation.

    full    at full dose
    low_hu  int16 HU of the same shape, at `dose`
    dose    share of the full dose, between 0 and 1
    """

    full: Series
    low_hu: Stored
    dose: float


@dataclass(frozen=True, eq=False)
class Picture:
    """A natural image.

    grey    uint8 (rows, columns); often memory-mapped
    digest  of its pixels, once it is in the cache
    """

    name: str
    grey: Grey
    credit: Credit
    digest: str = ""
