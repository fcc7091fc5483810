"""What may be deleted, and what never."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.retention import LEAST_S, Holdings, RetentionPolicy, judge

DAY_S = 86400.0
CONFIRMED = Holdings(is_derived=False, last_at=0.0, in_progress=False, quarantined=False, unconfirmed=0, unrouted=0)
DAYS = st.none() | st.floats(0.1, 1000)
POLICIES = st.builds(RetentionPolicy, DAYS, DAYS, DAYS, DAYS, DAYS, st.booleans())
HOLDINGS = st.builds(
    Holdings, st.booleans(), st.floats(0, 1e8), st.booleans(), st.booleans(), st.integers(0, 2), st.integers(0, 2)
)


@pytest.mark.parametrize(
    ("found", "policy", "days", "deleted", "reason"),
    [
        (CONFIRMED, RetentionPolicy(), 1e4, False, "days are not over"),
        (CONFIRMED, RetentionPolicy(originals_days=30), 29.9, False, "days are not over"),
        (CONFIRMED, RetentionPolicy(originals_days=30), 30, True, "confirmed at every destination"),
        (CONFIRMED, RetentionPolicy(derived_days=30), 1e4, False, "days are not over"),
        (replace(CONFIRMED, is_derived=True), RetentionPolicy(derived_days=30), 31, True, "older than 30 days"),
        (replace(CONFIRMED, is_derived=True), RetentionPolicy(originals_days=30), 31, False, "days are not over"),
        (replace(CONFIRMED, in_progress=True), RetentionPolicy(1, 1, 1, 1, 1), 1e4, False, "still to be done"),
        (replace(CONFIRMED, unconfirmed=1), RetentionPolicy(30), 1e4, False, "not confirmed"),
        (replace(CONFIRMED, unconfirmed=1), RetentionPolicy(30, unconfirmed_days=60), 59, False, "not confirmed"),
        (replace(CONFIRMED, unconfirmed=1), RetentionPolicy(unconfirmed_days=60), 61, True, "older than 60 days"),
        (replace(CONFIRMED, unrouted=1), RetentionPolicy(30, unconfirmed_days=60), 1e4, False, "sent nowhere"),
        (replace(CONFIRMED, unrouted=1), RetentionPolicy(unrouted_days=7), 8, True, "sent nowhere"),
        (replace(CONFIRMED, quarantined=True), RetentionPolicy(30), 1e4, False, "quarantine"),
        (replace(CONFIRMED, quarantined=True), RetentionPolicy(30, quarantined_days=90), 91, True, "quarantine"),
        (
            replace(CONFIRMED, quarantined=True, unconfirmed=1),
            RetentionPolicy(30, quarantined_days=90),
            1e4,
            False,
            "not confirmed",
        ),
    ],
)  # fmt: skip
def test_what_is_deleted_and_why(
    found: Holdings, policy: RetentionPolicy, days: float, deleted: bool, reason: str
) -> None:
    judged = judge(found, policy, days * DAY_S)
    assert (judged.deletes, reason in judged.reason) == (deleted, True), judged


def test_a_full_disk_shortens_the_days_of_what_is_confirmed_only() -> None:
    policy = RetentionPolicy(originals_days=30, is_by_space=True)
    assert not judge(CONFIRMED, policy, LEAST_S).deletes
    assert judge(CONFIRMED, policy, LEAST_S, is_scarce=True).deletes
    assert not judge(CONFIRMED, policy, LEAST_S - 1, is_scarce=True).deletes
    assert not judge(replace(CONFIRMED, unconfirmed=1), policy, 1e9, is_scarce=True).deletes
    assert not judge(CONFIRMED, replace(policy, is_by_space=False), LEAST_S, is_scarce=True).deletes


@given(HOLDINGS, POLICIES, st.floats(0, 1e9), st.booleans())
@settings(deadline=None)
def test_what_is_under_way_or_not_named_is_never_deleted(
    found: Holdings, policy: RetentionPolicy, now: float, is_scarce: bool
) -> None:
    judged = judge(found, policy, now, is_scarce=is_scarce)
    assert judged.reason
    if judged.deletes:
        assert now - found.last_at >= policy.youngest_s(is_scarce=is_scarce)
        assert not found.in_progress
        assert policy.deletes
        assert not found.unconfirmed or policy.unconfirmed_days is not None
        assert not found.unrouted or policy.unrouted_days is not None
        assert not found.quarantined or policy.quarantined_days is not None


@given(HOLDINGS, POLICIES, st.floats(0, 1e9), st.floats(0, 1e8), st.booleans())
@settings(deadline=None)
def test_what_is_deleted_today_is_deleted_tomorrow(
    found: Holdings, policy: RetentionPolicy, now: float, later: float, is_scarce: bool
) -> None:
    if judge(found, policy, now, is_scarce=is_scarce).deletes:
        assert judge(found, policy, now + later, is_scarce=is_scarce).deletes
