"""Rejection notes (IHE RAD TF-2 4.66, IOCM): Key Object Selection Documents whose title says that objects are not to be
used. Pure: what one says, and what we make of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dicomnode.core.identity import is_valid_uid
from dicomnode.core.sequences import Item, read_items

QUALITY: Final = "113001"
RETENTION_EXPIRED: Final = "113039"

TITLES: Final[Mapping[str, str]] = {
    QUALITY: "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    RETENTION_EXPIRED: "Data Retention Policy Expired",
}
"""Document titles of rejection notes (PS3.16 CID 7010), by code value of the scheme DCM."""

_CONCEPT_NAME: Final = 0x0040A043
_CODE_VALUE: Final = 0x00080100
_SCHEME: Final = 0x00080102
_CONTENT: Final = 0x0040A730
_EVIDENCE: Final = 0x0040A375
_REFERENCED_SERIES: Final = 0x00081115
_REFERENCED_SOP: Final = 0x00081199
_REFERENCED_UID: Final = 0x00081155


@dataclass(frozen=True, slots=True)
class RejectionNote:
    """What a note says: its title's code value, a key of `TITLES`, and the SOP Instance UIDs that it rejects."""

    title: str
    sop_instance_uids: tuple[str, ...]

    @property
    def cancels(self) -> bool:
        """Whether what it rejects is not to be used. Where its time in an archive is over it was right all the same."""
        return self.title != RETENTION_EXPIRED


def read_note(encoded: bytes, transfer_syntax_uid: str) -> RejectionNote | None:
    """The note in an encoded data set; None where it is a Key Object Selection Document of another kind.

    Rejected is what its content refers to; where that refers to nothing, what its evidence lists (some senders write
    one of the two only, though C.17.6.2 wants both). Raises InputError where it cannot be read.
    """
    wanted = (_CODE_VALUE, _SCHEME, _REFERENCED_UID)
    sequences = (_CONCEPT_NAME, _CONTENT, _EVIDENCE, _REFERENCED_SERIES, _REFERENCED_SOP)
    document = read_items(encoded, transfer_syntax_uid, wanted, sequences)
    title = _title(document)
    if title is None:
        return None
    selected = [uid for item in document.items(_CONTENT) for uid in _references(item)]
    listed = [
        uid
        for study in document.items(_EVIDENCE)
        for series in study.items(_REFERENCED_SERIES)
        for uid in _references(series)
    ]
    return RejectionNote(title, tuple(uid for uid in dict.fromkeys(selected or listed) if is_valid_uid(uid)))


def _title(document: Item) -> str | None:
    for name in document.items(_CONCEPT_NAME):
        value, scheme = name.text(_CODE_VALUE), name.text(_SCHEME)
        if value in TITLES and scheme == "DCM":
            return value
    return None


def _references(item: Item) -> Iterator[str]:
    """The instances that an item of content or evidence refers to, and those that its own content does."""
    for reference in item.items(_REFERENCED_SOP):
        yield reference.text(_REFERENCED_UID)
    for nested in item.items(_CONTENT):  # no deeper than `read_items` reads
        yield from _references(nested)
