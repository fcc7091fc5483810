"""Which instances of a series are handled together: pure, over all that may come late."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.core.lateness import Lateness, Member, groups
from dicomnode.core.types import LatePolicy

LATE = st.none() | st.builds(Lateness, st.integers(1, 3), st.sampled_from(LatePolicy))
SERIES = st.lists(LATE, max_size=12).map(
    lambda late: [Member(number, f"1.2.{number}", one) for number, one in enumerate(late)]
)


@given(SERIES)
def test_every_instance_is_in_one_group_unless_it_is_ignored(members: list[Member]) -> None:
    grouped = [row for group in groups(members) for row in group.instance_rows]
    assert len(grouped) == len(set(grouped))
    wanted = {one.instance_row for one in members if one.late is None or one.late.policy is not LatePolicy.IGNORE}
    assert set(grouped) == wanted
    assert all(group.instance_rows for group in groups(members))


@given(SERIES)
def test_what_is_separate_changes_no_other_group(members: list[Member]) -> None:
    before = {group.key: group.instance_rows for group in groups(members)}
    more = [*members, Member(99, "1.2.99", Lateness(9, LatePolicy.SEPARATE))]
    after = {group.key: group.instance_rows for group in groups(more)}
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + 1


@given(SERIES, st.integers(1, 5))
def test_groups_are_named_by_what_they_hold_not_by_when_it_came(members: list[Member], later: int) -> None:
    moved = [
        one if one.late is None else Member(one.instance_row, one.sop_instance_uid, _moved(one.late, later))
        for one in members
    ]
    assert {group.key for group in groups(moved)} == {group.key for group in groups(members[::-1])}


def _moved(late: Lateness, later: int) -> Lateness:
    return late._replace(generation=late.generation + later)


@given(st.lists(st.sampled_from(LatePolicy), min_size=1), st.randoms())
def test_the_tightest_of_several_policies_holds_in_any_order(policies: list[LatePolicy], order: Random) -> None:
    tightest = _all_of(policies)
    order.shuffle(policies)
    assert _all_of(policies) is tightest
    assert tightest.tightened(None) is tightest


def _all_of(policies: list[LatePolicy]) -> LatePolicy:
    tightest = LatePolicy.SUPERSEDE
    for policy in policies:
        tightest = tightest.tightened(policy)
    return tightest


@pytest.mark.parametrize("policy", LatePolicy)
def test_ignoring_is_the_tightest(policy: LatePolicy) -> None:
    assert policy.tightened(LatePolicy.IGNORE) is LatePolicy.IGNORE
    assert policy.tightened(LatePolicy.SUPERSEDE) is policy
