"""Is a series complete? A pure function of what is known of its arrival; docs/completeness.md is the manual.

C-STORE has no "that was all" (PS3.4 B), so this weighs evidence: a known count, released associations, silence, and
slices missing between others. Every verdict gives its reasons in plain words, without PHI.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final

from dicomnode.core.types import ArrivalEvidence, AssociationEnd, Completeness, CompletenessPolicy, Verdict

POSITION_TOLERANCE: Final = 0.01
"""A slice may lie off its place by this share of the step; a step has two ends."""

SAME_POSITION_MM: Final = 0.01
"""Slices nearer than this lie at one position: phases, echoes, repeats."""

SPACING_RUN: Final = 3
"""So many equal steps in a row are a spacing of their own (a head in 2.5 mm, then 5 mm), not as many gaps."""

_NAMED_PLACES: Final = 5
_MOST_MISSING: Final = 10_000
"""More in one gap is not believed: positions come from the data set, which may say 1e308."""

CONFIDENCE: Final = {
    "count, all associations ended": 1.0,
    "count, an association still open": 0.95,
    "released, slices without gaps": 0.9,
    "released, positions say nothing": 0.8,
    "silence, association still open": 0.6,
    "silence, none known or one broke off": 0.5,
    "incomplete by count": 0.95,
    "incomplete by gaps": 0.8,
    "waiting": 0.0,
}
"""How sure a verdict is, by the evidence it rests on. Judgement, not measurement: good for ordering a worklist."""


@dataclass(frozen=True)
class Gap:
    """Slices missing between two that are there, at positions along the normal in mm."""

    after_mm: float
    before_mm: float
    missing: int

    def __str__(self) -> str:
        if self.missing == 1:
            return f"1 at {(self.after_mm + self.before_mm) / 2:.2f} mm"
        return f"{self.missing} between {self.after_mm:.2f} and {self.before_mm:.2f} mm"


@dataclass(frozen=True)
class _Finding:
    """What the evidence amounts to, whatever the time: the state it comes to, after how much silence, and why."""

    state: Completeness
    silence_s: float
    confidence: float
    reasons: tuple[str, ...]


def judge(evidence: ArrivalEvidence, policy: CompletenessPolicy, now: float) -> Verdict:
    """The verdict at `now` (seconds since the epoch). With the same evidence and a later `now` it goes from WAIT to
    COMPLETE or INCOMPLETE once, at `until`, and never back."""
    finding = _weigh(evidence, policy)
    due_at = evidence.last_at + finding.silence_s
    if now >= due_at:
        return Verdict(finding.state, None, finding.reasons, finding.confidence)
    wait = f"waiting for {finding.silence_s:g} s of silence since the last instance"
    return Verdict(Completeness.WAIT, due_at, (wait, *finding.reasons), CONFIDENCE["waiting"])


def find_gaps(positions_mm: Sequence[float]) -> tuple[Gap, ...]:
    """Where slices of one orientation are missing: steps that are 2, 3, ... times the commonest step.

    positions_mm  along the normal, in any order; several slices may share one. Fewer than 3 positions say nothing

    Genuinely uneven spacing is no gap: steps that are no multiple (tilted heads with 4 and 7 mm), and a multiple that
    repeats `SPACING_RUN` times in a row.
    """
    positions = _distinct(positions_mm)
    if len(positions) < 3:
        return ()
    pairs = list(pairwise(positions))
    steps = [right - left for left, right in pairs]
    modal = _modal(steps)
    counts = [_multiple(step, modal) for step in steps]
    spacings = {1} | {count for count, run in groupby(counts) if count >= 2 and len(list(run)) >= SPACING_RUN}
    return tuple(
        Gap(left, right, count // _spacing_beside(counts, index, spacings) - 1)
        for index, ((left, right), count) in enumerate(zip(pairs, counts, strict=True))
        if count >= 2 and count not in spacings
    )


def _weigh(evidence: ArrivalEvidence, policy: CompletenessPolicy) -> _Finding:
    expected = evidence.expected
    if expected is not None and evidence.instances == expected:
        return _counted(evidence, policy)
    lacking = _lacking(evidence, [gap for positions in evidence.positions_mm for gap in find_gaps(positions)])
    if lacking:
        by_count = expected is not None and evidence.instances < expected
        confidence = CONFIDENCE["incomplete by count" if by_count else "incomplete by gaps"]
        return _Finding(Completeness.INCOMPLETE, policy.deadline_s, confidence, lacking)
    return _silent(evidence, policy)


def _counted(evidence: ArrivalEvidence, policy: CompletenessPolicy) -> _Finding:
    reason = f"all {evidence.expected} expected instances are here ({evidence.expected_source})"
    if evidence.open_associations:
        silence_s = min(policy.released_quiet_s, policy.quiet_s, policy.deadline_s)
        return _Finding(
            Completeness.COMPLETE, silence_s, CONFIDENCE["count, an association still open"], (reason, _open(evidence))
        )
    return _Finding(Completeness.COMPLETE, 0.0, CONFIDENCE["count, all associations ended"], (reason,))


def _lacking(evidence: ArrivalEvidence, gaps: list[Gap]) -> tuple[str, ...]:
    """What is known to be missing, in words; empty where nothing is."""
    reasons = []
    if evidence.expected is not None and evidence.instances < evidence.expected:
        missing = evidence.expected - evidence.instances
        reasons.append(
            f"{missing} of {evidence.expected} expected instances {_are(missing)} missing ({evidence.expected_source})"
        )
    if gaps:
        missing = sum(gap.missing for gap in gaps)
        places = ", ".join(map(str, gaps[:_NAMED_PLACES]))
        more = f", and in {len(gaps) - _NAMED_PLACES} more places" if len(gaps) > _NAMED_PLACES else ""
        noun = "slice" if missing == 1 else "slices"
        reasons.append(f"{missing} {noun} {_are(missing)} missing by position: {places}{more}")
    return tuple(reasons)


def _silent(evidence: ArrivalEvidence, policy: CompletenessPolicy) -> _Finding:
    """Nothing is known to be missing: silence decides, how long depends on how the associations stand."""
    if evidence.open_associations:
        basis, quiet_s, reason = "silence, association still open", policy.quiet_s, _open(evidence)
    elif not evidence.ended:
        basis, quiet_s, reason = "silence, none known or one broke off", policy.quiet_s, "no association is known"
    elif any(end is not AssociationEnd.RELEASED for end in evidence.ended):
        reason = "an association broke off: the sender may try again"
        basis, quiet_s = "silence, none known or one broke off", policy.quiet_s
    else:
        placed = any(len(_distinct(positions)) >= 3 for positions in evidence.positions_mm)
        basis = "released, slices without gaps" if placed else "released, positions say nothing"
        reason = "every association that carried it was released" + ", and no slice is missing between others" * placed
        quiet_s = min(policy.released_quiet_s, policy.quiet_s)
    reasons = (*_surplus(evidence), reason)
    return _Finding(Completeness.COMPLETE, min(quiet_s, policy.deadline_s), CONFIDENCE[basis], reasons)


def _surplus(evidence: ArrivalEvidence) -> tuple[str, ...]:
    """More than expected: then the number counted something else, and says nothing about the end."""
    if evidence.expected is None or evidence.instances <= evidence.expected:
        return ()
    return (
        f"{evidence.instances} instances are here, more than the {evidence.expected} expected "
        f"({evidence.expected_source}): that count is not used",
    )


def _open(evidence: ArrivalEvidence) -> str:
    count = evidence.open_associations
    return f"{count} association{'s' if count > 1 else ''} that carried it {_are(count)} still open"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _distinct(positions_mm: Sequence[float]) -> list[float]:
    distinct: list[float] = []
    for position in sorted(positions_mm):
        if not distinct or position - distinct[-1] > SAME_POSITION_MM:
            distinct.append(position)
    return distinct


def _modal(steps: list[float]) -> float:
    """The commonest step; of equally common ones the smallest."""
    classes: list[list[float]] = []
    for step in sorted(steps):
        if classes and step <= classes[-1][0] * (1 + 2 * POSITION_TOLERANCE):
            classes[-1].append(step)
        else:
            classes.append([step])
    commonest = max(classes, key=len)
    return commonest[len(commonest) // 2]


def _spacing_beside(counts: list[int], index: int, spacings: set[int]) -> int:
    """The spacing, in modal steps, that the gap at `index` interrupts: the larger neighbour that divides it."""
    beside = {*counts[max(0, index - 1) : index], *counts[index + 1 : index + 2]} & spacings
    return max((spacing for spacing in beside if counts[index] % spacing == 0), default=1)


def _multiple(step: float, modal: float) -> int:
    """How many times `modal` goes into the step; 0 where it is no whole number of times."""
    ratio = step / modal
    if not ratio < _MOST_MISSING:
        return 0
    times = round(ratio)
    return times if abs(step - times * modal) <= 2 * POSITION_TOLERANCE * modal else 0
