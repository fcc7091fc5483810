"""When a series is complete, as a table: the same that docs/completeness.md tells."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.completeness import CONFIDENCE, LOOK_AHEAD_S, close_now, find_gaps, judge, look_ahead_s
from dicomnode.core.types import (
    ArrivalEvidence,
    AssociationEnd,
    Completeness,
    CompletenessPolicy,
    Expected,
    Quiet,
)
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


def _by(source: str, instances: int, *missing: str) -> Expected:
    return Expected(source, "pacs", instances, missing)


LEARNED = Quiet(open_s=9.0, released_s=1.5, broken_s=30.0, moved_on_s=1.0, series=1000)

WIDER_CASES = [
    # case, evidence, verdict after so many seconds of silence
    ("the count of a C-FIND is met",
     {"expectations": (_by("C-FIND", 4),), "ended": (RELEASED,)}, {0: COMPLETE}),
    ("one number is met, a larger one is not: it is waited for, and then told",
     {"expectations": (_by("MPPS", 4), _by("C-FIND", 6)), "ended": (RELEASED,)}, {0: WAIT, 599: WAIT, 600: INCOMPLETE}),
    ("an older, smaller number beside one that is met",
     {"expectations": (_by("C-FIND", 2), _by("IAN", 4)), "ended": (RELEASED,)}, {0: COMPLETE}),
    ("the number is met, but by others than those that are listed",
     {"expectations": (_by("IAN", 4, "1.2.9"),), "ended": (RELEASED,)}, {0: WAIT, 600: INCOMPLETE}),
    ("what was acquired and what is listed contradict: the deadline ends it",
     {"expected": 3, "expectations": (_by("IAN", 4, "1.2.9"),)}, {599: WAIT, 600: INCOMPLETE}),
    ("ImagesInAcquisition is larger: a little longer",
     {"expected": 9, "expected_source": "ImagesInAcquisition", "ended": (RELEASED,)}, {5: WAIT, 10: COMPLETE}),
    ("ImagesInAcquisition is met: no sooner",
     {"expected": 4, "expected_source": "ImagesInAcquisition", "ended": (RELEASED,)}, {4.9: WAIT, 5: COMPLETE}),
    ("ImagesInAcquisition is smaller: nothing",
     {"expected": 2, "expected_source": "ImagesInAcquisition", "ended": (RELEASED,)}, {4.9: WAIT, 5: COMPLETE}),
    ("learned: an association is open",
     {"quiet": LEARNED, "open_associations": 1}, {8.9: WAIT, 9: COMPLETE}),
    ("learned: released", {"quiet": LEARNED, "ended": (RELEASED,)}, {1.4: WAIT, 1.5: COMPLETE}),
    ("learned: broken off", {"quiet": LEARNED, "ended": (ABORTED,)}, {29: WAIT, 30: COMPLETE}),
    ("learned: gone on to another series",
     {"quiet": LEARNED, "open_associations": 1, "moved_on": True}, {0.9: WAIT, 1: COMPLETE}),
    ("learned: broken off, then another series: the sender may yet try this one again",
     {"quiet": LEARNED, "ended": (LOST,), "moved_on": True}, {29: WAIT, 30: COMPLETE}),
    ("one broke off and was resumed", {"ended": (RELEASED,), "resumed": 1}, {4.9: WAIT, 5: COMPLETE}),
    ("it has been arriving for too long",
     {"opened_at": -12_000.0, "open_associations": 1}, {10: WAIT, 1390: INCOMPLETE}),
    ("it has been arriving for too long, but all are here",
     {"opened_at": -20_000.0, "expectations": (_by("C-FIND", 4),), "ended": (RELEASED,)}, {0: COMPLETE}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("known", "verdicts"), [case[1:] for case in WIDER_CASES], ids=[case[0] for case in WIDER_CASES]
)
def test_wider_evidence_is_judged_so(known: dict[str, object], verdicts: dict[float, Completeness]) -> None:
    evidence = _evidence(**known)
    policy = replace(POLICY, quiet_s=2000, deadline_s=2000) if "opened_at" in known else POLICY
    judged = {silence_s: judge(evidence, policy, evidence.last_at + silence_s).state for silence_s in verdicts}
    assert judged == verdicts


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"expectations": (_by("C-FIND", 6),)}, "2 of 6 expected instances are missing (C-FIND by pacs)"),
        ({"expectations": (_by("MPPS", 4), _by("C-FIND", 6))}, "the numbers differ: MPPS by pacs 4, C-FIND by pacs 6"),
        (
            {"expectations": (_by("IAN", 6, *(f"1.2.{number}" for number in range(7))),)},
            "not here, though listed (IAN by pacs): 1.2.0, 1.2.1, 1.2.2, 1.2.3, 1.2.4 and 2 more",
        ),
        ({"senders": ("CT1",), "ended": (RELEASED,)}, "every association that carried it was released by CT1"),
        ({"ended": (RELEASED,), "resumed": 1}, "1 association broke off, and the sender went on by another"),
        ({"ended": (RELEASED,), "moved_on": True}, "its sender has gone on to another series of the study"),
        ({"ended": (RELEASED,), "siblings_arriving": 2}, "2 other series of the study are still arriving"),
        ({"ended": (RELEASED,), "quiet": LEARNED}, "its pauses are learned from 1000 series of this sender"),
        ({"opened_at": -1e6}, "still arriving 14400 s after its first instance"),
    ],
)
def test_reasons_tell_the_wider_evidence(known: dict[str, object], reason: str) -> None:
    evidence = _evidence(**known)
    assert reason in judge(evidence, POLICY, evidence.last_at + 600).reasons


def test_what_is_learned_makes_surer() -> None:
    silent = _evidence(open_associations=1)
    learned = [replace(LEARNED, series=series) for series in (0, 20, 200, 2000)]
    sure = [judge(replace(silent, quiet=quiet), POLICY, 1e9).confidence for quiet in learned]
    assert sure == [CONFIDENCE["silence, association still open"], pytest.approx(0.62), 0.8, 0.8]


def test_a_person_closes_at_once_and_what_is_missing_is_told_all_the_same() -> None:
    whole, holed = _evidence(open_associations=1), _evidence(positions_mm=HOLED)
    assert close_now(whole, POLICY, "operator").state is COMPLETE
    verdict = close_now(holed, POLICY, "operator")
    assert (verdict.state, verdict.until) == (INCOMPLETE, None)
    assert verdict.reasons == ("closed by operator", "1 slice is missing by position: 1 at 10.00 mm")


@pytest.mark.parametrize(("quiet_s", "first_s"), [(60.0, LOOK_AHEAD_S), (5.0, LOOK_AHEAD_S), (0.3, 0.3), (0.0, 0.0)])
def test_a_series_is_first_judged_soon(quiet_s: float, first_s: float) -> None:
    assert look_ahead_s(quiet_s) == first_s


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
EXPECTED = st.builds(
    Expected,
    source=st.sampled_from(["C-FIND", "C-MOVE", "MPPS", "IAN", "ImagesInAcquisition"]),
    peer=st.sampled_from(["", "pacs"]),
    instances=st.integers(0, 20),
    missing=st.lists(st.sampled_from(["1.2.1", "1.2.2"]), max_size=2).map(tuple),
)
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
    opened_at=st.none() | st.floats(0, 2e9),
    expectations=st.lists(EXPECTED, max_size=3).map(tuple),
    resumed=st.integers(0, 2),
    senders=st.sampled_from([(), ("CT1",), ("CT1", "CT2")]),
    moved_on=st.booleans(),
    siblings_arriving=st.integers(0, 2),
    quiet=st.none() | st.builds(Quiet, SECONDS, SECONDS, SECONDS, SECONDS, st.integers(0, 3000)),
)
POLICIES = st.builds(
    CompletenessPolicy, quiet_s=SECONDS, released_quiet_s=SECONDS, deadline_s=SECONDS, longest_s=SECONDS
)


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
    assert 0 < verdict.confidence <= 1
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
