"""Findings: what a detector says about a volume."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One box on one slice. Box: (left, top, right, bottom) in pixels of the volume's grid; score 0...1."""

    slice_index: int
    box: tuple[float, float, float, float]
    label: str
    score: float


@dataclass(frozen=True)
class Findings:
    """All findings of one run, in no particular order; empty means that the detector ran and found nothing."""

    items: tuple[Finding, ...]
