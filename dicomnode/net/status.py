"""DIMSE statuses of C-STORE (PS3.4 B.2.3, PS3.7 9.1.1.1.9 and annex C): what they mean and what a person does next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from dicomnode.core.types import Outcome
from dicomnode.errors import DicomNodeError, DiskFullError, IndexAwayError, InputError, MismatchError


class Status(IntEnum):
    """The statuses we answer with."""

    SUCCESS = 0x0000
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    INVALID_SOP_INSTANCE = 0x0117
    MISSING_ATTRIBUTE = 0x0120
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    UNRECOGNIZED_OPERATION = 0x0211
    RESOURCE_LIMITATION = 0x0213
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True, slots=True)
class Meaning:
    """One status in words; `transient` says whether the same instance may be taken later."""

    outcome: Outcome
    meaning: str
    hint: str = ""
    transient: bool = False


_ASK_LOG: Final = "look for this SOP Instance UID in the destination's log"
_FAILED, _REFUSED, _WARNING = Outcome.FAILED, Outcome.REFUSED, Outcome.WARNING

_MEANINGS: Final[dict[int, Meaning]] = {
    0x0000: Meaning(Outcome.SENT, "success"),
    0x0001: Meaning(_WARNING, "requested optional attributes are not supported"),
    0x0105: Meaning(_FAILED, "no such attribute", _ASK_LOG),
    0x0106: Meaning(_FAILED, "invalid attribute value", _ASK_LOG),
    0x0107: Meaning(_WARNING, "stored, but some attributes were not"),
    0x0110: Meaning(
        _FAILED,
        "processing failure",
        f"the destination could not store it now, or its study is locked there: {_ASK_LOG}",
        transient=True,
    ),
    0x0111: Meaning(Outcome.DUPLICATE, "the destination already holds this SOP Instance UID"),
    0x0112: Meaning(_FAILED, "no such SOP instance", _ASK_LOG),
    0x0115: Meaning(_FAILED, "invalid argument value", _ASK_LOG),
    0x0116: Meaning(_WARNING, "stored, but an attribute value is out of range"),
    0x0117: Meaning(_FAILED, "invalid SOP Instance UID", "the object's UID breaks the rules of PS3.5 section 9"),
    0x0118: Meaning(_REFUSED, "no such SOP class", "the destination does not store this kind of object"),
    0x0119: Meaning(_FAILED, "the SOP instance is not of this SOP class", _ASK_LOG),
    0x0120: Meaning(_FAILED, "missing attribute", _ASK_LOG),
    0x0121: Meaning(_FAILED, "missing attribute value", _ASK_LOG),
    0x0122: Meaning(
        _REFUSED, "SOP class not supported", "the destination does not store this kind of object: do not send it there"
    ),
    0x0124: Meaning(
        _REFUSED,
        "not authorised",
        "the destination knows us but does not let us store: allow our AE title there, "
        "or the study is locked (verified, archived or being read)",
    ),
    0x0210: Meaning(_FAILED, "duplicate invocation", _ASK_LOG, transient=True),
    0x0211: Meaning(_REFUSED, "unrecognized operation", "the destination does not do C-STORE: wrong port or AE title?"),
    0x0212: Meaning(_FAILED, "mistyped argument", _ASK_LOG),
    0x0213: Meaning(_FAILED, "resource limitation", "the destination is busy or full", transient=True),
    0xA800: Meaning(_REFUSED, "SOP class not supported", "the destination does not store this kind of object"),
    0xB000: Meaning(_WARNING, "stored, data elements coerced", "the destination changed attributes, as many PACS do"),
    0xB006: Meaning(_WARNING, "stored, elements discarded"),
    0xB007: Meaning(_WARNING, "stored, the data set does not match its SOP class"),
    0xFE00: Meaning(_FAILED, "cancelled by the destination", _ASK_LOG, transient=True),
}

_RANGES: Final[tuple[tuple[range, Meaning], ...]] = (
    (
        range(0xA700, 0xA800),
        Meaning(_REFUSED, "out of resources", "the destination's disk is full or nearly so", transient=True),
    ),
    (
        range(0xA900, 0xAA00),
        Meaning(_REFUSED, "the data set does not match its SOP class", "the object lacks what the destination checks"),
    ),
    (range(0xB000, 0xC000), Meaning(_WARNING, "stored with a warning", _ASK_LOG)),
    (
        range(0xC000, 0xD000),
        Meaning(_FAILED, "cannot understand", f"the study may be locked there, or the object unreadable: {_ASK_LOG}"),
    ),
)


_WORDS: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (
        ("lock", "verified", "read only", "read-only", "readonly", "frozen", "finali", "archived"),
        "it says that the study is locked, verified or archived: have it unlocked there, then send it again",
    ),
    (("duplicate", "already exist", "already stored"), "it says that it holds this object already"),
    (("disk", "space", "quota", "storage full", "memory"), "it says that it has no room: free some there"),
    (("permi", "denied", "authori", "not allowed", "licen"), "it says that we may not: allow our AE title there"),
    (("patient", "mismatch", "conflict", "inconsisten"), "it says that what it holds contradicts the object"),
    (("class", "sop"), "it says that it does not want this kind of object"),
    (("syntax", "compress", "encod", "decod", "pixel"), "it says that it cannot read the object's encoding"),
)
"""What peers' Error Comments (0000,0902) are about, by words in them. The comment itself may name a patient: it is read
for this and never kept."""


def interpret(status: int, comment: str = "", offending_elements: Sequence[int] = ()) -> Meaning:
    """What a C-STORE response means. A status that no standard knows counts as failed.

    comment             its Error Comment, of which only the subject goes into the hint
    offending_elements  tags that it names (PS3.7 C.4.2)
    """
    meaning = _meaning(status)
    if meaning.outcome.arrived:
        return meaning
    lowered = comment.lower()
    said = next((hint for words, hint in _WORDS if any(word in lowered for word in words)), "")
    tags = ", ".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in offending_elements[:4])
    return replace(
        meaning,
        meaning=f"{meaning.meaning}, because of {tags}" if tags else meaning.meaning,
        hint="; ".join(filter(None, (said, meaning.hint))),
    )


def _meaning(status: int) -> Meaning:
    if status in _MEANINGS:
        return _MEANINGS[status]
    for codes, meaning in _RANGES:
        if status in codes:
            return meaning
    return Meaning(Outcome.FAILED, f"unknown status 0x{status:04X}", _ASK_LOG)


def status_of(error: DicomNodeError) -> Status:
    """What a C-STORE request that failed with `error` is answered with."""
    match error:
        case DiskFullError() | IndexAwayError():
            return Status.OUT_OF_RESOURCES
        case MismatchError():
            return Status.DATA_SET_MISMATCH
        case InputError():
            return Status.CANNOT_UNDERSTAND
        case _:
            return Status.PROCESSING_FAILURE
