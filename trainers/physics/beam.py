"""Photons: how many each ray begins with, and what noise their number puts on a reading."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch

from trainers.physics.geometry import Geometry

WATER_PER_MM: Final = 0.02
"""Attenuation of water at the mean energy of a CT beam of 120 kVp; HU are shares of it."""

_FEWEST_PHOTONS: Final = 1.0
_LEAST_CURRENT: Final = 0.25


@dataclass(frozen=True)
class Beam:
    """A scanner's beam at full dose.

    photons          of the middle ray, for one reading. 2.25e5 is what FDA found for the Mayo scanners (digiNoise)
    bow_tie          natural logarithm of what the bow-tie filter leaves of the outermost rays, its sign turned: 2.5 is
                     a twelfth, as measured in the published LD-CT-simulation
    bow_tie_mm       distance of those rays from the isocentre
    electronic       variance of the electronic noise, in photons squared
    exposure         automatic exposure control: a view's tube current goes with the exponential of so many times the
                     attenuation of its thickest ray. 0 is a constant current, 0.5 the least noise for a dose (Gies et
                     al., Med Phys 1999; 26:2235)
    """

    photons: float = 2.25e5
    bow_tie: float = 2.5
    bow_tie_mm: float = 250.0
    electronic: float = 10.0
    exposure: float = 0.0


def attenuation(hu: torch.Tensor) -> torch.Tensor:
    """Per mm; never negative."""
    return (WATER_PER_MM * (1.0 + hu / 1000.0)).clamp(min=0.0)


def incident(integrals: torch.Tensor, geometry: Geometry, beam: Beam) -> torch.Tensor:
    """Photons that each ray begins with at full dose: (views, readings) of the line `integrals` of one slice."""
    through = beam.photons * _bow_tie(geometry, beam).to(integrals)
    if not beam.exposure:
        return through.expand_as(integrals)
    thickest = integrals.amax(dim=1)
    current = torch.exp(beam.exposure * (thickest - thickest.amax()))
    current = (current / current.mean()).clamp(min=_LEAST_CURRENT)
    return through * (current / current.mean())[:, None]


def added_deviation(
    integrals: torch.Tensor, incident_photons: torch.Tensor, dose: float, electronic: float
) -> torch.Tensor:
    """Standard deviation of the noise to be added to the line integrals of full dose, so that they are as noisy as
    those of `dose` (Yu et al., J Comput Assist Tomogr 2012; 36:477, eq. 6). Behind metal a reading of `dose` is taken
    to expect one photon, the fewest that `measured_integrals` takes the logarithm of."""
    mean = (torch.exp(integrals) / incident_photons).clamp(max=dose / _FEWEST_PHOTONS)
    return torch.sqrt((1.0 - dose) / dose * mean * (1.0 + (1.0 + dose) / dose * electronic * mean))


def measured_integrals(
    integrals: torch.Tensor, incident_photons: torch.Tensor, dose: float, electronic: float, rng: torch.Generator
) -> torch.Tensor:
    """Line integrals as a scanner would measure them at `dose`: photons counted one by one, and its electronics."""
    begun = dose * incident_photons
    counted = torch.poisson(begun * torch.exp(-integrals), generator=rng)
    counted = counted + math.sqrt(electronic) * torch.randn(counted.shape, generator=rng, dtype=counted.dtype)
    return -torch.log(counted.clamp(min=_FEWEST_PHOTONS) / begun)


def _bow_tie(geometry: Geometry, beam: Beam) -> torch.Tensor:
    """What the filter leaves of each ray, as a share of the middle one. It is thinner in the middle by the thickness of
    a cylinder of `bow_tie_mm` radius, so to say: it evens out what a round patient takes."""
    away = (geometry.distances_mm / beam.bow_tie_mm).clamp(-1.0, 1.0)
    return torch.exp(-beam.bow_tie * (1.0 - torch.sqrt(1.0 - away**2)))
