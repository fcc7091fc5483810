"""Voxels cut off at an end of a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from engines.quality.slices import Pair, measured_range, pairs
from engines.volume import HU, Volume

_BONE_HU: Final = 250.0
_FEWEST_OF_BONE: Final = 300
_SAME_HU: Final = 0.5  # stored values are whole numbers
_BEYOND_NOISE: Final = 3.0


@dataclass
class Clipping:
    """Clipped voxels, gathered slice by slice.

    low, high  ends of the range that the source's measured voxels fill, in their unit
    """

    low: float
    high: float
    clipped: int = 0
    count: int = 0
    bone: float | None = None

    def add(self, pair: Pair) -> None:
        """Take in one slice."""
        old, new = pair.old, pair.new
        newly = ((new <= self.low) | (new >= self.high)) & (old > self.low) & (old < self.high)
        if pair.measured is not None:
            newly &= pair.measured
        self.clipped += int(np.count_nonzero(newly))
        self.count += old.size if pair.measured is None else int(np.count_nonzero(pair.measured))
        if pair.unit == HU:
            self._add_bone(pair)

    @property
    def fraction(self) -> float:
        """Share of measured voxels newly at or beyond the ends of the source's range."""
        return self.clipped / self.count if self.count else 0.0

    def _add_bone(self, pair: Pair) -> None:
        """Bone of this slice that lies flat at the brightest value of the output and was brighter before, by more than
        the noise that an engine takes away."""
        bone = int(np.count_nonzero(pair.old >= _BONE_HU))
        if bone < _FEWEST_OF_BONE:
            return
        ceiling = float(pair.new.max())
        removed = float(cv2.meanStdDev(pair.residual)[1][0, 0])
        cut = (pair.new >= ceiling - _SAME_HU) & (pair.old > ceiling + max(_SAME_HU, _BEYOND_NOISE * removed))
        self.bone = max(self.bone or 0.0, int(np.count_nonzero(cut)) / bone)


def clipped_fraction(before: Volume, after: Volume) -> float:
    """Share of measured voxels that are at or beyond the ends of the source's range and were within it before."""
    clipping = Clipping(*measured_range(before))
    for pair in pairs(before, after):
        clipping.add(pair)
    return clipping.fraction
