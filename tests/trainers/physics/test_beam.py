"""Photons: what Yu's formula adds is what a scanner of the lower dose would have more; and a reference's figures."""

from __future__ import annotations

import math

import pytest
import torch

from tests.trainers.physics.discs import radius_mm, shadow
from trainers.physics.beam import Beam, added_deviation, attenuation, incident, measured_integrals
from trainers.physics.filtered import Kernel, noise_variance
from trainers.physics.geometry import Fan, Geometry, Parallel, covering

PHOTONS = torch.full((60, 400), 2.25e5)


@pytest.mark.parametrize("dose", [0.5, 0.25, 0.1])
@pytest.mark.parametrize("integral", [1.0, 4.0, 6.0])
def test_full_dose_and_what_is_added_make_the_lower_dose(dose: float, integral: float) -> None:
    rng = torch.Generator().manual_seed(1)
    integrals = torch.full_like(PHOTONS, integral)
    full, low = (measured_integrals(integrals, PHOTONS, share, 10.0, rng).var() for share in (1.0, dose))
    added = added_deviation(integrals, PHOTONS, dose, 10.0)[0, 0] ** 2
    assert float(full + added) == pytest.approx(float(low), rel=0.06)


def test_noise_goes_with_one_over_dose() -> None:
    rng = torch.Generator().manual_seed(2)
    integrals = torch.full_like(PHOTONS, 3.0)
    variances = [float(measured_integrals(integrals, PHOTONS, dose, 0.0, rng).var()) for dose in (1.0, 0.5, 0.25, 0.1)]
    assert [variance / variances[0] for variance in variances] == pytest.approx([1.0, 2.0, 4.0, 10.0], rel=0.05)
    assert variances[0] == pytest.approx(math.exp(3.0) / 2.25e5, rel=0.03)


@pytest.mark.parametrize("dose", [0.5, 0.1])
def test_behind_metal_a_reading_expects_one_photon_however_much_there_is(dose: float) -> None:
    one_photon = math.log(dose * 2.25e5)
    found = added_deviation(torch.tensor([one_photon - 0.1, one_photon, 30.0, 1e3]), PHOTONS[0, :4], dose, 10.0)
    least = math.sqrt((1.0 - dose) * (1.0 + (1.0 + dose) * 10.0))
    assert found[1:].tolist() == pytest.approx([least] * 3, rel=1e-4)
    assert float(found[0]) < 0.96 * least


def test_many_photons_shift_nothing() -> None:
    rng = torch.Generator().manual_seed(3)
    found = measured_integrals(torch.full_like(PHOTONS, 5.0), PHOTONS, 0.25, 10.0, rng)
    # the logarithm of few photons is biased by half of their relative variance
    assert float(found.mean()) == pytest.approx(5.0 + 0.5 * math.exp(5.0) / (0.25 * 2.25e5), abs=1e-3)


def test_the_bow_tie_spares_the_outer_rays() -> None:
    geometry = Fan()
    photons = incident(torch.zeros(geometry.views, geometry.readings), geometry, Beam())[0]
    assert float(photons.max()) == pytest.approx(2.25e5, rel=1e-3)
    assert float(photons[0]) == pytest.approx(2.25e5 * math.exp(-2.5), rel=0.05)
    assert bool((photons[368:].diff() <= 0).all())


def test_automatic_exposure_spends_where_the_patient_is_thick() -> None:
    geometry = Parallel(views=8, readings=5, step=50.0)
    integrals = torch.linspace(2.0, 8.0, 8)[:, None].expand(8, 5)
    constant, exposed = (incident(integrals, geometry, Beam(exposure=share)) for share in (0.0, 0.5))
    assert float(exposed.mean()) == pytest.approx(float(constant.mean()), rel=1e-5)
    assert bool((exposed[:, 2].diff() >= 0).all())
    assert float(exposed[-1, 2] / exposed[0, 2]) > 4.0


def test_attenuation_is_never_negative() -> None:
    assert attenuation(torch.tensor([-3000.0, -1000.0, 0.0, 1000.0])).tolist() == pytest.approx([0.0, 0.0, 0.02, 0.04])


@pytest.mark.parametrize(
    ("geometry", "kernel", "wanted"),
    [
        (Fan(), Kernel("hann", 1.0), {0.5: (21.5, 17.4), 0.25: (37.9, 30.5), 0.1: (68.7, 54.7), 0.05: (106.9, 84.0)}),
        (Parallel(720, 512, 0.7), Kernel("hann", 0.8), {0.5: (20.2,), 0.25: (35.6,), 0.1: (64.7,), 0.05: (100.8,)}),
    ],
    ids=["fan", "parallel"],
)
def test_the_same_noise_as_a_reference_at_the_same_exposure(
    geometry: Geometry, kernel: Kernel, wanted: dict[float, tuple[float, ...]]
) -> None:
    """Noise in the middle and near the edge of 300 mm of water, of another implementation: within 10 %."""
    coarse = geometry.coarser(8)
    integrals = shadow(coarse, 150.0)
    photons = incident(integrals, coarse, Beam())
    away = radius_mm(64, 5.6)
    for dose, figures in wanted.items():
        variance = added_deviation(integrals, photons, dose, 10.0)[None] ** 2
        found = 5e4 * noise_variance(variance, 64, 5.6, coarse, (geometry, kernel))[0].sqrt()
        places = (away < 20.0, (away > 115.0) & (away < 135.0))
        assert [float(found[place].mean()) for place in places[: len(figures)]] == pytest.approx(figures, rel=0.1)


def test_rays_cover_a_slice_to_its_corners() -> None:
    geometry = covering(64, 2.0)
    assert geometry.readings * geometry.step >= math.hypot(128.0, 128.0)
