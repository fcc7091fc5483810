"""Whether a destination has the same patient and study: tolerant of spelling, never of another patient."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.patients import COMPARED, differences
from dicomnode.core.types import Header

OURS: Header = {
    "StudyInstanceUID": ("1.2.3",),
    "PatientID": ("P1",),
    "PatientName": ("Doe^Jane",),
    "PatientBirthDate": ("19700101",),
    "PatientSex": ("F",),
    "AccessionNumber": ("A1",),
}


def differing(**theirs: str | None) -> list[str]:
    """Keywords that differ where the destination has these values in place of ours; None is none."""
    changed = {**OURS, **{keyword: (text,) for keyword, text in theirs.items() if text is not None}}
    for keyword, text in theirs.items():
        if text is None:
            del changed[keyword]
    return [difference.keyword for difference in differences(OURS, [changed])]


@pytest.mark.parametrize(
    "name",
    [
        "Doe^Jane",
        "DOE^JANE",
        "doe^jane^^^",
        " Doe ^ Jane ",
        "Doe^Jane=\u5c71\u7530^\u82b1\u5b50",
        "Doe^Jane==",
        "",
        "=x",
    ],
)
def test_a_name_may_be_spelt_in_many_ways(name: str) -> None:
    assert differing(PatientName=name) == []


@pytest.mark.parametrize("name", ["Doe^John", "Jane^Doe", "Doe^Jane^M", "Doe", "Doe Jane", "Does^Jane"])
def test_another_name_is_another(name: str) -> None:
    assert differing(PatientName=name) == ["PatientName"]


def test_representations_are_compared_where_both_sides_have_them() -> None:
    ours = {**OURS, "PatientName": ("Yamada^Tarou=\u5c71\u7530^\u592a\u90ce",)}
    other = {**OURS, "PatientName": ("Yamada^Tarou=\u7530\u4e2d^\u592a\u90ce",)}
    assert [one.keyword for one in differences(ours, [other])] == ["PatientName"]


@pytest.mark.parametrize("keyword", COMPARED)
def test_what_one_side_does_not_know_is_no_difference(keyword: str) -> None:
    assert differing(**{keyword: None}) == []
    assert differing(**{keyword: "  "}) == []


@pytest.mark.parametrize(
    ("keyword", "theirs"),
    [
        ("PatientID", "P2"), ("PatientID", "p1"), ("AccessionNumber", "A2"), ("PatientBirthDate", "19700102"),
        ("PatientSex", "M"),
    ],
)  # fmt: skip
def test_what_differs_is_told_with_both_values(keyword: str, theirs: str) -> None:
    (found,) = differences(OURS, [{**OURS, keyword: (theirs,)}])
    assert (found.keyword, found.ours, found.theirs) == (keyword, OURS[keyword][0], theirs)


def test_padding_means_nothing() -> None:
    assert differing(PatientID="P1 ", AccessionNumber=" A1", PatientSex="F\0", PatientBirthDate="19700101 ") == []


def test_a_study_that_is_not_there_is_told() -> None:
    assert [one.keyword for one in differences(OURS, [])] == ["StudyInstanceUID"]


def test_of_several_matches_the_nearest_counts() -> None:
    another = {**OURS, "PatientID": ("P9",), "PatientName": ("Roe^Richard",)}
    assert differences(OURS, [another, OURS]) == ()
    assert len(differences(OURS, [another])) == 2


HEADERS = st.fixed_dictionaries({}, optional={keyword: st.tuples(st.text(max_size=20)) for keyword in COMPARED})


@given(HEADERS, HEADERS)
@settings(deadline=None)
def test_comparing_has_no_direction_and_nothing_differs_from_itself(ours: Header, theirs: Header) -> None:
    assert differences(ours, [ours]) == ()
    there = {one.keyword for one in differences(ours, [theirs])}
    assert there == {one.keyword for one in differences(theirs, [ours])}
