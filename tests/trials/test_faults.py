"""Faults are what they are said to be, and the gate catches them on a made-up body: `make gates` in small."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from dicomnode.core.phantom import phantom_study
from engines.volume import HU, Volume
from trials.denoisers import DENOISERS, Taken
from trials.dose import at_dose, unit_noise
from trials.faults import FAULTS, Case, Nodule, sphere_share, with_nodule
from trials.figures import alarms, caught, nodules, spread, wilson
from trials.run import CLEAN, Seen, Slab, Trial, run, strongest
from trials.series import cut

SIZE = 256
SLICES = 5


@pytest.fixture(name="body", scope="module")
def _body() -> Volume:
    """A few slices of a body that nobody has."""
    study = phantom_study(np.random.default_rng(1), slices=SLICES, size=SIZE, noise_hu=12.0)
    stored = [image.pixel_array.astype(np.float32) + float(image.RescaleIntercept) for image in study]
    return Volume(np.stack(stored), np.diag([360 / SIZE, 360 / SIZE, 2.0, 1.0]), HU)


def test_dose_adds_the_noise_that_it_says(body: Volume) -> None:
    body = cut(body, 0, 2)
    noise = unit_noise(body, 1)
    water = (slice(None), slice(108, 148), slice(118, 138))  # between the lungs
    full = body.voxels[water].std()
    assert at_dose(body, noise, 0.5).voxels[water].std() == pytest.approx(full * np.sqrt(2), rel=0.35)
    assert at_dose(body, noise, 0.2).voxels[water].std() == pytest.approx(full * np.sqrt(5), rel=0.35)
    assert at_dose(body, noise, 1.0) is body


def test_a_sphere_has_its_volume(body: Volume) -> None:
    share = sphere_share(body, (2, 100, 90), 8.0)
    row_mm, column_mm = body.pixel_spacing_mm
    assert share.sum() * row_mm * column_mm * 2.0 == pytest.approx(np.pi * 8.0**3 / 6, rel=0.05)
    assert share.max() == pytest.approx(1.0, abs=0.01)
    middle = [float((share * axis).sum() / share.sum()) for axis in np.indices(share.shape)]
    assert middle == pytest.approx([2.0, 100.0, 90.0], abs=0.2)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_every_fault_alters_what_it_should_and_no_more(body: Volume, name: str) -> None:
    case = Case(body, body.with_voxels(body.voxels.copy()))
    plant, extents = FAULTS[name]
    for extent in extents:
        altered = plant(case, np.random.default_rng(3), range(2, 3) if extent == "one" else range(SLICES))
        assert altered is not None
        changed = np.any(altered.source.voxels != altered.output.voxels, axis=(1, 2))
        assert changed.any()
        if extent == "one" and "nodule" not in name:
            assert set(np.flatnonzero(changed)) <= {2, 3}
        assert np.array_equal(case.source.voxels, case.output.voxels)


def test_the_gate_catches_them_all_on_a_phantom(body: Volume) -> None:
    """Slices of a phantom differ by noise alone, so their order is not judged, and its spheres are as faint as nodules
    may be: only the coarse faults are asked for here."""
    trials, _ = run(Slab("phantom", 0, body, doses=(0.5,), engines=("guided",)))
    by_fault: dict[str, list[bool]] = defaultdict(list)
    for trial in trials:
        by_fault[trial.fault].append(bool(trial.reasons))
    for name in ("HU offset of 30", "flipped axis", "NaN", "blurred (Gaussian, 1 px)"):
        assert np.mean(by_fault[name]) > 0.95, name
    assert set(by_fault) >= {CLEAN, *FAULTS} - {"bone clipped at 600 HU"}


def test_a_larger_or_brighter_nodule_stands_out_more(body: Volume) -> None:
    taken = Taken(body, body, 1.0)
    case = Case(body, DENOISERS["guided"](taken))
    place = (2, 128, 128)
    by_contrast = [
        strongest(with_nodule(case, Nodule(place, 8.0, contrast), is_erased=False)) for contrast in (0, 150, 600)
    ]
    assert by_contrast[0] < by_contrast[1] < by_contrast[2]


def test_intervals() -> None:
    assert wilson(500, 500) == (pytest.approx(0.99238, abs=1e-4), 1.0)
    assert wilson(0, 500) == (pytest.approx(0.0, abs=1e-9), pytest.approx(0.00762, abs=1e-4))
    assert wilson(50, 100) == (pytest.approx(0.4038, abs=1e-3), pytest.approx(0.5962, abs=1e-3))
    assert wilson(0, 0) == (0.0, 1.0)


def test_tables() -> None:
    trials = [
        Trial("a", 0, 1.0, "ct-nlm", CLEAN, "", (), {"blob": 3.0}),
        Trial("a", 0, 1.0, "ct-nlm", "NaN", "one", ("finite",), {"blob": 9.0}),
    ]
    assert "| NaN | 1 | 100.0 % (20.7 % to 100.0 %) | 1 of 1 |  | finite 1 |" in caught(trials)
    assert alarms(trials)[2].startswith("| ct-nlm | 100% | 1 | 0.0 %")
    assert any(row.startswith("| blob | NaN one | 9 |") for row in spread(trials))
    seen = [Seen("ct-nlm", 1.0, "lung", True, 6.0, 800.0, 9.0), Seen("ct-nlm", 1.0, "lung", True, 6.0, 800.0, 5.0)]
    assert "| lung | 800 HU |  | 50 % of 2 |  |  |" in nodules(seen, 8.0)
