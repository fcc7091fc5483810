"""What is asked for: all that is missing, nothing that is here; and how it ended by the count alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.core.retrieving import (
    RetrievalState,
    SeriesAtPeer,
    SeriesCount,
    Wanted,
    count,
    end_of,
    one_by_one,
    requests,
)


@st.composite
def counted(draw: st.DrawFn) -> list[SeriesCount]:
    """Series of a few studies, listed or only counted, with any part of them held."""
    counts = []
    for number in range(draw(st.integers(1, 6))):
        study, series = f"1.{draw(st.integers(1, 3))}", f"2.{number}"
        uids = [f"{series}.{instance}" for instance in range(draw(st.integers(1, 130)))]
        held = draw(st.sampled_from([set(), set(uids), set(uids[::2]), set(uids[:1])]))
        listed = draw(st.booleans())
        at_peer = SeriesAtPeer(study, series, len(uids), tuple(uids) if listed else None, patient_id="X")
        counts.append(count(at_peer, held))
    return counts


def sent(wanted: Wanted, one: SeriesCount) -> set[str]:
    """What a faithful peer sends of a series."""
    uids = {f"{one.series.series_instance_uid}.{number}" for number in range(one.series.instances or 0)}
    if wanted.study_instance_uid != one.series.study_instance_uid:
        return set()
    if wanted.series_instance_uid not in ("", one.series.series_instance_uid):
        return set()
    return uids & set(wanted.sop_instance_uids) if wanted.sop_instance_uids else uids


@given(counted(), st.booleans())
def test_all_that_is_missing_is_asked_for_and_no_listed_instance_that_is_here(
    counts: list[SeriesCount], whole: bool
) -> None:
    asked = tuple(requests(counts, whole))
    for one in counts:
        coming = set().union(*(sent(wanted, one) for wanted in asked)) if asked else set()
        assert set(one.missing) <= coming
        if one.series.sop_instance_uids is not None:
            assert coming <= set(one.missing)
        elif one.lacking:
            assert len(coming) == one.series.instances
    assert all(len(wanted.sop_instance_uids) <= 50 and wanted.patient_id == "X" for wanted in asked)
    assert bool(asked) == any(one.lacking for one in counts)


@given(counted())
def test_it_is_complete_exactly_where_nothing_is_lacking(counts: list[SeriesCount]) -> None:
    state, reason = end_of(counts)
    assert (state is RetrievalState.COMPLETE) == (not any(one.lacking for one in counts))
    assert (state is RetrievalState.FAILED) == (not any(one.held for one in counts))
    assert str(sum(one.series.instances or 0 for one in counts)) in reason or state is RetrievalState.FAILED


def test_a_whole_study_is_one_request() -> None:
    series = [count(SeriesAtPeer("1.1", f"2.{number}", 2, (f"{number}.1", f"{number}.2")), ()) for number in range(3)]
    assert list(requests(series, whole_studies=True)) == [Wanted("1.1")]
    assert list(requests(series, whole_studies=False)) == [Wanted("1.1", f"2.{number}") for number in range(3)]


def test_what_a_peer_does_not_count_is_never_called_complete() -> None:
    unknown = SeriesAtPeer("1.1", "2.1")
    assert list(requests([count(unknown, ())], whole_studies=False)) == [Wanted("1.1", "2.1")]
    assert end_of([count(unknown, ("3.1",))])[0] is RetrievalState.PARTIAL
    assert end_of([])[0] is RetrievalState.FAILED
    listed = count(SeriesAtPeer("1.1", "2.1", 1, ("3.1",)), ("3.1",))
    state, reason = end_of([listed], ["2.9"])
    assert (state, "series 2.9" in reason) == (RetrievalState.PARTIAL, True)


@pytest.mark.parametrize(("uids", "expected"), [((), 0), (("1",), 0), (("1", "2", "3"), 3)])
def test_a_list_can_be_asked_for_one_by_one(uids: tuple[str, ...], expected: int) -> None:
    alone = one_by_one(Wanted("1.1", "2.1", uids))
    assert len(alone) == expected
    assert {wanted.sop_instance_uids for wanted in alone} == ({(uid,) for uid in uids} if expected else set())
