"""Splits a series into stacks: slices of one orientation, matrix, spacing and acquisition.

Two questions are asked of a slice, in this order.

1. *What is it?* Orientation, matrix, spacing, image type, echo, temporal position, b-value: answered from the slice
   alone, so its answer, the stack's key, is the same whichever other slices have arrived.
2. *Does it share its place with another?* Several phases of one region are acquired at the same positions. Only then
   are acquisition number, times and the like looked at: many scanners number every slice or rotation of one
   acquisition, so that splitting by them always would leave stacks of one slice. The first of the repeats keeps the
   plain key: a phase that arrives late does not rename what was there.

Sorted by position along the normal (PS3.3 C.7.6.2.1.1), never by Instance Number or Slice Location.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Final

from dicomnode.core.headers import finite, number, numbers, value
from dicomnode.core.types import Header, Slice, Stack

Orientation = tuple[float, float, float, float, float, float]
_Phase = tuple[str, list[Slice]]
"""What is added to the key, and the slices."""

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.4"
CR_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.1"
DX_IMAGE_FOR_PRESENTATION: Final = "1.2.840.10008.5.1.4.1.1.1.1"

ENHANCEABLE: Final = frozenset({CT_IMAGE, MR_IMAGE, CR_IMAGE, DX_IMAGE_FOR_PRESENTATION})
"""SOP classes that engines take. Everything else is stored and forwarded."""

_CROSS_SECTIONAL: Final = frozenset({CT_IMAGE, MR_IMAGE})
"""Their position and orientation are type 1 (C.7.6.2); a projection has none and is a stack of its own."""

_WORDS: Final = (
    "Modality", "ImageType", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns",
    "PixelSpacing", "ImagerPixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
)  # fmt: skip

_ALWAYS: Final = ("EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue", "DiffusionGradientOrientation")
"""Each value of these is a stack of its own."""

_WHERE_PLACES_COLLIDE: Final = (
    "ImageType", "ConvolutionKernel", "SliceThickness", "KVP", "EchoTime", "InversionTime", "FlipAngle",
    "AcquisitionNumber", "NominalPercentageOfCardiacPhase", "TriggerTime", "AcquisitionDateTime", "AcquisitionTime",
    "FrameOfReferenceUID", "ContentTime", "InstanceNumber",
)  # fmt: skip
"""Looked at, in this order, only where slices share a position; the first that tells the phases apart is used."""

_REGIONS: Final = ("AcquisitionNumber", "FrameOfReferenceUID")
"""Looked at where no two slices share a position, but several acquisitions are interleaved out of step."""

_OF_ENVELOPES: Final = ("BodyPartExamined", "KVP", "SliceThickness", "ContrastBolusAgent")

STACK_KEYWORDS: Final = frozenset({*_WORDS, *_ALWAYS, *_WHERE_PLACES_COLLIDE, *_OF_ENVELOPES})
"""What `slice_of` and `split_stacks` read of a header, and what the cards of engines hold a stack to."""

SAME_PLACE_MM: Final = 0.01
SAME_DIRECTION: Final = 0.002
"""Largest difference of a direction cosine within a stack (0.1 degrees): some scanners write jitter."""
REGULAR: Final = 0.01
"""Steps that differ by less than this share are equal."""

_NOT_DIAGNOSTIC: Final = {
    "LOCALIZER": "localizer",
    "SCOUT": "localizer",
    "TOPOGRAM": "localizer",
    "MOSAIC": "mosaic: several slices tiled in one image",
    "SCREEN SAVE": "screen capture",
}


def slice_of(instance_id: int, sop_instance_uid: str, sop_class_uid: str, header: Header) -> Slice:
    """One instance as stacks see it; whatever its header does not say properly is None or 0."""
    position = numbers(header, "ImagePositionPatient", 3)
    spacing = numbers(header, "PixelSpacing", 2) or numbers(header, "ImagerPixelSpacing", 2)
    return Slice(
        instance_id=instance_id,
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
        header=header,
        rows=int(number(header, "Rows") or 0),
        columns=int(number(header, "Columns") or 0),
        position_mm=None if position is None else (position[0], position[1], position[2]),
        orientation=_orientation(header),
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing is not None and min(spacing) > 0 else None,
    )


def split_stacks(slices: Sequence[Slice]) -> tuple[Stack, ...]:
    """The stacks of one series, by key. Every slice is in exactly one; the order of `slices` does not matter."""
    ordered = sorted(slices, key=_by_identity)
    directions = _directions(placed.orientation for placed in ordered if placed.orientation is not None)
    groups: dict[tuple[str, str], list[Slice]] = defaultdict(list)
    for placed in ordered:
        excluded = exclusion(placed)
        groups[_key(placed, excluded, directions), excluded].append(placed)
    stacks = [
        _stack(key + label, members, excluded)
        for (key, excluded), group in groups.items()
        for label, members in ([("", group)] if excluded else _separated(group))
    ]
    return tuple(sorted(stacks, key=lambda stack: stack.key))


def exclusion(placed: Slice) -> str:
    """Why this image is never enhanced, in plain words; "" where it may be."""
    header = placed.header
    if placed.sop_class_uid not in ENHANCEABLE:
        return "not a CT, MR, CR or DX (for presentation) image"
    if not placed.rows or not placed.columns:
        return "no pixel data"
    if (number(header, "NumberOfFrames") or 1) > 1:
        return "multi-frame"
    if (number(header, "SamplesPerPixel") or 1) > 1 or not _is_grayscale(header):
        return "colour"
    for word in header.get("ImageType", ()):
        if reason := _NOT_DIAGNOSTIC.get(word.upper()):
            return reason
    if placed.sop_class_uid in _CROSS_SECTIONAL:
        if placed.position_mm is None or placed.orientation is None:
            return "no usable position or orientation"
        if placed.pixel_spacing_mm is None:
            return "no usable pixel spacing"
    return ""


def along_normal_mm(placed: Slice) -> float:
    """Position along the normal of the slice's plane; 0 where it has none."""
    if placed.position_mm is None or placed.orientation is None:
        return 0.0
    (a, b, c), (d, e, f) = placed.orientation[:3], placed.orientation[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    return math.fsum(p * n for p, n in zip(placed.position_mm, normal, strict=True))


def _is_grayscale(header: Header) -> bool:
    return value(header, "PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2", "")


def _orientation(header: Header) -> Orientation | None:
    """Row and column cosines, where they are two perpendicular unit vectors (C.7.6.2.1.1)."""
    found = numbers(header, "ImageOrientationPatient", 6)
    if found is None:
        return None
    row, column = found[:3], found[3:]
    if abs(math.hypot(*row) - 1) > 0.01 or abs(math.hypot(*column) - 1) > 0.01:
        return None
    if abs(math.fsum(a * b for a, b in zip(row, column, strict=True))) > 0.01:
        return None
    return found[0], found[1], found[2], found[3], found[4], found[5]


def _by_identity(placed: Slice) -> tuple[str, int]:
    return placed.sop_instance_uid, placed.instance_id


def _directions(orientations: Iterable[Orientation]) -> dict[Orientation, str]:
    """Text of each orientation, the same for those that differ by no more than jitter."""
    texts: dict[Orientation, str] = {}
    leaders: list[Orientation] = []
    for orientation in sorted(set(orientations)):
        leader = next((one for one in leaders if _close(one, orientation)), None)
        if leader is None:
            leaders.append(orientation)
        texts[orientation] = "/".join(_rounded(cosine, 3) for cosine in leader or orientation)
    return texts


def _close(first: Orientation, second: Orientation) -> bool:
    return max(abs(a - b) for a, b in zip(first, second, strict=True)) <= SAME_DIRECTION


def _rounded(length: float, digits: int) -> str:
    return f"{round(length, digits) + 0.0:.{digits}f}".rstrip("0").rstrip(".")  # -0 is 0


def _key(placed: Slice, excluded: str, directions: Mapping[Orientation, str]) -> str:
    header = placed.header
    kind = (value(header, "ImageType"), value(header, "ImageType", 2))
    parts = [
        f"class={placed.sop_class_uid}",
        f"type={'/'.join(kind)}",
        f"matrix={placed.rows}x{placed.columns}",
        "spacing=" + "/".join(_rounded(length, 4) for length in placed.pixel_spacing_mm or ()),
        "orientation=" + ("" if placed.orientation is None else directions[placed.orientation]),
        *(f"{word}={'/'.join(_plain(text) for text in header[word])}" for word in _ALWAYS if word in header),
    ]
    if placed.sop_class_uid not in _CROSS_SECTIONAL and not excluded:
        parts.append(f"image={placed.sop_instance_uid}")
    if excluded:
        parts.append(f"excluded={excluded}")
    return " ".join(parts)


def _plain(text: str) -> str:
    """A number by its value, so that 1 and 1.0 are one; other text as it is."""
    parsed = finite(text)
    return text if parsed is None else _rounded(parsed, 4)


def _separated(group: list[Slice]) -> list[_Phase]:
    """The group as it is, or its phases; the first has no label."""
    places = _places(group)
    most = max(Counter(places.values()).values())
    if most > 1:
        by_word = (_phases(_by_value(group, word), places, most, word) for word in _WHERE_PLACES_COLLIDE)
        phases = next(filter(None, by_word), None) or _by_rank(group, places)
        return [("", phases[0][1]), *phases[1:]]
    for word in _REGIONS:
        parts = _by_value(group, word)
        if len(parts) > 1 and not _is_regular(group) and _interleaved(parts):
            return [("", parts[0]), *((_label(word, part), part) for part in parts[1:])]
    return [("", group)]


def _phases(parts: Sequence[list[Slice]], places: Mapping[int, int], most: int, word: str) -> list[_Phase] | None:
    """The phases that `word` tells apart; None where it does not, or would scatter them.

    `parts`, by its values, are gone through in ascending order, and a phase ends where the next part comes back to a
    place that the phase has been at: so a scanner may give every slice or rotation a number or time of its own.
    """
    phases: list[list[list[Slice]]] = []
    seen: set[int] = set()
    for part in parts:
        here = {places[id(placed)] for placed in part}
        if len(here) < len(part):
            return None
        if not phases or here & seen:
            phases.append([])
            seen = set()
        phases[-1].append(part)
        seen |= here
    if len(phases) != most and min(sum(map(len, phase)) for phase in phases) < 3:
        return None
    return [
        (_label(word, phase[0]) if len(phase) == 1 else f" repeat={index + 1}", list(chain(*phase)))
        for index, phase in enumerate(phases)
    ]


def _label(word: str, part: Sequence[Slice]) -> str:
    return f" {word}={'/'.join(_plain(text) for text in part[0].header.get(word, ()))}"


def _by_value(group: list[Slice], word: str) -> list[list[Slice]]:
    parts: dict[tuple[float, str], list[Slice]] = defaultdict(list)
    for placed in group:
        parts[_rank(placed, word)].append(placed)
    return [part for _, part in sorted(parts.items())]


def _by_rank(group: list[Slice], places: Mapping[int, int]) -> list[_Phase]:
    """Nothing tells the phases apart: the first slice at each place is the first phase, and so on, in order of what
    counts up as a scanner works."""
    parts: dict[int, list[Slice]] = defaultdict(list)
    visits: Counter[int] = Counter()
    for placed in sorted(group, key=_by_time):
        place = places[id(placed)]
        parts[visits[place]].append(placed)
        visits[place] += 1
    return [(f" repeat={rank + 1}", part) for rank, part in sorted(parts.items())]


def _by_time(placed: Slice) -> tuple[tuple[float, str], ...]:
    words = ("AcquisitionNumber", "AcquisitionDateTime", "AcquisitionTime", "TriggerTime", "InstanceNumber")
    return (*(_rank(placed, word) for word in words), (0.0, placed.sop_instance_uid))


def _rank(placed: Slice, word: str) -> tuple[float, str]:
    """Numbers by value before text; DICOM's times and dates sort as numbers too. Absent first."""
    text = "\\".join(placed.header.get(word, ()))
    parsed = finite(text)
    return (-math.inf, "") if not text else (math.inf, text) if parsed is None else (parsed, "")


def _places(group: list[Slice]) -> dict[int, int]:
    """By `id` of each slice, the number of its place along the normal; what lies within SAME_PLACE_MM is one place."""
    places: dict[int, int] = {}
    start, place = -math.inf, -1
    for position, key in sorted((along_normal_mm(placed), id(placed)) for placed in group):
        if position - start > SAME_PLACE_MM:
            start, place = position, place + 1
        places[key] = place
    return places


def _interleaved(parts: Sequence[list[Slice]]) -> bool:
    """Two parts of several slices whose extents overlap: two passes over one region, not two regions."""
    extents = sorted(
        (min(positions), max(positions))
        for part in parts
        if len(part) > 2 and (positions := [along_normal_mm(placed) for placed in part])
    )
    return any(second[0] < first[1] - SAME_PLACE_MM for first, second in pairwise(extents))


def _stack(key: str, members: list[Slice], excluded: str) -> Stack:
    ordered = tuple(sorted(members, key=lambda one: (along_normal_mm(one), *_by_identity(one))))
    steps = _steps_mm(ordered)
    return Stack(
        key=key,
        slices=ordered,
        excluded=excluded,
        step_mm=sorted(steps)[len(steps) // 2] if steps else None,
        regular=not excluded and _is_regular(ordered),
    )


def _steps_mm(ordered: Sequence[Slice]) -> list[float]:
    positions = sorted(along_normal_mm(placed) for placed in ordered if placed.position_mm is not None)
    return [second - first for first, second in pairwise(positions)]


def _is_regular(members: Sequence[Slice]) -> bool:
    steps = _steps_mm(members)
    return not steps or max(steps) - min(steps) <= REGULAR * max(steps)
