"""What a gate found: one finding for each thing that it checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engines.quality import QualityReport
from engines.volume import HU

Bound = float | tuple[float, float] | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class GateFinding:
    """One thing that was checked: what was found, what is allowed, and the sentence for people."""

    name: str
    figure: float | str | None
    bound: Bound
    passed: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """All findings of one gate; `quality` is what the gate after an engine measured, where it could."""

    findings: tuple[GateFinding, ...]
    quality: QualityReport | None = None

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    @property
    def is_reviewable(self) -> bool:
        """Whether a person may let the output go all the same: only figures are out of bounds. What has another grid or
        values that are no numbers is measured not at all, and nobody can judge it."""
        return self.quality is not None

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of what did not pass."""
        return tuple(finding.sentence for finding in self.findings if not finding.passed)

    def as_json(self) -> dict[str, Any]:
        """`passed` and the findings as JSON values."""
        return {"passed": self.passed, "findings": [_finding_json(finding) for finding in self.findings]}


def within(name: str, unit: str, figure: float | None, bound: tuple[float, float]) -> GateFinding:
    """Whether a number lies in a range, both ends included; one that is not known does not."""
    low, high = bound
    wanted = f"{low:g} to {high:g} {unit}".strip()
    if figure is None:
        return GateFinding(name, None, bound, False, f"the {name} is not stated, wanted is {wanted}")
    passed = low <= figure <= high
    return GateFinding(name, figure, bound, passed, f"{name} {figure:g} {unit}".strip() + f", wanted is {wanted}")


def named(unit: str) -> str:
    """A unit in words."""
    return HU if unit == HU else "arbitrary units"


def _finding_json(finding: GateFinding) -> dict[str, Any]:
    bound = list(finding.bound) if isinstance(finding.bound, tuple) else finding.bound
    figure = round(finding.figure, 6) if isinstance(finding.figure, float) else finding.figure
    return {
        "name": finding.name,
        "figure": figure,
        "bound": bound,
        "passed": finding.passed,
        "sentence": finding.sentence,
    }
