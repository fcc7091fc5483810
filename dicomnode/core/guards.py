"""The safety gates before and after an engine: pure judgements with the figures they rest on.

Before: is the input what the engine's card says it was made for? An attribute that the object does not have refuses
only where the card restricts it: what cannot be known cannot be within the envelope. After: is the output on the same
grid, whole, and within the card's limits? A presentation output has no HU to check.

Sentences are for people and for `why`; they quote the card and measured numbers, never text from a data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dicomnode.core.headers import number
from dicomnode.core.types import Header
from engines import quality
from engines.card import EngineCard, Port
from engines.quality import QualityReport
from engines.volume import HU, PRESENTATION_MAXIMUM, Volume

Bound = float | tuple[float, float] | tuple[str, ...] | None

_LEAST_NOISE: Final = 0.5  # HU: below this, rounding to whole numbers is all there is, and a ratio says nothing


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


def before(card: EngineCard, header: Header, volume: Volume) -> GateReport:
    """Whether `volume`, with the attributes `header` of its first slice, lies within the card's envelope."""
    return GateReport((*_attributes(card, header), *_grid(card, volume), *_values(card.inputs["image"], volume)))


def after(card: EngineCard, source: Volume, output: Volume) -> GateReport:
    """Whether what the engine made of `source` may leave. What is measured needs the same grid and finite values."""
    port = card.outputs["image"]
    findings = tuple(_form(port, source, output))
    if not all(finding.passed for finding in findings) or port.presentation:
        return GateReport(findings)
    figures = quality.measure(source, output)
    return GateReport((*findings, *_measured(card, source.unit, figures)), figures)


def _attributes(card: EngineCard, header: Header) -> Iterator[GateFinding]:
    envelope = card.envelope
    if envelope.modalities:
        yield _among("modality", "Modality", header, envelope.modalities)
    if envelope.body_parts:
        yield _among("body part", "BodyPartExamined", header, envelope.body_parts)
    if envelope.kvp:
        yield _within("tube voltage", "kV", number(header, "KVP"), envelope.kvp)
    if envelope.slice_thickness_mm:
        yield _within("slice thickness", "mm", number(header, "SliceThickness"), envelope.slice_thickness_mm)


def _grid(card: EngineCard, volume: Volume) -> Iterator[GateFinding]:
    envelope = card.envelope
    count, rows, columns = volume.shape
    if envelope.pixel_spacing_mm:
        for name, spacing in zip(("row spacing", "column spacing"), volume.pixel_spacing_mm, strict=True):
            yield _within(name, "mm", spacing, envelope.pixel_spacing_mm)
    low, high = (float(value) for value in envelope.rows_columns)
    yield _within("rows", "", float(rows), (low, high))
    yield _within("columns", "", float(columns), (low, high))
    enough = count >= envelope.minimum_slices
    sentence = f"{count} slices, at least {envelope.minimum_slices} wanted"
    yield GateFinding("slices", float(count), float(envelope.minimum_slices), enough, sentence)


def _values(port: Port, volume: Volume) -> Iterator[GateFinding]:
    fits = port.unit in ("as-input", volume.unit)
    sentence = f"values are in {_named(volume.unit)}" + ("" if fits else f", {_named(port.unit)} is wanted")
    yield GateFinding("unit", volume.unit, (port.unit,), fits, sentence)
    yield _finite(volume)
    low, high = quality.measured_range(volume)
    sentence = "values vary" if high > low else "every measured value is the same, or none is measured"
    yield GateFinding("variation", high - low if np.isfinite(high - low) else None, None, high > low, sentence)


def _form(port: Port, source: Volume, output: Volume) -> Iterator[GateFinding]:
    same = output.shape == source.shape and bool(np.array_equal(output.affine, source.affine))
    yield GateFinding("grid", None, None, same, "the grid is the source's" if same else "the grid has changed")
    wanted = source.unit if port.unit == "as-input" else port.unit
    fits = output.unit == wanted
    sentence = f"values are in {_named(output.unit)}" + ("" if fits else f", {_named(wanted)} was declared")
    yield GateFinding("unit", output.unit, (wanted,), fits, sentence)
    yield _finite(output)
    low, high = quality.measured_range(output)
    yield GateFinding("variation", None, None, high > low, "values vary" if high > low else "the output is empty")
    if port.presentation:
        yield _within("darkest value", "", low, (0.0, PRESENTATION_MAXIMUM))
        yield _within("brightest value", "", high, (0.0, PRESENTATION_MAXIMUM))
    elif same and source.valid is not None:
        kept = bool(np.array_equal(output.voxels[~source.valid], source.voxels[~source.valid], equal_nan=True))
        yield GateFinding("padding", None, None, kept, f"padding is {'as it was' if kept else 'altered'}")


def _measured(card: EngineCard, unit: str, figures: QualityReport) -> Iterator[GateFinding]:
    limits = card.limits
    if limits.bias_hu is not None:
        for tissue, bias in figures.bias_hu.items():
            passed = abs(bias) <= limits.bias_hu
            sentence = f"{tissue} changes by {bias:+.2f} HU on the mean, at most {limits.bias_hu:g} is allowed"
            yield GateFinding(f"bias: {tissue}", bias, limits.bias_hu, passed, sentence)
    if limits.noise_ratio is not None:
        yield _noise_ratio(limits.noise_ratio, unit, figures)
    if limits.clipped_fraction is not None:
        share, most = figures.clipped_fraction, limits.clipped_fraction
        sentence = f"{share:.4%} of the voxels are newly at an end of the range, at most {most:.4%} is allowed"
        yield GateFinding("clipping", share, most, share <= most, sentence)


def _noise_ratio(bound: tuple[float, float], unit: str, figures: QualityReport) -> GateFinding:
    old, new = figures.noise_before, figures.noise_after
    least = _LEAST_NOISE if unit == HU else 0.0
    if old is None or new is None or old <= least:
        return GateFinding("noise", None, bound, True, "no noise to compare: no flat tissue, or none that is noisy")
    low, high = bound
    shown = f" {unit}" if unit == HU else ""
    sentence = f"noise goes from {old:.1f} to {new:.1f}{shown}, a ratio of {low:g} to {high:g} is allowed"
    return GateFinding("noise", new / old, bound, low <= new / old <= high, sentence)


def _finite(volume: Volume) -> GateFinding:
    passed = all(bool(np.isfinite(pixels).all()) for pixels in volume.voxels)
    sentence = "every value is a finite number" if passed else "some values are not finite numbers"
    return GateFinding("finite", None, None, passed, sentence)


def _among(name: str, keyword: str, header: Header, allowed: tuple[str, ...]) -> GateFinding:
    """Any-of, without case. The value found is not quoted: it is text from a data set."""
    values = {value.strip().upper() for value in header.get(keyword, ())}
    match = sorted(values & {value.upper() for value in allowed})
    if match:
        return GateFinding(name, match[0], allowed, True, f"the {name} is {match[0]}")
    what = "another" if values else "not stated"
    return GateFinding(name, None, allowed, False, f"the {name} is {what}, wanted is {' or '.join(allowed)}")


def _within(name: str, unit: str, figure: float | None, bound: tuple[float, float]) -> GateFinding:
    low, high = bound
    wanted = f"{low:g} to {high:g} {unit}".strip()
    if figure is None:
        return GateFinding(name, None, bound, False, f"the {name} is not stated, wanted is {wanted}")
    passed = low <= figure <= high
    return GateFinding(name, figure, bound, passed, f"{name} {figure:g} {unit}".strip() + f", wanted is {wanted}")


def _named(unit: str) -> str:
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
