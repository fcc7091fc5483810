"""A matched filter at every place where a nodule has room and none is: how it scatters in noise, and what it finds that
the full dose has not.

A filter that looks at the few places of planted nodules alone would know little of one patient's noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from trainers.evaluate.cases import Case
from trainers.evaluate.nodules import LESIONS, SUPPORT, Lesion, filter_of, lesion_hu, reach_px, roomy_for, size_of
from trainers.evaluate.texture import Slices
from trainers.evaluate.windows import Pixels

SOUGHT: Final = Lesion(6.0, 50.0)
"""Something of its size and half its contrast that the full dose has not is invented; that only the full dose has, is
erased."""


@dataclass(frozen=True, eq=False)
class Probe:
    """What responds to lesions of one size, and where it is asked.

    size     of the lesions, as figures call it
    filter   (2 reach + 1, 2 reach + 1)
    part     (rows, columns) of the slice that holds all that is looked at
    places   bool, of `part` less `reach` on each side: middles with soft tissue all about them
    inner    those of them with soft tissue in all that the filter looks at: an edge that is blurred nearby is no lesion
    """

    size: str
    filter: Pixels
    part: tuple[slice, slice]
    places: NDArray[np.bool_]
    inner: NDArray[np.bool_]

    @property
    def finds_sought(self) -> bool:
        """Whether it is of the size of `SOUGHT`, and has a place to look for it."""
        return self.size == size_of(SOUGHT) and bool(self.inner.any())

    def responses(self, hu: Pixels) -> Pixels:
        """Contrasts in HU that fit best, brighter ones positive; of the size of `places`."""
        reach = self.filter.shape[0] // 2
        found = cv2.filter2D(np.ascontiguousarray(hu[self.part]), cv2.CV_32F, self.filter)
        return np.asarray(found[reach:-reach, reach:-reach], dtype=np.float32)


@dataclass(frozen=True)
class Changed:
    """Spots where contrasts of `SOUGHT` are new, or gone, in so much soft tissue.

    invented, erased  beside the full dose: noise does both
    drawn             more than the full dose and the low dose have alike, so not by noise
    """

    asked_cm2: float
    invented: int
    erased: int
    drawn: int


def probes_of(case: Case, lesions: Sequence[Lesion] = LESIONS) -> tuple[Probe, ...]:
    """One for each size that has room in the slice."""
    sizes = {size_of(lesion): lesion for lesion in lesions}
    found = (_probe(case, size, lesion) for size, lesion in sizes.items())
    return tuple(probe for probe in found if probe is not None)


def _probe(case: Case, size: str, lesion: Lesion) -> Probe | None:
    full, imaging = case.full, case.imaging
    middles = roomy_for(full, lesion, imaging.pixel_mm)
    if not len(middles):
        return None
    reach = reach_px(lesion, imaging.pixel_mm)
    shape = lesion_hu(lesion, (reach, reach), (2 * reach + 1, 2 * reach + 1), imaging) / np.float32(lesion.contrast_hu)
    first, last = middles.min(axis=0), middles.max(axis=0)
    places, inner = (np.zeros(last - first + 1, dtype=np.bool_) for _ in range(2))
    places[tuple((middles - first).T)] = True
    inner[tuple((roomy_for(full, lesion, imaging.pixel_mm, SUPPORT) - first).T)] = True
    rows, columns = (slice(low - reach, high + reach + 1) for low, high in zip(first, last, strict=True))
    return Probe(size, filter_of(shape), (rows, columns), places, inner)


def variance(probe: Probe, images: Sequence[Pixels]) -> float:
    """Of the response to noise alone, at least two realisations of it; the mean over all places, in HU^2."""
    responses = np.stack([probe.responses(hu)[probe.places] for hu in images])
    return float(responses.var(axis=0, ddof=1, dtype=np.float64).mean())


def changed(probe: Probe, seen: Slices, pixel_mm: float) -> Changed:
    """What a filter of the size of `SOUGHT` finds in an image that it does not find in the full dose, and the other
    way round. It is counted in spots, so that what is too bright here does not make up for what is too dark there."""
    full, low, made = (probe.responses(hu) for hu in (seen.full, seen.low, seen.made))
    least = abs(SOUGHT.contrast_hu) / 2
    is_other, is_more = np.abs(made - full) > least, np.abs(made) > np.abs(full)
    highest, lowest = np.maximum(np.maximum(full, low), 0.0), np.minimum(np.minimum(full, low), 0.0)
    is_beyond = (made > highest + least) | (made < lowest - least)
    asked_cm2 = float(np.count_nonzero(probe.inner)) * (pixel_mm / 10.0) ** 2
    counts = (_spots(probe.inner & places) for places in (is_other & is_more, is_other & ~is_more, is_beyond))
    return Changed(asked_cm2, *counts)


def _spots(places: NDArray[np.bool_]) -> int:
    """How many there are; what touches is one."""
    return cv2.connectedComponents(places.view(np.uint8))[0] - 1
