"""Reconstruction: HU of a disc from its exact line integrals, and the noise that theory foretells."""

from __future__ import annotations

import pytest
import torch

from tests.trainers.physics.discs import WATER, disc, radius_mm, shadow
from trainers.physics.filtered import Kernel, noise_variance, reconstruct
from trainers.physics.geometry import Fan, Geometry, Parallel, covering
from trainers.physics.projector import project

PARALLEL = covering(128, 2.0, 120)
FAN = Fan(views=192, readings=246, step=3 * Fan().step)


@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
@pytest.mark.parametrize("kernel", [Kernel("ramp"), Kernel("hann", 0.7), Kernel("cosine")], ids=str)
def test_water_is_0_hu_and_air_minus_1000(geometry: Geometry, kernel: Kernel) -> None:
    image = reconstruct(shadow(geometry, 100.0)[None], 128, 2.0, geometry, kernel)[0]
    hu, away = 1000.0 * (image / WATER - 1.0), radius_mm(128, 2.0)
    assert float(hu[away < 85.0].mean()) == pytest.approx(0.0, abs=1.0)
    assert float(hu[away < 85.0].std()) < 4.0
    assert float(hu[(away > 112.0) & (away < 125.0)].mean()) == pytest.approx(-1000.0, abs=3.0)


def test_what_is_projected_comes_back() -> None:
    image = disc(128, 2.0, 100.0) * WATER
    again = reconstruct(project(image, 2.0, PARALLEL), 128, 2.0, PARALLEL, Kernel("hann", 0.8))[0]
    hu, away = 1000.0 * (again / WATER - 1.0), radius_mm(128, 2.0)
    assert float(hu[away < 85.0].mean()) == pytest.approx(0.0, abs=1.0)
    assert float(hu[away < 85.0].std()) < 6.0


@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
@pytest.mark.parametrize("kernel", [Kernel("ramp"), Kernel("hann", 1.0), Kernel("hann", 0.5)], ids=str)
def test_noise_has_the_variance_that_theory_foretells(geometry: Geometry, kernel: Kernel) -> None:
    deviation = 0.01 * torch.exp(shadow(geometry, 100.0) / 2)
    rng = torch.Generator().manual_seed(3)
    fields = reconstruct(deviation * torch.randn((12, *deviation.shape), generator=rng), 128, 2.0, geometry, kernel)
    wanted = noise_variance(deviation[None] ** 2, 128, 2.0, geometry, (geometry, kernel))[0]
    away = radius_mm(128, 2.0)
    for place in (away < 50.0, (away > 60.0) & (away < 95.0)):
        assert float((fields**2).mean(0)[place].mean()) == pytest.approx(float(wanted[place].mean()), rel=0.06)


def test_a_coarser_sinogram_foretells_the_same() -> None:
    kernel, fine, coarse = Kernel("hann", 0.8), PARALLEL, PARALLEL.coarser(4)
    variance = [torch.exp(shadow(geometry, 100.0))[None] for geometry in (fine, coarse)]
    whole = noise_variance(variance[0], 32, 8.0, fine, (fine, kernel))[0]
    quick = noise_variance(variance[1], 32, 8.0, coarse, (fine, kernel))[0]
    middle = radius_mm(32, 8.0) < 90.0
    assert quick[middle] == pytest.approx(whole[middle], rel=0.03)


def test_windows_begin_at_one_and_fall() -> None:
    frequency = torch.linspace(0.0, 1.0, 101)
    for kernel in (Kernel("hann", 0.5), Kernel("hann", 1.0), Kernel("hann", 2.0), Kernel("cosine", 1.0)):
        response = kernel.response(frequency)
        assert response[0] == 1.0
        assert bool((response.diff() <= 1e-7).all())
    assert float(Kernel("hann", 0.5).response(frequency)[50:].max()) == pytest.approx(0.0, abs=1e-6)
    assert float(Kernel("hann", 1.0).response(torch.tensor(0.5))) == pytest.approx(0.5)
    assert float(Kernel("cosine", 1.0).response(torch.tensor(0.5))) == pytest.approx(2**-0.5)


def test_a_geometry_is_made_coarser_in_whole_quarter_turns() -> None:
    for geometry in (Parallel(views=90, readings=101, step=0.7), Fan(views=100, readings=99)):
        coarse = geometry.coarser(4)
        assert coarse.views % geometry.fold == 0
        assert coarse.step == 4 * geometry.step
        assert coarse.readings * coarse.step >= geometry.readings * geometry.step
