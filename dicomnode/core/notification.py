"""What peers tell by N-services: that they keep instances, what a modality has made, what an archive has available.

Read from encoded data sets that nobody has checked. UIDs that are none are left out, and with them what they name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dicomnode.core.identity import is_valid_uid
from dicomnode.core.sequences import Item, read_items

STORAGE_COMMITMENT: Final = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class (PS3.4 J.3)."""
STORAGE_COMMITMENT_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
"""Its well-known SOP instance (PS3.4 J.3.5)."""
PROCEDURE_STEP: Final = "1.2.840.10008.3.1.2.3.3"
"""Modality Performed Procedure Step SOP Class (PS3.4 F.7)."""
AVAILABILITY: Final = "1.2.840.10008.5.1.4.33"
"""Instance Availability Notification SOP Class (PS3.4 R.3)."""

_SOP_INSTANCE: Final = 0x00081155
_TRANSACTION: Final = 0x00081195
_FAILURE_REASON: Final = 0x00081197
_FAILED_SOPS: Final = 0x00081198
_SOPS: Final = 0x00081199
_REFERENCED_SERIES: Final = 0x00081115
_REFERENCED_IMAGES: Final = 0x00081140
_AVAILABLE: Final = 0x00080056
_STUDY: Final = 0x0020000D
_SERIES: Final = 0x0020000E
_STATUS: Final = 0x00400252
_SCHEDULED_STEPS: Final = 0x00400270
_PERFORMED_SERIES: Final = 0x00400340
_OTHER_SOPS: Final = 0x00400220
"""Referenced Non-Image Composite SOP Instance Sequence (PS3.4 table F.7.2-1)."""

_VALUES: Final = frozenset({_SOP_INSTANCE, _TRANSACTION, _FAILURE_REASON, _AVAILABLE, _STUDY, _SERIES, _STATUS})
_SEQUENCES: Final = frozenset(
    {_FAILED_SOPS, _SOPS, _REFERENCED_SERIES, _REFERENCED_IMAGES, _SCHEDULED_STEPS, _PERFORMED_SERIES, _OTHER_SOPS}
)

_ALL_COMMITTED: Final = 1
"""Event Type ID of a request without failures (PS3.4 J.3.3); 2 is one with some."""
_UNKNOWN_REASON: Final = 0x0110

SeriesContent = tuple[str, tuple[str, ...]]
"""A Series Instance UID, and SOP Instance UIDs in it."""


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """The result of a Storage Commitment request (PS3.4 table J.3-2).

    committed  SOP Instance UIDs that the peer keeps
    failures   Failure Reason (0008,1197) by SOP Instance UID of those that it does not
    is_whole   whether it says that all that was asked for is kept
    """

    transaction_uid: str
    committed: tuple[str, ...]
    failures: Mapping[str, int]
    is_whole: bool


class StepState(StrEnum):
    """Performed Procedure Step Status (0040,0252), PS3.3 C.4.14."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


@dataclass(frozen=True, slots=True)
class StepContent:
    """What an N-CREATE or N-SET of a performed procedure step says; `state` is None where it says none that is known.

    study_instance_uid  of the step that was scheduled, "" where it is not said
    series              None where it is not said
    """

    state: StepState | None
    study_instance_uid: str
    series: tuple[SeriesContent, ...] | None


@dataclass(frozen=True, slots=True)
class Availability:
    """What an Instance Availability Notification says can be had at once (ONLINE, PS3.3 C.4.23)."""

    study_instance_uid: str
    series: tuple[SeriesContent, ...]


def read_commitment_report(encoded: bytes, transfer_syntax_uid: str, event_type: int) -> CommitmentReport:
    """The data set of a Storage Commitment N-EVENT-REPORT. Raises InputError."""
    said = _read(encoded, transfer_syntax_uid)
    failed = [(item.text(_SOP_INSTANCE), item.number(_FAILURE_REASON)) for item in said.items(_FAILED_SOPS)]
    failures = {uid: _UNKNOWN_REASON if reason is None else reason for uid, reason in failed if is_valid_uid(uid)}
    return CommitmentReport(
        said.text(_TRANSACTION),
        tuple(uid for uid in _uids(said, _SOPS) if uid not in failures),
        failures,
        is_whole=event_type == _ALL_COMMITTED and not failures,
    )


def read_step(encoded: bytes, transfer_syntax_uid: str) -> StepContent:
    """The data set of a Modality Performed Procedure Step N-CREATE or N-SET. Raises InputError."""
    said = _read(encoded, transfer_syntax_uid)
    status = said.text(_STATUS).upper()
    studies = (item.text(_STUDY) for item in said.items(_SCHEDULED_STEPS))
    performed = said.items(_PERFORMED_SERIES)
    return StepContent(
        next((state for state in StepState if state == status), None),
        next((uid for uid in studies if is_valid_uid(uid)), ""),
        _series(performed, (_REFERENCED_IMAGES, _OTHER_SOPS)) if _PERFORMED_SERIES in said.sequences else None,
    )


def read_availability(encoded: bytes, transfer_syntax_uid: str) -> Availability:
    """The data set of an Instance Availability Notification N-CREATE. Raises InputError."""
    said = _read(encoded, transfer_syntax_uid)
    study = said.text(_STUDY)
    series = _series(said.items(_REFERENCED_SERIES), (_SOPS,), online=True)
    return Availability(study if is_valid_uid(study) else "", series)


def _read(encoded: bytes, transfer_syntax_uid: str) -> Item:
    return read_items(encoded, transfer_syntax_uid, _VALUES, _SEQUENCES)


def _series(items: tuple[Item, ...], within: tuple[int, ...], *, online: bool = False) -> tuple[SeriesContent, ...]:
    """Series with what they hold; one that is named twice once, one that holds nothing never."""
    found: dict[str, dict[str, None]] = {}
    for item in items:
        uid = item.text(_SERIES)
        members = dict.fromkeys(member for tag in within for member in _uids(item, tag, online=online))
        if is_valid_uid(uid) and members:
            found.setdefault(uid, {}).update(members)
    return tuple((uid, tuple(members)) for uid, members in found.items())


def _uids(said: Item, tag: int, *, online: bool = False) -> tuple[str, ...]:
    members = (item for item in said.items(tag) if not online or item.text(_AVAILABLE) == "ONLINE")
    uids = (item.text(_SOP_INSTANCE) for item in members)
    return tuple(dict.fromkeys(uid for uid in uids if is_valid_uid(uid)))
