"""Low dose from full dose: the noise that fewer photons would have added to a slice that is there already.

Only noise is reconstructed, and added to the slice (Yu et al., J Comput Assist Tomogr 2012; 36:477): the anatomy keeps
its own kernel and is not resampled. How much noise a dose adds is calibrated to the slice: at half dose as much
variance is added as the slice has already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d, interpolate, pad

from engines.quality.flat import noise
from trainers.physics.beam import WATER_PER_MM, Beam, added_deviation, attenuation, incident, measured_integrals
from trainers.physics.filtered import Kernel, noise_variance, reconstruct
from trainers.physics.geometry import Fan, Geometry, covering
from trainers.physics.noise import Flat
from trainers.physics.projector import project

HALF: Final = 0.5
_COARSER: Final = 4
"""Attenuation changes slowly over a sinogram: a quarter of views and readings changes the noise by less than 0.1 %."""
_LEAST_PHOTONS, _MOST_PHOTONS = 1e3, 1e8

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Scan:
    """What is known of how a slice came about.

    pixel_mm  size of its square pixels
    kernel    the window that gives the slice's own texture (`trainers.physics.noise.matched_kernel`)
    fan       the fan beam of its scanner; None: parallel rays a pixel apart, several times as fast
    """

    pixel_mm: float
    kernel: Kernel = field(default_factory=Kernel)
    beam: Beam = field(default_factory=Beam)
    fan: Fan | None = None

    def geometry(self, size_px: int) -> Geometry:
        """Of a slice of so many pixels."""
        return self.fan or covering(size_px, self.pixel_mm)


def at_dose(full: Pixels, unit_noise: Pixels, dose: float) -> Pixels:
    """The slice at a share of its dose: `unit_noise` added once makes half."""
    return full + np.float32(noise_factor(dose)) * unit_noise


def noise_factor(dose: float) -> float:
    """How often unit noise is added for `dose`: the added variance goes with 1 / dose - 1."""
    return math.sqrt((1.0 - dose) / dose)


def unit_noise(hu: Pixels, flat: Flat, scan: Scan, fields: int, seed: int) -> Pixels:
    """Independent fields of unit noise of one slice: float32 (fields, rows, columns), in HU.

    hu    (rows, columns)
    flat  of the slice: in its places the unit noise has the slice's own deviation. Where none could be measured,
          there is no noise to be added: zeros.
    The number of photons is chosen so that theory gives that deviation, for the share of the electronics depends on it;
    what theory misses is scaled.
    """
    if not flat.noise_hu:
        return np.zeros((fields, *hu.shape), dtype=np.float32)
    square = _square(hu)
    size_px = square.shape[-1]
    geometry = scan.geometry(size_px)
    coarse = geometry.coarser(_COARSER)
    pooled = avg_pool2d(attenuation(square)[None], _COARSER)
    integrals = project(pooled, scan.pixel_mm * _COARSER, coarse)[0]
    deviation = _calibrated_deviation(integrals, _square(flat.places.astype(np.float32), 0.0), flat.noise_hu, scan)
    spread = interpolate(deviation[None, None], (geometry.views, geometry.readings), mode="bilinear")[0]
    rng = torch.Generator().manual_seed(seed)
    added = spread * torch.randn((fields, geometry.views, geometry.readings), generator=rng)
    made = reconstruct(added, size_px, scan.pixel_mm, geometry, scan.kernel) * (1000.0 / WATER_PER_MM)
    rows, columns = hu.shape
    return _scaled(made[:, :rows, :columns].numpy(), flat)


def simulated(hu: Pixels, scan: Scan, dose: float, seed: int) -> Pixels:
    """A noiseless slice as it would be scanned at `dose`, every photon counted: float32 (rows, columns).

    For phantoms, and to hold `unit_noise` against: the slice takes on the kernel, and few photons shift its HU.
    """
    square = _square(hu)
    geometry = scan.geometry(square.shape[-1])
    finer = max(1, math.ceil(scan.pixel_mm / _finest_mm(geometry)))
    fine = interpolate(attenuation(square)[None, None], scale_factor=finer, mode="bilinear")[0]
    integrals = project(fine, scan.pixel_mm / finer, geometry)[0]
    photons = incident(integrals, geometry, scan.beam)
    rng = torch.Generator().manual_seed(seed)
    measured = measured_integrals(integrals, photons, dose, scan.beam.electronic, rng)
    made = reconstruct(measured[None], square.shape[-1], scan.pixel_mm, geometry, scan.kernel)[0]
    rows, columns = hu.shape
    return np.asarray((1000.0 * (made / WATER_PER_MM - 1.0))[:rows, :columns].numpy(), dtype=np.float32)


def _calibrated_deviation(integrals: torch.Tensor, flat: torch.Tensor, wanted_hu: float, scan: Scan) -> torch.Tensor:
    """Deviation of the readings at half dose, (views, readings) as coarse as `integrals`, with as many photons as give
    `wanted_hu` in the flat places by theory. Twice: the electronics' share changes with the photons."""
    size_px = flat.shape[-1]
    geometry = scan.geometry(size_px)
    coarse = geometry.coarser(_COARSER)
    photons = incident(integrals, coarse, scan.beam)
    places = avg_pool2d(flat[None], _COARSER)[0]
    for _ in range(2):
        deviation = added_deviation(integrals, photons, HALF, scan.beam.electronic)
        variance = noise_variance(
            deviation[None] ** 2, places.shape[-1], scan.pixel_mm * _COARSER, coarse, (geometry, scan.kernel)
        )[0]
        found = float((variance * places).sum() / places.sum()) * (1000.0 / WATER_PER_MM) ** 2
        brightest = float(photons.max())  # the bounds are its own: all rays keep their share of it
        photons = photons * min(max(found / wanted_hu**2, _LEAST_PHOTONS / brightest), _MOST_PHOTONS / brightest)
    return added_deviation(integrals, photons, HALF, scan.beam.electronic)


def _scaled(fields: Pixels, flat: Flat) -> Pixels:
    """Each field with the slice's own deviation in its flat places, measured in the same way."""
    found = [noise(made, flat.places) for made in fields]
    return np.stack([made * np.float32(flat.noise_hu / own) for made, own in zip(fields, found, strict=True)])


def _square(pixels: NDArray[np.float32], fill: float = -1000.0) -> torch.Tensor:
    """As the projector takes it: square, in multiples of what is pooled; what is added is air."""
    size_px = -(-max(pixels.shape) // _COARSER) * _COARSER
    rows, columns = pixels.shape
    return pad(torch.from_numpy(np.ascontiguousarray(pixels)), (0, size_px - columns, 0, size_px - rows), value=fill)


def _finest_mm(geometry: Geometry) -> float:
    """Distance between rays where they are nearest to each other in the slice, about half way to the source."""
    if isinstance(geometry, Fan):
        return 0.5 * geometry.ray_mm
    return geometry.step
