"""Patches: the same for the same step and seed, of the doses asked for, and never of air alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainers.made import SIZE_PX, patient
from trainers.data.patches import Drawer, Drawing, Noisy, Planting, Texturing
from trainers.data.series import LOWEST_HU
from trainers.errors import SourceError

DRAWING = Drawing(batch=12, size_px=32)
POOL = tuple(patient(number) for number in range(3))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.equal(one, other))


def test_step_and_seed_decide() -> None:
    drawer, again = (Drawer(POOL, DRAWING, seed=5) for _ in range(2))
    for step in (0, 7, 3):
        assert same(drawer.batch(step).low, again.batch(step).low)
    assert not same(drawer.batch(0).low, drawer.batch(1).low)
    assert not same(drawer.batch(0).low, Drawer(POOL, DRAWING, seed=6).batch(0).low)


def test_parts_of_a_batch_are_the_batch() -> None:
    drawer = Drawer(POOL, DRAWING, seed=5)
    whole, parts = drawer.batch(4), [drawer.batch(4, samples) for samples in (range(5), range(5, 12))]
    for name in ("low", "full", "dose", "noise_hu"):
        assert same(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))


def test_patches_are_float32_of_the_shape_asked_for() -> None:
    batch = Drawer(POOL, replace(DRAWING, neighbours=1), seed=1).batch(0)
    assert (batch.low.shape, batch.full.shape) == ((12, 3, 32, 32), (12, 1, 32, 32))
    assert {tensor.dtype for tensor in (batch.low, batch.full, batch.dose, batch.noise_hu)} == {torch.float32}
    assert float(batch.low.min()) >= LOWEST_HU


def test_the_added_noise_is_the_doses() -> None:
    plain = replace(DRAWING, batch=64, doses=(0.1, 0.5), turns=False)
    batch = Drawer(POOL, plain, seed=2).batch(0)
    inside = (batch.full > -900).all(dim=3).all(dim=2).all(dim=1)  # where nothing is clipped
    added = (batch.low - batch.full).std(dim=(1, 2, 3))[inside]
    wanted = 15.0 * torch.sqrt((1 - batch.dose) / batch.dose)[inside]
    assert len(added) > 5
    assert added == pytest.approx(wanted, rel=0.1)
    assert batch.noise_hu == pytest.approx(10.0 / torch.sqrt(batch.dose))


def test_doses_lie_within_their_bounds_and_some_are_full() -> None:
    drawing = replace(DRAWING, batch=300, size_px=8, doses=(0.1, 0.4), full_dose_share=0.25)
    doses = Drawer(POOL, drawing, seed=3).batch(0).dose
    full = doses == 1.0
    assert float(full.float().mean()) == pytest.approx(0.25, abs=0.08)
    assert float(doses[~full].min()) >= 0.1
    assert float(doses[~full].max()) <= 0.4
    assert float((doses[~full] < 0.2).float().mean()) == pytest.approx(0.5, abs=0.12)  # as many below 0.2 as above


def test_at_full_dose_nothing_is_added() -> None:
    batch = Drawer(POOL, replace(DRAWING, full_dose_share=1.0), seed=3).batch(0)
    assert same(batch.low, batch.full)


def test_no_patch_is_air_alone() -> None:
    batch = Drawer(POOL, replace(DRAWING, batch=200, size_px=16), seed=4).batch(0)
    assert float((batch.full > -950).float().mean(dim=(1, 2, 3)).min()) >= 0.3


def test_patients_are_drawn_by_the_power_of_their_slices() -> None:
    large, small = patient(1, slices=16), patient(2, slices=1)
    marked = replace(small, series=replace(small.series, hu=np.full_like(small.series.hu, 77)))
    for power, share in ((0.0, 0.5), (1.0, 1 / 17)):
        drawing = replace(DRAWING, batch=400, size_px=8, patient_power=power)
        batch = Drawer([large, marked], drawing, seed=0).batch(0)
        assert float((batch.full == 77).all(dim=3).all(dim=2).float().mean()) == pytest.approx(share, abs=0.08)


def test_beyond_the_ends_the_last_slice_is_repeated() -> None:
    one = patient(3, slices=1)
    batch = Drawer([one], replace(DRAWING, neighbours=1, full_dose_share=1.0), seed=0).batch(0)
    assert same(batch.low[:, 0], batch.low[:, 1])
    assert same(batch.low[:, 2], batch.full[:, 0])


def test_nodules_are_planted_into_both_doses_alike() -> None:
    lungs = _even(-850)
    planting = Planting(share=1.0, radius_mm=(8.0, 12.0), contrast_hu=(100.0, 100.0), wobble=0.0)
    drawing = replace(DRAWING, batch=40, full_dose_share=1.0, planting=planting)
    batch = Drawer([lungs], drawing, seed=0).batch(0)
    brighter = (batch.full + 850).amax(dim=(1, 2, 3))
    planted = brighter > 50
    assert 0.3 < float(planted.float().mean()) < 0.7  # the others were to be planted in tissue, and there is none
    assert brighter[planted] == pytest.approx(torch.full_like(brighter[planted], 100.0), abs=15.0)
    assert same(batch.low, batch.full)
    assert torch.allclose(batch.planted, (batch.full + 850) / 100, atol=1e-3)


def test_as_many_nodules_are_planted_as_there_is_room_for() -> None:
    planting = Planting(share=1.0, radius_mm=(1.5, 1.5), contrast_hu=(100.0, 100.0))
    planted = [
        Drawer([_even(-850)], replace(DRAWING, batch=40, planting=replace(planting, count=count)), seed=0)
        .batch(0)
        .planted
        for count in (1, 4)
    ]
    assert 3 < float(planted[1].sum() / planted[0].sum()) < 5


def test_some_patches_get_noise_of_another_texture_and_of_the_same_strength() -> None:
    drawing = replace(DRAWING, batch=200, doses=(0.25, 0.25), turns=False)
    shares = []
    for share in (0.0, 0.5, 1.0):
        batch = Drawer([_even(0)], replace(drawing, texturing=Texturing(share, cutoff=(0.5, 0.5))), seed=0).batch(0)
        added = batch.low - batch.full
        assert float(added.std()) == pytest.approx(15.0 * 3**0.5, rel=0.1)
        beside = (added[..., 1:] * added[..., :-1]).mean(dim=(1, 2, 3)) / added.square().mean(dim=(1, 2, 3))
        shares.append(float((beside > 0.4).float().mean()))  # the made patients have white noise
    assert shares == [0.0, pytest.approx(0.5, abs=0.1), 1.0]


def _even(hu: int) -> Noisy:
    one = patient(1, slices=1)
    return replace(one, series=replace(one.series, hu=np.full_like(one.series.hu, hu)))


def test_too_small_a_slice_and_too_few_series_are_refused() -> None:
    with pytest.raises(SourceError, match="no series"):
        Drawer([], DRAWING, seed=0)
    with pytest.raises(SourceError, match="smaller than a patch"):
        Drawer(POOL, replace(DRAWING, size_px=SIZE_PX + 1), seed=0)
