"""What a CT scanner makes of a uniform phantom: CT number of water, noise, uniformity, noise power spectrum.

The regions are those of the usual constancy test (IEC 61223-3-5): one in the middle of 40 % of the phantom's diameter,
and four at the rim, 10 % of it, 10 mm inside the edge. The phantom is found, not placed: the largest object that is no
air. Only slices whose middle is uniform count: modules with inserts, and the ends, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineInputError
from engines.quality.slices import Pair
from engines.quality.spectrum import NoisePower, noise_power
from engines.volume import HU, Volume

_AIR_HU: Final = -500.0
_MIDDLE_SHARE: Final = 0.4
_RIM_SHARE: Final = 0.1
_RIM_INSIDE_MM: Final = 10.0
_SMALLEST_MM: Final = 80.0
_ROUND: Final = 0.9  # area over that of the circle of the same width and height
_EVEN: Final = 1.5  # spread of the middle over the noise in it: an insert makes it larger
_MOST_SLICES: Final = 16
_BOUND_HU: Final = 4.0

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class ConstancyReport:
    """Figures of one phantom series, medians over its uniform slices.

    water_hu       mean of the region in the middle
    noise_hu       standard deviation there
    uniformity_hu  largest difference between a region at the rim and the middle
    slices         how many slices were uniform
    diameter_mm    of the phantom
    nps            noise power spectrum of the uniform slices; None where too little of them is flat
    """

    water_hu: float
    noise_hu: float
    uniformity_hu: float
    slices: int
    diameter_mm: float
    nps: NoisePower | None

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON values, rounded to what they mean."""
        told = {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in asdict(self).items()
            if name != "nps"
        }
        if self.nps is None:
            return {**told, "nps": None}
        spectrum = asdict(self.nps)
        return {
            **told,
            "nps_mean_per_mm": round(self.nps.mean_before_per_mm, 5),
            "nps_peak_per_mm": round(self.nps.peak_before_per_mm, 5),
            "nps": {name: spectrum[name] for name in ("frequency_per_mm", "before")},
        }


@dataclass(frozen=True)
class _Disc:
    """The phantom in one slice, in px."""

    row: float
    column: float
    radius: float


def measure_phantom(volume: Volume) -> ConstancyReport:
    """Measure a uniform phantom. Raises EngineInputError where the values are no HU, or no slice shows one."""
    if volume.unit != HU:
        raise EngineInputError("a phantom is measured in HU, and this series has none", "check the rule's match")
    spacing_mm = min(volume.pixel_spacing_mm)
    found = [
        (index, disc, figures)
        for index, pixels in enumerate(volume.voxels)
        if (disc := _disc(pixels, volume.pixel_spacing_mm)) is not None
        and (figures := _figures(pixels, disc, spacing_mm)) is not None
    ]
    if not found:
        raise EngineInputError(
            "no slice shows a uniform round phantom of 80 mm or more", "check the rule's match, or the phantom"
        )
    chosen = [found[place] for place in np.linspace(0, len(found) - 1, min(len(found), _MOST_SLICES)).astype(int)]
    water, noise, uniformity = np.median([figures for _, _, figures in chosen], axis=0).tolist()
    pairs = [_pair(volume, index) for index, _, _ in chosen]
    return ConstancyReport(
        water, noise, uniformity, len(found),
        float(np.median([2 * disc.radius for _, disc, _ in chosen]) * spacing_mm),
        noise_power(pairs, volume.pixel_spacing_mm),
    )  # fmt: skip


def _pair(volume: Volume, index: int) -> Pair:
    pixels = np.ascontiguousarray(volume.voxels[index])
    return Pair(index, pixels, pixels, None, HU)


def _disc(pixels: Pixels, spacing_mm: tuple[float, float]) -> _Disc | None:
    """The largest object that is no air, where it is round and large enough."""
    solid = (np.nan_to_num(pixels, nan=-2000.0) > _AIR_HU).astype(np.uint8)
    count, _, stats, centres = cv2.connectedComponentsWithStats(solid, connectivity=4)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    width, height = int(stats[largest, cv2.CC_STAT_WIDTH]), int(stats[largest, cv2.CC_STAT_HEIGHT])
    area = float(stats[largest, cv2.CC_STAT_AREA])
    is_round = area >= _ROUND * np.pi / 4 * max(width, height) ** 2
    if not is_round or max(width, height) * min(spacing_mm) < _SMALLEST_MM:
        return None
    column, row = centres[largest]
    return _Disc(float(row), float(column), (width + height) / 4)


def _figures(pixels: Pixels, disc: _Disc, spacing_mm: float) -> tuple[float, float, float] | None:
    """(mean in the middle, standard deviation there, largest difference to the rim) in HU; None: not uniform."""
    middle = _region(pixels, (disc.row, disc.column), _MIDDLE_SHARE * disc.radius)
    mean, spread = float(middle.mean(dtype=np.float64)), float(middle.std(dtype=np.float64))
    noise = _local_noise(pixels, disc)
    if noise is None or spread > _EVEN * max(noise, 0.5):
        return None
    inset = _RIM_INSIDE_MM / spacing_mm + _RIM_SHARE * disc.radius
    away = disc.radius - inset
    rims = [
        _region(pixels, (disc.row + down * away, disc.column + across * away), _RIM_SHARE * disc.radius)
        for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1))
    ]
    differences = [abs(float(rim.mean(dtype=np.float64)) - mean) for rim in rims if rim.size]
    return (mean, spread, max(differences)) if differences else None


def _local_noise(pixels: Pixels, disc: _Disc) -> float | None:
    """Median of the standard deviations within blocks of 16 px in the middle: of noise alone, whatever is inserted."""
    half = int(_MIDDLE_SHARE * disc.radius / np.sqrt(2))
    row, column = round(disc.row), round(disc.column)
    square = pixels[row - half : row + half, column - half : column + half]
    across = min(square.shape) // 16
    if across < 1:
        return None
    blocks = square[: 16 * across, : 16 * across].reshape(across, 16, across, 16)
    return float(np.median(blocks.std(axis=(1, 3), dtype=np.float64)))


def _region(pixels: Pixels, centre: tuple[float, float], radius: float) -> Pixels:
    """The pixels of a disc."""
    rows, columns = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    region: Pixels = pixels[inside]
    return region


def limits_of(figures: Mapping[str, float]) -> tuple[str, ...]:
    """Sentences on figures that are out of the usual bounds: water beyond 4 HU, the rim more than 4 HU from the middle
    (IEC 61223-3-5). Noise has no bound of its own: it is compared with what it was."""
    told = []
    if abs(figures.get("water", 0.0)) > _BOUND_HU:
        told.append(f"water is {figures['water']:+.1f} HU, at most {_BOUND_HU:g} HU from 0 is allowed")
    if figures.get("uniformity", 0.0) > _BOUND_HU:
        told.append(f"rim and middle differ by {figures['uniformity']:.1f} HU, at most {_BOUND_HU:g} HU is allowed")
    return tuple(told)
