"""The gate before an engine: the card's envelope against the stack."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

import numpy as np

from dicomnode.core.guards.findings import GateFinding, GateReport, within
from dicomnode.core.guards.values import judge_values
from dicomnode.core.headers import number
from dicomnode.core.rules.facts import GUARD_KEYWORDS, is_derived_by_us
from dicomnode.core.types import Header
from dicomnode.core.volumes import PADDING_KEYWORDS
from engines.card import EngineCard, Envelope
from engines.volume import Volume

HEADER_KEYWORDS: Final = GUARD_KEYWORDS | {
    "Modality", "BodyPartExamined", "KVP", "SliceThickness", "ConvolutionKernel", "ContrastBolusAgent",
    "FrameOfReferenceUID", *PADDING_KEYWORDS,
}  # fmt: skip
"""What the gates before an engine read of a header."""

_SPACING_MM: Final = (0.01, 50.0)
_RIGHT_ANGLE: Final = 0.01
"""Largest cosine between rows and columns; half a degree."""

_FLATTEST: Final = 0.1
"""Least cosine between the step from slice to slice and their normal: a gantry tilts by 30 degrees, never by 84."""


def before(card: EngineCard, header: Header, volume: Volume, name: str = "image") -> GateReport:
    """Whether `volume`, with the attributes `header` (HEADER_KEYWORDS) of its first slice, lies within the card's
    envelope as the input `name`."""
    return GateReport(
        (
            *_attributes(card.envelope, header),
            _source(header),
            *_geometry(volume),
            *_grid(card.envelope, volume),
            *judge_values(card.inputs[name], header, volume),
        )
    )


def _attributes(envelope: Envelope, header: Header) -> Iterator[GateFinding]:
    if envelope.modalities:
        yield _among("modality", "Modality", header, envelope.modalities)
    if envelope.body_parts:
        yield _among("body part", "BodyPartExamined", header, envelope.body_parts)
    if envelope.kvp:
        yield within("tube voltage", "kV", number(header, "KVP"), envelope.kvp)
    if envelope.slice_thickness_mm:
        yield within("slice thickness", "mm", number(header, "SliceThickness"), envelope.slice_thickness_mm)
    if envelope.kernels:
        yield _among("kernel", "ConvolutionKernel", header, envelope.kernels)
    if envelope.contrast_agent != "any":
        yield _contrast_agent(envelope, header)


def _contrast_agent(envelope: Envelope, header: Header) -> GateFinding:
    """Contrast/Bolus Agent (0018,0010): present, with whatever text, where an agent was used (PS3.3 C.7.6.4)."""
    found = "with" if any(text.strip() for text in header.get("ContrastBolusAgent", ())) else "without"
    wanted = envelope.contrast_agent
    sentence = f"the images are {found} contrast agent, wanted is {wanted}"
    return GateFinding("contrast agent", found, (wanted,), found == wanted, sentence)


def _source(header: Header) -> GateFinding:
    """What this node made is never the input of an engine again: each would build on what the other invented."""
    ours = is_derived_by_us(header)
    sentence = "the images were derived by this software" if ours else "the images were not derived by this software"
    return GateFinding("source", None, None, not ours, sentence)


def _geometry(volume: Volume) -> Iterator[GateFinding]:
    """A grid that a scanner can have: finite, with steps of sane length that span a space."""
    steps = volume.affine[:3, :3]
    if not np.isfinite(volume.affine).all():
        yield GateFinding("geometry", None, None, False, "position, orientation or spacing are no finite numbers")
        return
    across, down, along = (float(np.linalg.norm(steps[:, axis])) for axis in range(3))
    low, high = _SPACING_MM
    lengths = ", ".join(f"{length:g}" for length in (across, down, along))
    sane = all(low <= length <= high for length in (across, down, along))
    sentence = f"voxels are {lengths} mm apart, {low:g} to {high:g} is wanted"
    yield GateFinding("spacing", min(across, down, along), _SPACING_MM, sane, sentence)
    if sane:
        yield _axes(steps / [across, down, along])


def _axes(directions: np.ndarray) -> GateFinding:
    skew = abs(float(directions[:, 0] @ directions[:, 1]))
    normal = abs(float(np.cross(directions[:, 0], directions[:, 1]) @ directions[:, 2]))
    passed = skew <= _RIGHT_ANGLE and normal >= _FLATTEST
    said = "span a space" if passed else "are not at right angles, or lie in one plane"
    return GateFinding("axes", skew, _RIGHT_ANGLE, passed, f"rows, columns and slices {said}")


def _grid(envelope: Envelope, volume: Volume) -> Iterator[GateFinding]:
    count, rows, columns = volume.shape
    if envelope.pixel_spacing_mm:
        for name, spacing in zip(("row spacing", "column spacing"), volume.pixel_spacing_mm, strict=True):
            yield within(name, "mm", spacing, envelope.pixel_spacing_mm)
    low, high = (float(value) for value in envelope.rows_columns)
    yield within("rows", "", float(rows), (low, high))
    yield within("columns", "", float(columns), (low, high))
    enough = count >= envelope.minimum_slices
    sentence = f"{count} slices, at least {envelope.minimum_slices} wanted"
    yield GateFinding("slices", float(count), float(envelope.minimum_slices), enough, sentence)


def _among(name: str, keyword: str, header: Header, allowed: tuple[str, ...]) -> GateFinding:
    """Any-of, with `*` and `?`, without case. The value found is not quoted: it is text from a data set."""
    values = [value.strip().upper() for value in header.get(keyword, ())]
    match = sorted(each for each in allowed if any(fnmatchcase(value, each.upper()) for value in values))
    if match:
        return GateFinding(name, match[0], allowed, True, f"the {name} is {match[0]}")
    what = "another" if any(values) else "not stated"
    return GateFinding(name, None, allowed, False, f"the {name} is {what}, wanted is {' or '.join(allowed)}")
