"""Who may be judged by, and how much of them is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.evaluate.bodies import case
from tests.trainers.made import patient
from trainers.data.series import LOWEST_HU, PairedSeries, Series
from trainers.data.splits import Splits
from trainers.errors import SourceError
from trainers.evaluate.cases import Among, Extent, by_patient, is_judged, thinned
from trainers.evaluate.denoisers import LOW_DOSE, Denoiser
from trainers.evaluate.judging import judge
from trainers.recipes.reading import read_recipe

_RECIPE = replace(read_recipe("ct-denoise").recipe, patients=Splits(("patient-1",), ("patient-2",), ("patient-3",)))
_OTHER = replace(_RECIPE, name="other", patients=Splits(("patient-3",)))


def _series(number: int) -> Series:
    return patient(number).series


def test_test_patients_are_judged_by_and_no_others() -> None:
    assert [is_judged(_series(number), Among(_RECIPE)) for number in (1, 2, 3, 4)] == [False, False, True, False]
    assert is_judged(_series(4), Among(_RECIPE, patients=("patient-3", "*-4")))


def test_brackets_in_a_patients_name_are_no_pattern() -> None:
    series = replace(_series(4), patient="patient[4]")
    assert is_judged(series, Among(_RECIPE, patients=("patient[4]",)))
    assert not is_judged(replace(series, patient="patient4"), Among(_RECIPE, patients=("patient[4]",)))


def test_decisions_are_made_by_patients_of_the_validation_alone() -> None:
    among = Among(_RECIPE, split="validation")
    assert [is_judged(_series(number), among) for number in (1, 2, 3, 4)] == [False, True, False, False]
    with pytest.raises(SourceError, match="test"):
        is_judged(_series(3), replace(among, patients=("patient-3",)))


@pytest.mark.parametrize(
    ("among", "number", "split"),
    [
        (Among(_RECIPE, patients=("patient-*",)), 1, "train"),
        (Among(_RECIPE, patients=("patient-*",)), 2, "validation"),
        (Among(_RECIPE, (_OTHER,)), 3, "train"),
    ],
)
def test_a_patient_of_any_training_or_validation_is_refused(among: Among, number: int, split: str) -> None:
    with pytest.raises(SourceError, match=split) as caught:
        is_judged(_series(number), among)
    assert f"patient-{number}" not in str(caught.value)  # named by file, never by identity


@given(count=st.integers(1, 40), slices=st.integers(1, 10))
@settings(deadline=None)
def test_slices_are_spread_and_none_is_taken_twice(count: int, slices: int) -> None:
    series = replace(
        _series(3), hu=np.arange(count, dtype=np.int16)[:, None, None], z_mm=2.0 * np.arange(count, dtype=np.float64)
    )
    part = thinned(series, slices)
    assert isinstance(part, Series) and part.z_mm is not None
    taken = part.hu[:, 0, 0].tolist()
    assert len(taken) == min(count, slices) == len(set(taken)) and taken == sorted(taken)
    assert (part.z_mm == part.hu[:, 0, 0] * 2.0).all()
    if count >= 3 * slices:
        assert taken[0] > 0 and taken[-1] < count - 1


def test_both_doses_of_a_pair_are_thinned_alike() -> None:
    full = _series(3)
    part = thinned(PairedSeries(full, full.hu + np.int16(1), 0.25), 1)
    assert isinstance(part, PairedSeries) and (part.low_hu == part.full.hu + 1).all() and part.full.slices == 1


def test_a_lower_dose_is_noisier_by_its_root_and_never_below_the_lowest() -> None:
    one = case()
    full = one.full
    half, tenth = (one.low(full, dose, 0)[80:180, 20:120] - full[80:180, 20:120] for dose in (0.5, 0.1))
    assert tenth.std() / half.std() == pytest.approx(3.0, rel=0.02)
    assert one.low(full - 2000, 0.1, 0).min() == LOWEST_HU and one.low(full, 1.0, 0) is full


def test_noise_of_another_kernel_is_as_strong_and_the_same_each_time() -> None:
    own, other = case(), replace(case(), window=0.5)
    full, inside = own.full, np.s_[80:180, 20:120]
    fields = [(one.low(full, 0.1, field) - full)[inside] for one in (own, other) for field in (0, 1)]
    assert [field.std() for field in fields] == pytest.approx([fields[0].std()] * 4, rel=0.1)
    beside = [np.corrcoef(field[:, 1:].ravel(), field[:, :-1].ravel())[0, 1] for field in fields]
    assert max(map(abs, beside[:2])) < 0.1 and min(beside[2:]) > 0.4
    assert np.array_equal(other.low(full, 0.1, 0)[inside] - full[inside], fields[2])
    assert abs(np.corrcoef(fields[2].ravel(), fields[3].ravel())[0, 1]) < 0.1
    assert other.low(full, 1.0, 0) is full and not Extent(window=0.5).is_whole


def test_a_table_has_each_denoiser_dose_strength_and_patient() -> None:
    cases = [case(2, seed) for seed in (1, 2)]
    assert [len(own) for own in by_patient(cases)] == [1, 1]
    said: list[str] = []
    half = Denoiser("nothing", lambda low: np.zeros_like(low), "ours", (1.0, 0.5))
    table = judge(cases, [half], Extent((1.0, 0.25), 0, 1, 2), said.append)
    assert dict(table.kinds) == {LOW_DOSE.name: "input", "nothing": "ours", "nothing x 0.5": "partial"}
    assert len(table.rows) == 3 * 2 * 2 and table.patients == 2 and table.doses == (1.0, 0.25) and len(said) == 2
    kept = [table.value("contrast kept 6 mm +50 HU", name, 0.25).value for name in table.kinds]
    assert kept == pytest.approx([1.0, 0.0, 0.5], abs=1e-3)
    assert not any("variance" in name for row in table.rows if row.dose == 1.0 for name in row.figures)
    without = judge(cases[:1], [], Extent((0.25,), 0, 1, 0), said.append)
    assert not any("response" in name for name in without.rows[0].figures)
