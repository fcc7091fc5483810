"""When a series is complete, as a table: the same that docs/completeness.md tells."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.completeness import CONFIDENCE, find_gaps, judge
from dicomnode.core.types import ArrivalEvidence, AssociationEnd, Completeness, CompletenessPolicy
from tests.shared import shared_data

POLICY = CompletenessPolicy(quiet_s=60, released_quiet_s=5, deadline_s=600)
RELEASED, ABORTED, LOST = AssociationEnd.RELEASED, AssociationEnd.ABORTED, AssociationEnd.LOST
COMPLETE, WAIT, INCOMPLETE = Completeness.COMPLETE, Completeness.WAIT, Completeness.INCOMPLETE

WHOLE = ((0.0, 5.0, 10.0, 15.0),)
HOLED = ((0.0, 5.0, 15.0, 20.0),)

CASES = [
    # case, evidence, verdict after so many seconds of silence
    ("released and nothing missing: a short silence",
     {"ended": (RELEASED,), "positions_mm": WHOLE}, {0: WAIT, 4.9: WAIT, 5: COMPLETE}),
    ("several associations, all released",
     {"ended": (RELEASED, RELEASED)}, {4.9: WAIT, 5: COMPLETE}),
    ("an association is still open: the long silence",
     {"open_associations": 1, "ended": (RELEASED,)}, {5: WAIT, 59.9: WAIT, 60: COMPLETE}),
    ("an association was aborted: the sender may try again",
     {"ended": (ABORTED,)}, {5: WAIT, 59.9: WAIT, 60: COMPLETE}),
    ("one was lost, a later one released",
     {"ended": (LOST, RELEASED)}, {5: WAIT, 60: COMPLETE}),
    ("no association known, as from a folder",
     {}, {5: WAIT, 60: COMPLETE}),
    ("the expected count is here and the associations ended: at once",
     {"instances": 4, "expected": 4, "ended": (RELEASED,)}, {0: COMPLETE}),
    ("the expected count is here though the association was aborted after it",
     {"instances": 4, "expected": 4, "ended": (ABORTED,)}, {0: COMPLETE}),
    ("the expected count is here, the association still open: a short silence",
     {"instances": 4, "expected": 4, "open_associations": 1}, {4.9: WAIT, 5: COMPLETE}),
    ("the expected count is here: gaps do not matter",
     {"instances": 4, "expected": 4, "ended": (RELEASED,), "positions_mm": HOLED}, {0: COMPLETE}),
    ("fewer than expected: the deadline, then incomplete",
     {"instances": 3, "expected": 4, "ended": (RELEASED,)}, {60: WAIT, 599.9: WAIT, 600: INCOMPLETE}),
    ("more than expected: the count is not used",
     {"instances": 5, "expected": 4, "ended": (RELEASED,)}, {4.9: WAIT, 5: COMPLETE}),
    ("a slice is missing between others: the deadline, then incomplete",
     {"ended": (RELEASED,), "positions_mm": HOLED}, {60: WAIT, 600: INCOMPLETE}),
    ("a slice is missing in the second orientation",
     {"ended": (RELEASED,), "positions_mm": WHOLE + HOLED}, {60: WAIT, 600: INCOMPLETE}),
    ("two slices say nothing of a third",
     {"ended": (RELEASED,), "positions_mm": ((0.0, 50.0),)}, {5: COMPLETE}),
]  # fmt: skip


def _evidence(**known: object) -> ArrivalEvidence:
    return replace(ArrivalEvidence(instances=4, first_at=1000.0, last_at=1010.0, expected_source="C-FIND"), **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(("known", "verdicts"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_series_is_judged_so(known: dict[str, object], verdicts: dict[float, Completeness]) -> None:
    evidence = _evidence(**known)
    judged = {silence_s: judge(evidence, POLICY, evidence.last_at + silence_s).state for silence_s in verdicts}
    assert judged == verdicts


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"expected": 7}, "3 of 7 expected instances are missing (C-FIND)"),
        ({"expected": 5}, "1 of 5 expected instances is missing (C-FIND)"),
        ({"expected": 4}, "all 4 expected instances are here (C-FIND)"),
        ({"expected": 3}, "4 instances are here, more than the 3 expected (C-FIND): that count is not used"),
        ({"positions_mm": HOLED}, "1 slice is missing by position: 1 at 10.00 mm"),
        ({"positions_mm": ((0, 5, 10, 30, 35),)}, "3 slices are missing by position: 3 between 10.00 and 30.00 mm"),
        ({"open_associations": 2}, "2 associations that carried it are still open"),
        ({"ended": (LOST,)}, "an association broke off: the sender may try again"),
    ],
)
def test_reasons_say_what_and_how_many(known: dict[str, object], reason: str) -> None:
    evidence = _evidence(**known)
    assert reason in judge(evidence, POLICY, evidence.last_at + 600).reasons
    assert reason in judge(evidence, POLICY, evidence.last_at - 1).reasons


def test_many_gaps_are_not_all_named() -> None:
    threes = tuple(float(20 * i + j) for i in range(8) for j in (0, 5, 10))  # and nothing at 15, 35, 55, ...
    (reason,) = judge(_evidence(positions_mm=(threes,)), POLICY, 1e9).reasons
    assert reason.startswith("7 slices are missing by position: 1 at 15.00 mm, 1 at 35.00 mm")
    assert reason.endswith(", and in 2 more places")


def test_both_count_and_gaps_are_told() -> None:
    reasons = judge(_evidence(expected=5, positions_mm=HOLED), POLICY, 1e9).reasons
    assert len(reasons) == 2


@pytest.mark.parametrize(
    ("why", "positions_mm", "missing"),
    [
        ("even", [0, 5, 10, 15], 0),
        ("unordered", [10, 0, 20, 5], 1),
        ("two phases at the same positions", [0, 0, 5, 5, 15, 15], 1),
        ("a hair off its place", [0, 5, 10.04, 15, 20], 0),
        ("a missing slice, neighbours a hair off", [0, 5, 15.04, 20], 1),
        ("a step that is no multiple", [0, 5, 10, 18, 23], 0),
        ("4 and 7 mm by turns", [0, 4, 11, 15, 22, 26], 0),
        ("2.5 mm, then 5 mm: a change of spacing", [0, 2.5, 5, 7.5, 10, 12.5, 17.5, 22.5, 27.5], 0),
        ("2.5 mm, then 5 mm, one missing", [0, 2.5, 5, 7.5, 10, 12.5, 17.5, 22.5, 27.5, 37.5, 42.5], 1),
        ("two holes side by side", [0, 5, 10, 20, 30, 35, 40], 2),
        ("all at one position", [5, 5, 5, 5], 0),
        ("hostile numbers", [-1e308, 0, 1e308, 1e300], 0),
        ("none", [], 0),
    ],
)
def test_gaps_by_position(why: str, positions_mm: list[float], missing: int) -> None:
    assert sum(gap.missing for gap in find_gaps(positions_mm)) == missing


def _positions_mm(relative: str) -> list[list[float]]:
    """Positions along the normal of every file under a folder, one list for each orientation."""
    by_orientation = defaultdict(list)
    for path in sorted(shared_data(relative).rglob("*")):
        if path.is_dir():
            continue
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        if "ImagePositionPatient" in dataset:
            cosines = np.array(dataset.ImageOrientationPatient, dtype=float)
            normal = np.cross(cosines[:3], cosines[3:])
            position = np.array(dataset.ImagePositionPatient, dtype=float)
            by_orientation[tuple(cosines.round(3))].append(float(normal @ position))
    assert by_orientation
    return list(by_orientation.values())


@pytest.mark.parametrize(
    ("relative", "missing"),
    [
        ("ct/dicom/lidc0002", 0),
        ("ct/dicom/lidc0003", 0),
        ("ct/dicom/kits00072", 0),
        ("ct/dicom/head_ge", 0),  # 4 and 7 mm by turns, tilted
        ("dicom/geometry/gantry_tilt_variable_spacing", 0),
        ("dicom/series/missing_slice", 1),
        ("dicom/series/mixed_orientation", 0),
        ("dicom/series/duplicate_position", 0),
        ("dicom/series/multi_acquisition", 0),
    ],
)
def test_gaps_of_real_series(relative: str, missing: int) -> None:
    assert sum(gap.missing for positions in _positions_mm(relative) for gap in find_gaps(positions)) == missing


@pytest.mark.parametrize("left_out", [3, 5, 8])
def test_any_slice_left_out_of_a_real_series_is_found(left_out: int) -> None:
    (positions,) = _positions_mm("ct/dicom/lidc0002")
    positions.sort()
    gone = positions.pop(left_out)
    (gap,) = find_gaps(positions)
    assert gap.missing == 1
    assert gap.after_mm < gone < gap.before_mm


SECONDS = st.floats(0, 1e5)
EVIDENCE = st.builds(
    ArrivalEvidence,
    instances=st.integers(0, 20),
    first_at=st.just(0.0),
    last_at=st.floats(0, 2e9),
    open_associations=st.integers(0, 3),
    ended=st.lists(st.sampled_from(AssociationEnd), max_size=3).map(tuple),
    expected=st.none() | st.integers(0, 20),
    expected_source=st.just("C-FIND"),
    positions_mm=st.lists(st.lists(st.floats(-1e4, 1e4), max_size=8).map(tuple), max_size=2).map(tuple),
)
POLICIES = st.builds(CompletenessPolicy, quiet_s=SECONDS, released_quiet_s=SECONDS, deadline_s=SECONDS)


@settings(deadline=None)
@given(EVIDENCE, POLICIES, st.floats(0, 3e9))
def test_waiting_ends_exactly_at_until(evidence: ArrivalEvidence, policy: CompletenessPolicy, now: float) -> None:
    verdict = judge(evidence, policy, now)
    if verdict.state is not WAIT:
        assert verdict.until is None
        return
    assert verdict.until is not None
    assert verdict.until > now
    assert judge(evidence, policy, float(np.nextafter(verdict.until, -1))).state is WAIT
    assert judge(evidence, policy, verdict.until).state is not WAIT


@settings(deadline=None)
@given(EVIDENCE, POLICIES, st.floats(0, 3e9), st.floats(0, 1e6))
def test_time_alone_never_undoes_a_verdict(
    evidence: ArrivalEvidence, policy: CompletenessPolicy, now: float, later_s: float
) -> None:
    verdict = judge(evidence, policy, now)
    if verdict.state is not WAIT:
        assert judge(evidence, policy, now + later_s) == verdict


@settings(deadline=None)
@given(EVIDENCE, POLICIES)
def test_nothing_is_waited_for_longer_than_the_deadline(evidence: ArrivalEvidence, policy: CompletenessPolicy) -> None:
    verdict = judge(evidence, policy, evidence.last_at + policy.deadline_s)
    assert verdict.state is not WAIT
    assert verdict.confidence in CONFIDENCE.values()
    assert verdict.reasons


@settings(deadline=None)
@given(EVIDENCE, POLICIES, SECONDS)
def test_shorter_times_never_judge_later(
    evidence: ArrivalEvidence, policy: CompletenessPolicy, tighter_s: float
) -> None:
    tightened = replace(policy, quiet_s=min(policy.quiet_s, tighter_s), deadline_s=min(policy.deadline_s, tighter_s))
    now = evidence.last_at
    loose, tight = judge(evidence, policy, now).until or now, judge(evidence, tightened, now).until or now
    assert tight <= loose


@settings(deadline=None)
@given(st.integers(3, 40), st.floats(0.1, 20), st.floats(-2000, 2000), st.data())
def test_one_missing_slice_of_an_even_stack_is_always_found(
    slices: int, step_mm: float, start_mm: float, data: st.DataObject
) -> None:
    positions = [start_mm + step_mm * index for index in range(slices + 1)]
    assert find_gaps(positions) == ()
    if slices > 3:
        del positions[data.draw(st.integers(1, slices - 1))]
        shuffled = data.draw(st.permutations(positions))
        assert [gap.missing for gap in find_gaps(shuffled)] == [1]
