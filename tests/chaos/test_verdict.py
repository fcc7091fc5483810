"""The judge of the chaos runs must be able to fail: it is shown losses and doubles that are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chaos.verdict import Held, Original, Verdict, judged

SERIES = "1.2"
DERIVED_SERIES = "2.25.7"
EXPECTED = {f"1.2.{number}": Original(SERIES, f"digest {number}") for number in range(3)}
ORIGINALS = [Held(uid, SERIES, original.digest) for uid, original in EXPECTED.items()]
DERIVED = [Held(f"2.25.{uid[-1]}", DERIVED_SERIES, f"derived {uid}", uid) for uid in EXPECTED]
ALL = [*ORIGINALS, *DERIVED]


def test_what_is_expected_is_neither_lost_nor_doubled() -> None:
    assert judged(EXPECTED, ALL) == Verdict((), (), 0)


@pytest.mark.parametrize("missing", range(len(ALL)))
def test_each_instance_that_is_not_there_is_lost(missing: int) -> None:
    verdict = judged(EXPECTED, ALL[:missing] + ALL[missing + 1 :])
    assert len(verdict.lost) == 1
    assert f"1.2.{missing % 3}" in verdict.lost[0]
    assert verdict.doubled == ()


def test_an_original_that_came_changed_is_lost() -> None:
    changed = [replace(ORIGINALS[0], digest="other"), *ALL[1:]]
    assert judged(EXPECTED, changed).lost == (f"original 1.2.0 of series {SERIES} is there, but changed",)


def test_everything_is_lost_where_nothing_came() -> None:
    assert len(judged(EXPECTED, []).lost) == 2 * len(EXPECTED)


def test_the_same_again_is_sent_twice_and_not_doubled() -> None:
    assert judged(EXPECTED, [*ALL, ALL[0], ALL[0], ALL[-1]]) == Verdict((), (), 3)


@pytest.mark.parametrize("twice", range(len(ALL)))
def test_one_uid_with_two_contents_is_doubled(twice: int) -> None:
    verdict = judged(EXPECTED, [*ALL, replace(ALL[twice], digest="other")])
    assert verdict.doubled == (f"{ALL[twice].sop_instance_uid} is there with 2 contents",)
    assert verdict.lost == ()


def test_two_objects_derived_of_one_original_are_doubled() -> None:
    again = replace(DERIVED[1], sop_instance_uid="2.25.99")
    assert judged(EXPECTED, [*ALL, again]).doubled == ("2 objects were derived of 1.2.1",)


def test_two_series_derived_of_one_are_doubled() -> None:
    apart = [*ALL[:-1], replace(ALL[-1], series_instance_uid="2.25.8")]
    assert judged(EXPECTED, apart).doubled == (f"2 series were derived of series {SERIES}",)


def test_what_nobody_sent_is_told() -> None:
    stranger = Held("9.9", SERIES, "digest")
    assert judged(EXPECTED, [*ALL, stranger]).doubled == ("9.9 is there, which nobody sent",)
