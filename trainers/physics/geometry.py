"""How rays lie: parallel beams, and the fan beam of a scanner. Lengths in mm, angles in radians.

A slice is `size_px` x `size_px` square pixels about the isocentre. Pixel (row, column) lies at x = column, y = row from
the centre. A view at angle b has its rays along (-sin b, cos b); a reading is named by its distance from the isocentre
(parallel) or its angle in the fan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Protocol

import torch

TURN: Final = 2.0 * math.pi
_VIEWS_PER_PX: Final = 720 / 512


class Geometry(Protocol):
    """What projector and reconstruction ask of a geometry.

    views, readings  rows and columns of a sinogram
    fold             views that lie a quarter of a turn apart and look alike but for it; `views` is a multiple
    step             between readings: mm (parallel) or radians (fan)
    view_weight      what one view stands for in the integral over all
    """

    @property
    def views(self) -> int: ...
    @property
    def readings(self) -> int: ...
    @property
    def fold(self) -> int: ...
    @property
    def step(self) -> float: ...
    @property
    def view_weight(self) -> float: ...

    @property
    def angles(self) -> torch.Tensor:
        """Of the views, (views,)."""

    @property
    def distances_mm(self) -> torch.Tensor:
        """From the isocentre to each ray of a view, with its sign, (readings,)."""

    def seen(self, angle: float, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Where a view sees the points: (in `step`s from the middle reading, distance from the source or None)."""

    def coarser(self, factor: int) -> Geometry:
        """The same with so many times fewer views and readings."""


@dataclass(frozen=True)
class Parallel:
    """Parallel rays over half a turn.

    step  between rays, in mm; rays finer than the pixels that are projected make ripples
    """

    views: int = 720
    readings: int = 736
    step: float = 0.7
    fold: int = 2

    @cached_property
    def angles(self) -> torch.Tensor:
        """Of the views, (views,)."""
        return torch.arange(self.views, dtype=torch.float64) * (math.pi / self.views)

    @property
    def view_weight(self) -> float:
        """Half a turn, in equal parts."""
        return math.pi / self.views

    @cached_property
    def distances_mm(self) -> torch.Tensor:
        """From the isocentre to each ray, (readings,)."""
        return _centred(self.readings) * self.step

    def seen(self, angle: float, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Where a view sees the points, in steps from the middle; there is no source."""
        return (x * math.cos(angle) + y * math.sin(angle)) / self.step, None

    def coarser(self, factor: int) -> Parallel:
        """The same with so many times fewer views and rays."""
        return replace(
            self,
            views=_multiple(self.views / factor, self.fold),
            readings=math.ceil(self.readings / factor),
            step=self.step * factor,
        )


@dataclass(frozen=True)
class Fan:
    """Equiangular fan over a whole turn. The defaults are those of the Siemens scanners of the Mayo data set: 736
    channels of 1.2858 mm at 1085.6 mm from the source (FDA, `prabhatkc/ct-recon`, digiNoise).

    step  between channels, in radians
    source_mm  from the source to the isocentre
    """

    views: int = 1152
    readings: int = 736
    step: float = 1.2858 / 1085.6
    source_mm: float = 595.0
    fold: int = 4

    @cached_property
    def angles(self) -> torch.Tensor:
        """Of the views, (views,)."""
        return torch.arange(self.views, dtype=torch.float64) * (TURN / self.views)

    @property
    def view_weight(self) -> float:
        """A whole turn, in equal parts; it sees each ray twice, which the filter's half takes back."""
        return TURN / self.views

    @property
    def ray_mm(self) -> float:
        """Between neighbouring rays at the isocentre."""
        return self.source_mm * self.step

    @cached_property
    def fan_angles(self) -> torch.Tensor:
        """Of the channels, (readings,)."""
        return _centred(self.readings) * self.step

    @cached_property
    def distances_mm(self) -> torch.Tensor:
        """From the isocentre to each ray, (readings,)."""
        return self.source_mm * torch.sin(self.fan_angles)

    def seen(self, angle: float, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where a view sees the points, in steps from the middle, and how far from the source they are, in mm."""
        across = x * math.cos(angle) + y * math.sin(angle)
        along = self.source_mm - x * math.sin(angle) + y * math.cos(angle)
        return torch.atan2(across, along) / self.step, torch.hypot(across, along)

    def coarser(self, factor: int) -> Fan:
        """The same with so many times fewer views and channels."""
        return replace(
            self,
            views=_multiple(self.views / factor, self.fold),
            readings=math.ceil(self.readings / factor),
            step=self.step * factor,
        )


def covering(size_px: int, pixel_mm: float, views: int = 0) -> Parallel:
    """Parallel rays, a pixel apart, that cover a slice to its corners; 720 views for 512 px unless said otherwise."""
    views = views or _multiple(_VIEWS_PER_PX * size_px, 2)
    return Parallel(views=views, readings=_multiple(math.sqrt(2.0) * size_px + 2, 2), step=pixel_mm)


def _centred(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float64) - (count - 1) / 2


def _multiple(number: float, of: int) -> int:
    return max(1, math.ceil(number / of)) * of
