"""Whether a destination has the same patient and study as a derived object says: pure, and tolerant of spelling.

What only one side knows is no difference. Names are compared by their components (PS3.5 6.2.1), without case, and only
in the representations that both sides have.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dicomnode.core.headers import value
from dicomnode.core.types import Header

COMPARED: Final = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber")
"""Attributes that are compared; whether the study is still there is told by Study Instance UID."""

STUDY: Final = "StudyInstanceUID"


@dataclass(frozen=True, slots=True)
class Difference:
    """One attribute that differs. The values are a patient's: for `why`, never for a log."""

    keyword: str
    ours: str
    theirs: str


def differences(ours: Header, matches: Sequence[Header]) -> tuple[Difference, ...]:
    """In what a derived object differs from what a destination holds of its study.

    matches  what the destination found under its Study Instance UID; where it found several, the one that is nearest
             counts. None: the study is not there
    """
    if not matches:
        return (Difference(STUDY, value(ours, STUDY), ""),)
    return min((_between(ours, theirs) for theirs in matches), key=len)


def _between(ours: Header, theirs: Header) -> tuple[Difference, ...]:
    pairs = ((keyword, _whole(ours, keyword), _whole(theirs, keyword)) for keyword in COMPARED)
    return tuple(
        Difference(keyword, mine, other)
        for keyword, mine, other in pairs
        if not _SAME.get(keyword, _same_text)(mine, other)
    )


def _whole(header: Header, keyword: str) -> str:
    return "\\".join(header.get(keyword, ()))


def _same_text(mine: str, other: str) -> bool:
    one, two = _folded(mine), _folded(other)
    return not one or not two or one == two


def _same_name(mine: str, other: str) -> bool:
    """Alphabetic, ideographic and phonetic representation (PS3.5 6.2.1.2), each where both sides have it."""
    groups = zip(mine.split("="), other.split("="), strict=False)
    return all(not one or not two or one == two for one, two in ((_components(a), _components(b)) for a, b in groups))


def _components(group: str) -> tuple[str, ...]:
    """Family, given and middle name, prefix and suffix; what is empty at the end means nothing."""
    parts = [_folded(part) for part in group.split("^")]
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).replace("\0", " ").split()).casefold()


def _same_id(mine: str, other: str) -> bool:
    """Identifiers keep their case: two that differ in it may be two patients."""
    one, two = mine.strip(" \0"), other.strip(" \0")
    return not one or not two or one == two


_SAME: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "PatientName": _same_name,
    "PatientID": _same_id,
    "AccessionNumber": _same_id,
}
