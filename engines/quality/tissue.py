"""HU bias: how far the mean of a tissue is moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np

from engines.quality.slices import Pair, Pixels, Places, blurred, pairs
from engines.volume import Volume

BANDS_HU: Final[Mapping[str, tuple[float, float]]] = {
    "air": (-1100.0, -950.0),
    "lung": (-920.0, -600.0),
    "fat": (-140.0, -50.0),
    "soft tissue": (0.0, 100.0),
    "bone": (250.0, 2500.0),
}
"""Tissue bands, (lowest, highest) in HU."""

_FEWEST: Final = 50  # halved pixels: 200 voxels
_FEWEST_IN_SLICE: Final = 150  # below, the noise of a slice moves its mean
_NEIGHBOURHOOD: Final = np.ones((3, 3), np.uint8)
_MORE_SMOOTHING_PX: Final = 1.5
"""Of half resolution. What finds edges still leaves a sharp kernel's noise at low dose as wide as the bands: cores then
select it, and a network that takes nothing but noise seems to shift soft tissue by 2 HU and more."""


@dataclass
class Bias:
    """Mean change of each tissue band, gathered slice by slice; all values in HU."""

    total: dict[str, float] = field(default_factory=lambda: dict.fromkeys(BANDS_HU, 0.0))
    count: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BANDS_HU, 0))
    worst: dict[str, float] = field(default_factory=dict)

    def add(self, pair: Pair) -> None:
        """Take in one slice."""
        for name, core in tissue_cores(blurred(pair.smooth, _MORE_SMOOTHING_PX), pair.inside).items():
            number = int(np.count_nonzero(core))
            if not number:
                continue
            change = -cv2.mean(pair.half_residual, core.view(np.uint8))[0]
            self.total[name] += change * number
            self.count[name] += number
            if number >= _FEWEST_IN_SLICE and abs(change) >= abs(self.worst.get(name, 0.0)):
                self.worst[name] = change

    @property
    def mean(self) -> dict[str, float]:
        """Mean change of each band that has at least 200 voxels in the volume."""
        return {name: self.total[name] / self.count[name] for name in BANDS_HU if self.count[name] >= _FEWEST}


def tissue_cores(smooth: Pixels, inside: Places) -> dict[str, Places]:
    """Mask of each tissue band (HU) in a smoothed slice of half resolution: the whole neighbourhood of 3 x 3 lies in
    the band, so that no partial volume of another tissue is in it. Masks drawn on the noisy source itself would select
    its noise: then even a perfect denoiser seems to shift the means by some HU."""
    lowest, highest = cv2.erode(smooth, _NEIGHBOURHOOD), cv2.dilate(smooth, _NEIGHBOURHOOD)
    return {name: inside & (lowest >= low) & (highest <= high) for name, (low, high) in BANDS_HU.items()}


def bias_by_band(before: Volume, after: Volume) -> dict[str, float]:
    """Mean change in HU in the cores of each tissue band that has at least 200 voxels in the volume."""
    bias = Bias()
    for pair in pairs(before, after):
        bias.add(pair)
    return bias.mean
