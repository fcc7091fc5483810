"""Splits are by patient; a patient in two is an error."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.made import patient
from trainers.data.series import PairedSeries
from trainers.data.splits import Splits, is_named, require_apart, split
from trainers.errors import SourceError

SERIES = [patient(number, slices=1).series for number in range(4)]
PATIENTS = st.frozensets(st.sampled_from("abcdefgh"), max_size=8)


@given(PATIENTS, PATIENTS, PATIENTS)
@settings(deadline=None)
def test_no_patient_is_ever_in_two(train: frozenset[str], validation: frozenset[str], test: frozenset[str]) -> None:
    named = [train, validation, test]
    series = [replace(SERIES[0], patient=name) for name in sorted(train | validation | test)]
    splits = Splits(*(tuple(sorted(names)) for names in named))
    if sum(map(len, named)) > len(series):
        with pytest.raises(SourceError, match="two splits"):
            split(series, splits)
        return
    found = split(series, splits)
    assert {name: {one.patient for one in own} for name, own in found.items()} == dict(
        zip(("train", "validation", "test"), named, strict=True)
    )
    require_apart(found)


def test_patterns_name_many_and_the_rest_is_left_out() -> None:
    found = split(SERIES, Splits(train=("*-0", "patient?1"), test=("patient-3",)))
    assert [one.name for one in found["train"]] == ["phantom-0", "phantom-1"]
    assert [one.name for one in found["test"]] == ["phantom-3"]
    assert found["validation"] == ()


def test_brackets_of_a_name_are_no_pattern() -> None:
    assert [is_named(patient, ("P[1]",)) for patient in ("P[1]", "P1", "p[1]")] == [True, False, False]
    assert is_named("P[1]-a", ("P[?]*",))
    series = [replace(SERIES[0], patient=patient) for patient in ("P[1]", "P1")]
    found = split(series, Splits(train=("P[1]",), test=("P1",)))
    assert [one.patient for name in ("train", "test") for one in found[name]] == ["P[1]", "P1"]


def test_pairs_are_split_as_series_are() -> None:
    pairs = [PairedSeries(one, one.hu, 0.25) for one in SERIES]
    assert len(split(pairs, Splits(train=("patient-*",)))["train"]) == 4


def test_a_split_without_its_patients_is_an_error() -> None:
    with pytest.raises(SourceError, match="'test'"):
        split(SERIES, Splits(train=("patient-0",), test=("patient-77",)))


def test_errors_name_the_series_and_never_the_patient() -> None:
    with pytest.raises(SourceError) as caught:
        split(SERIES, Splits(train=("patient-*",), test=("patient-3",)))
    assert "phantom-3" in str(caught.value)
    assert "patient-3" not in str(caught.value)


def test_series_of_one_patient_in_two_splits_are_found_however_they_came_there() -> None:
    twin = replace(SERIES[0], name="a second scan")
    with pytest.raises(SourceError, match="a second scan"):
        require_apart({"train": [SERIES[0]], "test": [twin]})
