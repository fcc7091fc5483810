"""Planted nodules, and whether they can still be seen.

A response is the contrast that fits a place best: least squares of the planted shape and a free level. An observer
that knows shape and place, and looks at nothing but the response, is a matched filter that does not whiten the noise;
its detectability d' is the response to the nodule over the standard deviation of the response to noise alone.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from trainers.evaluate.cases import Case
from trainers.evaluate.windows import Pixels
from trainers.physics.lesions import Field, Imaging, Middle, Nodule, nodule_hu, removed, roomy_places, shown, within

_TISSUE_HU: Final = (-20.0, 120.0)
_MARGIN_PX: Final = 2.0
SUPPORT: Final = 2.0
"""Half the square that a response looks at, in radii."""
_APART_PX: Final = 4
_TURN: Final = math.radians(30.0)  # of tubes, from the rows
_TRACE: Final = 0.02  # share of its contrast from which on a nodule is there, and is removed
_AROUND: Final = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Lesion:
    """What is planted: so large, so much brighter (or darker) than what is around it.

    length_mm  of a tube that lies in the slice, round at its ends; 0: a ball
    """

    diameter_mm: float
    contrast_hu: float
    length_mm: float = 0.0

    @property
    def reach_mm(self) -> float:
        """From its middle to its farthest point."""
        return max(self.diameter_mm, self.length_mm) / 2

    def __str__(self) -> str:
        return f"{size_of(self)} {self.contrast_hu:+g} HU"


def size_of(lesion: Lesion) -> str:
    """As figures call it: what responds to lesions of one size, responds to noise alike whatever their contrast."""
    return "tube" if lesion.length_mm else f"{lesion.diameter_mm:g} mm"


BALLS: Final = tuple(Lesion(mm, hu) for mm in (6.0, 10.0) for hu in (50.0, -50.0, 20.0, -20.0))
"""Of the kind that training plants as well."""

TUBES: Final = tuple(Lesion(3.0, hu, 10.0) for hu in (50.0, -20.0))
"""That no training plants, of the area of a disc of 6 mm: whether what is kept is more than what was trained for."""

LESIONS: Final = (*BALLS, *TUBES)


@dataclass(frozen=True, eq=False)
class Site:
    """A place with its nodule.

    added   what it adds to the slice, in HU
    box     (rows, columns) that a response looks at
    filter  of the box; its product with an image sums up to the response, in HU of contrast
    """

    lesion: Lesion
    added: Pixels
    box: tuple[slice, slice]
    filter: Pixels

    def response(self, hu: Pixels) -> float:
        """The contrast that fits best here, in HU: positive where it is of the planted sign."""
        return math.copysign(1.0, self.lesion.contrast_hu) * float((self.filter * hu[self.box]).sum(dtype=np.float64))


@dataclass(frozen=True, eq=False)
class Planted:
    """A slice with nodules at all of its sites, and the same with each of them removed again."""

    sites: tuple[Site, ...]
    planted: Pixels
    removed: Pixels


def planted_in(case: Case, lesions: Sequence[Lesion] = LESIONS) -> Planted:
    """Nodules where there is room for them; the same slice always gives the same places."""
    full = case.full
    rng = np.random.default_rng(zlib.crc32(full.tobytes()))
    order = rng.permutation(len(lesions))
    sites: list[Site] = []
    gone = full
    for at in order:
        place = _place(case, full, lesions[at], sites, rng)
        if place is None:
            continue
        site = site_of(case, lesions[at], place)
        mask = cv2.dilate((np.abs(site.added) > _TRACE * abs(site.lesion.contrast_hu)).astype(np.uint8), _AROUND) > 0
        try:
            gone = removed(gone + site.added, mask, rng)
        except ValueError:
            continue  # nothing beside it to take texture from
        sites.append(site)
    planted = full + np.sum([site.added for site in sites], axis=0, dtype=np.float32) if sites else full
    return Planted(tuple(sites), planted, gone)


def site_of(case: Case, lesion: Lesion, place: tuple[int, int]) -> Site:
    """A nodule at a pixel of the slice, at least its diameter from the border."""
    imaging = case.imaging
    added = lesion_hu(lesion, place, case.full.shape, imaging)
    reach = reach_px(lesion, imaging.pixel_mm)
    box = (slice(place[0] - reach, place[0] + reach + 1), slice(place[1] - reach, place[1] + reach + 1))
    return Site(lesion, added, box, filter_of(added[box] / np.float32(lesion.contrast_hu)))


def lesion_hu(lesion: Lesion, place: tuple[int, int], shape: tuple[int, int], imaging: Imaging) -> Pixels:
    """What a lesion adds to a slice of `shape`: HU, 0 far from it."""
    if not lesion.length_mm:
        return nodule_hu(Nodule(*place, lesion.diameter_mm / 2, lesion.contrast_hu), shape, imaging)

    def filled(down: Field, across: Field) -> Pixels:
        return within(_to_axis(lesion, down, across), lesion.diameter_mm / 2, 0.0, imaging.thickness_mm)

    return shown(filled, Middle(*place, lesion.reach_mm), shape, imaging) * np.float32(lesion.contrast_hu)


def _to_axis(lesion: Lesion, down: Field, across: Field) -> Field:
    """Distance in mm from the line in the middle of a tube."""
    along = down * math.sin(_TURN) + across * math.cos(_TURN)
    beside = down * math.cos(_TURN) - across * math.sin(_TURN)
    half = (lesion.length_mm - lesion.diameter_mm) / 2
    return np.asarray(np.hypot(np.maximum(np.abs(along) - half, 0.0), beside), dtype=np.float64)


def filter_of(shape: Pixels) -> Pixels:
    """Whose product with an image sums up to the contrast that fits best, with a free level.

    shape  of a square: what a nodule adds to it, over its contrast
    """
    above = shape - shape.mean()
    return np.asarray(above / np.square(above).sum(), dtype=np.float32)


def roomy_for(full: Pixels, lesion: Lesion, pixel_mm: float, radii: float = 1.0) -> NDArray[np.intp]:
    """Pixels with soft tissue for so many radii about them, and a whole square to look at: (places, 2), row and
    column."""
    reach = reach_px(lesion, pixel_mm)
    places = roomy_places(full, radii * lesion.reach_mm / pixel_mm + _MARGIN_PX, _TISSUE_HU)
    return places[(places >= reach).all(axis=1) & (places < np.array(full.shape) - reach).all(axis=1)]


def reach_px(lesion: Lesion, pixel_mm: float) -> int:
    """Half of the square that a response looks at."""
    return math.ceil(SUPPORT * lesion.reach_mm / pixel_mm)


def _place(
    case: Case, full: Pixels, lesion: Lesion, sites: Sequence[Site], rng: np.random.Generator
) -> tuple[int, int] | None:
    """A pixel with soft tissue all about it, away from the other nodules; None where there is none."""
    pixel_mm = case.imaging.pixel_mm
    reach = reach_px(lesion, pixel_mm)
    places = roomy_for(full, lesion, pixel_mm)
    kept = np.ones(len(places), dtype=np.bool_)
    for site in sites:
        middle, half = _middle(site.box)
        kept &= (np.abs(places - middle) > reach + half + _APART_PX).any(axis=1)
    places = places[kept]
    if not len(places):
        return None
    row, column = places[int(rng.integers(len(places)))]
    return int(row), int(column)


def _middle(box: tuple[slice, slice]) -> tuple[tuple[int, int], int]:
    """Middle of a square, and half its width."""
    half = (box[0].stop - box[0].start) // 2
    return (box[0].start + half, box[1].start + half), half
