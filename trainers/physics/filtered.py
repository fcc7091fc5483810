"""Filtered back-projection (Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, chapter 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from trainers.physics.geometry import Fan, Geometry
from trainers.physics.projector import gather


@dataclass(frozen=True)
class Kernel:
    """The window on the ramp filter: how sharp, and how noisy, the image becomes.

    window   "ramp": none; "hann": a raised cosine that ends at `cutoff`; "cosine": a quarter of one, likewise
    cutoff   as a share of the highest frequency that the readings hold. A Hann window of more than 1 is cut off at 1
             before it has come down: from soft (0.5) to the ramp (infinity) it is one family.
    """

    window: Literal["ramp", "hann", "cosine"] = "hann"
    cutoff: float = 1.0

    def response(self, frequency: torch.Tensor) -> torch.Tensor:
        """What is left at each `frequency`, as a share of the highest one: 1 at zero."""
        if self.window == "ramp":
            return torch.ones_like(frequency)
        angle = torch.clamp(frequency / self.cutoff, max=1.0) * (math.pi / 2)
        cosine = torch.cos(angle).clamp(min=0.0)
        return cosine if self.window == "cosine" else cosine**2


def reconstruct(
    sinogram: torch.Tensor, size_px: int, pixel_mm: float, geometry: Geometry, kernel: Kernel
) -> torch.Tensor:
    """The slice of which `sinogram` (channels, views, readings) holds the line integrals: (channels, n, n), per mm."""
    filtered = _filtered(sinogram * _before(geometry).to(sinogram), _ramp_of(geometry), kernel)
    return geometry.view_weight * gather(filtered, size_px, pixel_mm, geometry, _inverse_square)


def _inverse_square(source_mm: torch.Tensor | None) -> torch.Tensor | float:
    return 1.0 if source_mm is None else source_mm**-2


def _ramp(readings: int, step: float) -> torch.Tensor:
    """The band-limited ramp in space (their eq. 61), times `step`; its middle is at 0, the rest wraps around."""
    length = 2 ** math.ceil(math.log2(2 * readings))
    offset = torch.arange(length, dtype=torch.float64)
    offset = torch.minimum(offset, length - offset)
    ramp = torch.where(offset % 2 == 1, -1.0 / (math.pi * offset.clamp(min=1.0) * step) ** 2, 0.0)
    ramp[0] = 1.0 / (4.0 * step**2)
    return ramp * step


def _before(geometry: Geometry) -> torch.Tensor:
    """What readings are multiplied by before they are filtered, (readings,)."""
    if isinstance(geometry, Fan):
        return geometry.source_mm * torch.cos(geometry.fan_angles)
    return torch.ones(geometry.readings, dtype=torch.float64)


def _ramp_of(geometry: Geometry) -> torch.Tensor:
    return _fan_ramp(geometry) if isinstance(geometry, Fan) else _ramp(geometry.readings, geometry.step)


def _fan_ramp(geometry: Fan) -> torch.Tensor:
    """The same for equiangular readings (their eq. 102): half of it, stretched by (angle / sin angle) squared."""
    ramp = _ramp(geometry.readings, geometry.step)
    offset = torch.arange(len(ramp), dtype=torch.float64)
    angle = torch.minimum(offset, len(ramp) - offset) * geometry.step
    stretch = torch.where(angle > 0, angle / torch.sin(angle.clamp(max=3.0)), 1.0) ** 2
    return 0.5 * ramp * torch.where(torch.minimum(offset, len(ramp) - offset) < geometry.readings, stretch, 0.0)


def _filtered(sinogram: torch.Tensor, ramp: torch.Tensor, kernel: Kernel) -> torch.Tensor:
    spectrum = torch.fft.rfft(ramp).real
    spectrum = spectrum * kernel.response(torch.linspace(0.0, 1.0, len(spectrum), dtype=torch.float64))
    readings, length = sinogram.shape[-1], len(ramp)
    filtered: torch.Tensor = torch.fft.irfft(torch.fft.rfft(sinogram, length) * spectrum.to(sinogram), length)
    return filtered[..., :readings]


def noise_variance(
    variance: torch.Tensor, size_px: int, pixel_mm: float, measured: Geometry, reading: tuple[Geometry, Kernel]
) -> torch.Tensor:
    """The variance that `reconstruct` makes of independent noise on the readings, by theory: (channels, n, n).

    variance  of the readings, (channels, views, readings) of the geometry `measured`
    reading   the geometry and kernel of the reconstruction; `measured` is that geometry, or a coarser one of it,
              for the variance changes slowly over the slice
    Interpolation between two readings leaves two thirds and a third of the cosine of their phase, in the mean.
    """
    geometry, kernel = reading
    ramp = _ramp_of(geometry)
    spectrum = torch.fft.fft(ramp).real
    frequency = torch.fft.fftfreq(len(ramp), dtype=torch.float64)
    spectrum = spectrum * kernel.response(2.0 * frequency.abs())
    gain = float((spectrum**2 * (2.0 + torch.cos(2.0 * math.pi * frequency)) / 3.0).mean())
    stretched = variance * _before(measured).to(variance).square()
    total = gather(stretched, size_px, pixel_mm, measured, _inverse_fourth)
    share: float = gain * geometry.view_weight**2 * geometry.views / measured.views
    return total * share


def _inverse_fourth(source_mm: torch.Tensor | None) -> torch.Tensor | float:
    return 1.0 if source_mm is None else source_mm**-4
