"""Is a series complete? A pure function of what is known of its arrival; docs/completeness.md is the manual.

C-STORE has no "that was all" (PS3.4 B), so this weighs evidence: a known count, released associations, silence, and
slices missing between others. Every verdict gives its reasons in plain words, without PHI.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Final

from dicomnode.core.quiet import configured_quiet
from dicomnode.core.types import (
    ArrivalEvidence,
    AssociationEnd,
    Completeness,
    CompletenessPolicy,
    Expected,
    Quiet,
    Verdict,
)

POSITION_TOLERANCE: Final = 0.01
"""A slice may lie off its place by this share of the step; a step has two ends."""

SAME_POSITION_MM: Final = 0.01
"""Slices nearer than this lie at one position: phases, echoes, repeats."""

SPACING_RUN: Final = 3
"""So many equal steps in a row are a spacing of their own (a head in 2.5 mm, then 5 mm), not as many gaps."""

LOOK_AHEAD_S: Final = 1.0
"""Shorter learned times bring nothing: a series is judged so long after its last instance at the earliest."""

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
    "still arriving at the deadline": 0.5,
    "waiting": 0.0,
}
"""How sure a verdict is, by the evidence it rests on. Judgement, not measurement: good for ordering a worklist."""

LEARNED_SERIES: Final = 200
LEARNED_SHARE: Final = 0.5
"""A silence whose length was learned from so many series leaves this share less of the doubt."""

_WEAK: Final = "ImagesInAcquisition"
"""It counts acquired images, of which a series may hold a part or several sets (PS3.3 C.7.6.1): a hint."""

_WEAK_FACTOR: Final = 2.0
"""How much longer is waited where only the hint is not met."""


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
    """What the evidence amounts to, whatever the time: the state it comes to, after how much silence, and why.

    counted  whether it rests on a number that is met, which no deadline can better
    """

    state: Completeness
    silence_s: float
    confidence: float
    reasons: tuple[str, ...]
    counted: bool = False


def judge(evidence: ArrivalEvidence, policy: CompletenessPolicy, now: float) -> Verdict:
    """The verdict at `now` (seconds since the epoch). With the same evidence and a later `now` it goes from WAIT to
    COMPLETE or INCOMPLETE once, at `until`, and never back."""
    finding = _weigh(evidence, policy)
    due_at = evidence.last_at + finding.silence_s
    longest_at = (evidence.first_at if evidence.opened_at is None else evidence.opened_at) + policy.longest_s
    if due_at > longest_at and not finding.counted:
        due_at, finding = longest_at, _cut(finding, policy)
    if now >= due_at:
        return Verdict(finding.state, None, finding.reasons, finding.confidence)
    wait = f"waiting for {finding.silence_s:g} s of silence since the last instance"
    return Verdict(Completeness.WAIT, due_at, (wait, *finding.reasons), CONFIDENCE["waiting"])


def look_ahead_s(quiet_s: float) -> float:
    """How long after an instance its series is judged first. What is learned may be shorter than `quiet_s`, the
    shortest time configured; who judges too early learns from `Verdict.until` when to come again."""
    return min(quiet_s, LOOK_AHEAD_S)


def tightest(policy: CompletenessPolicy, other: CompletenessPolicy) -> CompletenessPolicy:
    """Of two policies for one series the tighter value of each kind; what late instances do is no matter of it."""
    return replace(
        policy,
        quiet_s=min(policy.quiet_s, other.quiet_s),
        released_quiet_s=min(policy.released_quiet_s, other.released_quiet_s),
        deadline_s=min(policy.deadline_s, other.deadline_s),
        quiet_min_s=min(policy.quiet_min_s, other.quiet_min_s),
        quiet_max_s=min(policy.quiet_max_s, other.quiet_max_s),
        longest_s=min(policy.longest_s, other.longest_s),
        on_deadline=policy.on_deadline.tightened(other.on_deadline),
    )


def close_now(evidence: ArrivalEvidence, policy: CompletenessPolicy, who: str) -> Verdict:
    """The verdict where a person (`who`) says that nothing more comes: what is missing is told all the same."""
    finding = _weigh(evidence, policy)
    return Verdict(finding.state, None, (f"closed by {who}", *finding.reasons), finding.confidence)


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
    told = _told(evidence)
    most = max(told, key=lambda one: one.instances, default=None)
    lacking = _lacking(evidence, told, most)
    if most is not None and most.instances == evidence.instances and not lacking:
        return _counted(evidence, policy, most)
    by_count = bool(lacking)
    if most is None or most.instances != evidence.instances:
        lacking = (*lacking, *_holes(evidence))
    if lacking:
        confidence = CONFIDENCE["incomplete by count" if by_count else "incomplete by gaps"]
        return _Finding(Completeness.INCOMPLETE, policy.deadline_s, confidence, lacking)
    return _silent(evidence, policy, told)


def _told(evidence: ArrivalEvidence) -> tuple[Expected, ...]:
    """Every number that something tells, but for mere hints."""
    own = () if evidence.expected is None else (Expected(evidence.expected_source, "", evidence.expected),)
    return tuple(one for one in (*own, *evidence.expectations) if one.source != _WEAK)


def _counted(evidence: ArrivalEvidence, policy: CompletenessPolicy, most: Expected) -> _Finding:
    reason = f"all {most.instances} expected instances are here ({_source(most)})"
    if evidence.open_associations:
        silence_s = min(policy.shortest_quiet_s, policy.deadline_s)
        confidence, reasons = CONFIDENCE["count, an association still open"], (reason, _open(evidence))
        return _Finding(Completeness.COMPLETE, silence_s, confidence, reasons, counted=True)
    return _Finding(Completeness.COMPLETE, 0.0, CONFIDENCE["count, all associations ended"], (reason,), counted=True)


def _lacking(evidence: ArrivalEvidence, told: tuple[Expected, ...], most: Expected | None) -> tuple[str, ...]:
    """What is missing by what others say, in words; empty where nothing is."""
    reasons = []
    if most is not None and most.instances > evidence.instances:
        missing = most.instances - evidence.instances
        reasons.append(f"{missing} of {most.instances} expected instances {_are(missing)} missing ({_source(most)})")
    for one in told:
        if one.missing:
            named = ", ".join(one.missing[:_NAMED_PLACES])
            more = f" and {len(one.missing) - _NAMED_PLACES} more" if len(one.missing) > _NAMED_PLACES else ""
            reasons.append(f"not here, though listed ({_source(one)}): {named}{more}")
    if reasons and len({one.instances for one in told}) > 1:
        reasons.append("the numbers differ: " + ", ".join(f"{_source(one)} {one.instances}" for one in told))
    return tuple(reasons)


def _holes(evidence: ArrivalEvidence) -> tuple[str, ...]:
    """Slices that are missing between others, in words."""
    gaps = [gap for positions in evidence.positions_mm for gap in find_gaps(positions)]
    if not gaps:
        return ()
    missing = sum(gap.missing for gap in gaps)
    places = ", ".join(map(str, gaps[:_NAMED_PLACES]))
    more = f", and in {len(gaps) - _NAMED_PLACES} more places" if len(gaps) > _NAMED_PLACES else ""
    noun = "slice" if missing == 1 else "slices"
    return (f"{missing} {noun} {_are(missing)} missing by position: {places}{more}",)


def _silent(evidence: ArrivalEvidence, policy: CompletenessPolicy, told: tuple[Expected, ...]) -> _Finding:
    """Nothing is known to be missing: silence decides, how long depends on how the associations stand."""
    quiet = evidence.quiet or configured_quiet(policy)
    basis, quiet_s, reason = _silence(evidence, quiet)
    reasons = [*_surplus(evidence, told), reason, *_resumed(evidence)]
    if evidence.moved_on and basis != "silence, none known or one broke off":
        quiet_s = min(quiet_s, quiet.moved_on_s)
        reasons.append("its sender has gone on to another series of the study")
    elif evidence.siblings_arriving:
        count = evidence.siblings_arriving
        reasons.append(f"{count} other series of the study {_are(count)} still arriving")
    factor, hints = _hint(evidence)
    learned = f"learned from {quiet.series} series of this sender"
    told_quiet = (f"its pauses are {learned}",) if quiet.series else ()
    return _Finding(
        Completeness.COMPLETE,
        min(quiet_s * factor, policy.deadline_s),
        _surer(CONFIDENCE[basis], quiet.series),
        (*reasons, *hints, *told_quiet),
    )


def _silence(evidence: ArrivalEvidence, quiet: Quiet) -> tuple[str, float, str]:
    """What a silence rests on, how much of it is enough, and why."""
    if evidence.open_associations:
        return "silence, association still open", quiet.open_s, _open(evidence)
    if not evidence.ended:
        return "silence, none known or one broke off", quiet.open_s, "no association is known"
    if any(end is not AssociationEnd.RELEASED for end in evidence.ended):
        reason = "an association broke off: the sender may try again"
        return "silence, none known or one broke off", quiet.broken_s, reason
    placed = any(len(_distinct(positions)) >= 3 for positions in evidence.positions_mm)
    by = f" by {', '.join(evidence.senders)}" if evidence.senders else ""
    reason = f"every association that carried it was released{by}"
    if placed:
        return "released, slices without gaps", quiet.released_s, f"{reason}, and no slice is missing between others"
    return "released, positions say nothing", quiet.released_s, reason


def _hint(evidence: ArrivalEvidence) -> tuple[float, tuple[str, ...]]:
    """What ImagesInAcquisition adds: how much longer is waited, and a sentence."""
    hints = [one.instances for one in evidence.expectations if one.source == _WEAK]
    if evidence.expected is not None and evidence.expected_source == _WEAK:
        hints.append(evidence.expected)
    if not hints or max(hints) < evidence.instances:
        return 1.0, ()
    if max(hints) == evidence.instances:
        return 1.0, (f"{_WEAK} is {evidence.instances}, and so many are here",)
    return _WEAK_FACTOR, (f"{_WEAK} is {max(hints)}, of which a series may hold a part: waited a little longer",)


def _surer(confidence: float, series: int) -> float:
    """The confidence where the silence was learned from so many series."""
    return confidence + (1 - confidence) * LEARNED_SHARE * min(1.0, series / LEARNED_SERIES)


def _cut(finding: _Finding, policy: CompletenessPolicy) -> _Finding:
    """What a finding becomes where its first instance came too long ago to wait for it."""
    reason = f"still arriving {policy.longest_s:g} s after its first instance"
    confidence = min(finding.confidence, CONFIDENCE["still arriving at the deadline"])
    return replace(finding, state=Completeness.INCOMPLETE, confidence=confidence, reasons=(reason, *finding.reasons))


def _surplus(evidence: ArrivalEvidence, told: tuple[Expected, ...]) -> tuple[str, ...]:
    """More than expected: then the number counted something else, and says nothing about the end."""
    return tuple(
        f"{evidence.instances} instances are here, more than the {one.instances} expected ({_source(one)}): "
        "that count is not used"
        for one in told
        if one.instances < evidence.instances
    )


def _resumed(evidence: ArrivalEvidence) -> tuple[str, ...]:
    count = evidence.resumed
    return (f"{count} association{'s' * (count > 1)} broke off, and the sender went on by another",) if count else ()


def _source(expected: Expected) -> str:
    return f"{expected.source} by {expected.peer}" if expected.peer else expected.source


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
