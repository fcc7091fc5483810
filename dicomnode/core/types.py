"""The words of the house: frozen values that rooms pass to each other.

Times (`*_at`) are seconds since the epoch, UTC, as float. AE titles are stripped of padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

Header = Mapping[str, tuple[str, ...]]
"""Attributes by DICOM keyword, each value as text (a multi-valued element has several). An absent or empty element
is not in the mapping. Numbers are written as DICOM writes them in DS/IS; sequences never appear."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM application we know: a scanner, a PACS. `host` or `port` may be None for a peer that only calls us."""

    name: str
    ae_title: str
    host: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent an instance, and when. `peer` is the configured name, or "" for a caller allowed without one."""

    peer: str
    calling_ae: str
    called_ae: str
    source_address: str
    received_at: float


@dataclass(frozen=True, slots=True)
class Offer:
    """What a C-STORE request announces before its data set arrives."""

    sender: Sender
    association_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class AssociationEnd(StrEnum):
    """How an association ended."""

    RELEASED = "released"
    ABORTED = "aborted"
    LOST = "lost"


ExpectationSource = Literal[
    "NumberOfSeriesRelatedInstances", "C-FIND", "C-MOVE", "C-GET", "MPPS", "IAN", "ImagesInAcquisition"
]
"""What can tell how many instances a series has."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What something says that a series holds; it may be told before the first instance comes.

    peer               who told it: a configured name, or an AE title
    instances          how many there are, or None
    sop_instance_uids  which ones, where it names them (MPPS, IAN), or None
    """

    series_instance_uid: str
    study_instance_uid: str
    source: ExpectationSource
    peer: str
    instances: int | None = None
    sop_instance_uids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """An Expectation beside what is here. `missing` names those that are not, where `source` named its instances."""

    source: str
    peer: str
    instances: int
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quiet:
    """How long each kind of silence is waited out, in seconds (`dicomnode.core.quiet`).

    open_s      while an association that carried the series is open
    released_s  once all of them are released
    broken_s    after one broke off
    moved_on_s  once the sender has sent another series of the study
    series      of how many series of the sender this was learned; 0: it is what is configured
    """

    open_s: float
    released_s: float
    broken_s: float
    moved_on_s: float
    series: int = 0


@dataclass(frozen=True, slots=True)
class ArrivalEvidence:
    """What is known of a series' arrival when its completeness is judged.

    instances           stored so far
    last_at             when the last one was stored
    open_associations   associations that carried this series and are still open
    ended               how the ended ones ended
    expected            how many instances the series should have, where its headers say so
    expected_source     what says so ("NumberOfSeriesRelatedInstances", "ImagesInAcquisition")
    positions_mm        positions along the normal, one tuple for each orientation that has any
    opened_at           when the first instance of this opening came; None: `first_at`
    expectations        what others say
    resumed             how many broken associations are left out of `ended`, since the sender has opened others after
    senders             AE titles of those whose associations carried it
    moved_on            whether the sender has sent another series of the study since `last_at`
    siblings_arriving   other series of the study that are still arriving
    quiet               what is learned of the sender; None: what is configured
    """

    instances: int
    first_at: float
    last_at: float
    open_associations: int = 0
    ended: tuple[AssociationEnd, ...] = ()
    expected: int | None = None
    expected_source: str = ""
    positions_mm: tuple[tuple[float, ...], ...] = ()
    opened_at: float | None = None
    expectations: tuple[Expected, ...] = ()
    resumed: int = 0
    senders: tuple[str, ...] = ()
    moved_on: bool = False
    siblings_arriving: int = 0
    quiet: Quiet | None = None


class LatePolicy(StrEnum):
    """What becomes of an instance that comes after its series was closed; the later named is the tighter.

    SUPERSEDE: what is derived is made anew. SEPARATE: what came late is handled as a group of its own, and what was
    derived stays. IGNORE: no engine sees it.
    """

    SUPERSEDE = "supersede"
    SEPARATE = "separate"
    IGNORE = "ignore"

    def tightened(self, other: LatePolicy | None) -> LatePolicy:
        """The tighter of the two: the one that changes less of what was derived before."""
        order = list(LatePolicy)
        return self if other is None else max(self, other, key=order.index)


class SameUidPolicy(StrEnum):
    """Which version is active where a SOP Instance UID comes again with other bytes; all of them are kept.

    NEWEST: the one that came last. FIRST: the one that came first. SAME_SENDER: the newest of the first one's sender.
    """

    NEWEST = "newest"
    FIRST = "first"
    SAME_SENDER = "same-sender"


class RejectsPolicy(StrEnum):
    """Whose objects the rejection notes of a peer may reject (IHE RAD IOCM).

    OWN: what it sent us, and what we delivered to it. ANY: everybody's. NONE: nobody's.
    """

    OWN = "own"
    ANY = "any"
    NONE = "none"


class OnDeadline(StrEnum):
    """What becomes of a series that is incomplete at its deadline, from the least strict on."""

    PROCEED = "proceed"
    FLAG = "flag"
    HOLD = "hold"

    def tightened(self, other: OnDeadline | None) -> OnDeadline:
        """The stricter of the two."""
        return self if other is None else max(self, other, key=list(OnDeadline).index)


@dataclass(frozen=True, slots=True)
class CompletenessPolicy:
    """How long to wait. A peer's own values override the node's; a rule may only tighten.

    quiet_s           silence after which a series is complete though its association is open, until more is learned
    released_quiet_s  silence that is enough once every association that carried it was released, until more is learned
    deadline_s        after the last instance, judged incomplete rather than waited for (gaps, missing count)
    quiet_min_s       no learned time is shorter
    quiet_max_s       no learned time is longer, but for one that is configured; 0: nothing is learned
    longest_s         after the first instance, judged incomplete though more may come
    on_deadline       what becomes of an incomplete series
    late              what becomes of instances that come after the series was closed
    """

    quiet_s: float = 60.0
    released_quiet_s: float = 20.0
    deadline_s: float = 600.0
    quiet_min_s: float = 1.0
    quiet_max_s: float = 120.0
    longest_s: float = 14400.0
    on_deadline: OnDeadline = OnDeadline.FLAG
    late: LatePolicy = LatePolicy.SUPERSEDE

    @property
    def shortest_quiet_s(self) -> float:
        return min(self.quiet_s, self.released_quiet_s)

    @property
    def longest_quiet_s(self) -> float:
        """The longest pause that is one; 0 where nothing is learned."""
        return max(self.quiet_max_s, self.quiet_s) if self.quiet_max_s > 0 else 0.0


class Completeness(StrEnum):
    COMPLETE = "complete"
    WAIT = "wait"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What completeness decided. `until` is set for WAIT; `reasons` are plain sentences without PHI."""

    state: Completeness
    until: float | None
    reasons: tuple[str, ...]
    confidence: float


@dataclass(frozen=True, slots=True)
class Slice:
    """One image instance as stacks see it: its row id, its file, and the header values that place it.

    `position_mm` (x, y, z) and `orientation` (row then column cosines) are None where the object has none.
    `header` holds what rules and cards may ask for (see `dicomnode.core.stacks.STACK_KEYWORDS` and the rules' own).
    """

    instance_id: int
    sop_instance_uid: str
    sop_class_uid: str
    header: Header
    rows: int
    columns: int
    position_mm: tuple[float, float, float] | None
    orientation: tuple[float, float, float, float, float, float] | None
    pixel_spacing_mm: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices of one series that belong together: one orientation, matrix, spacing and acquisition.

    key        stable text made of what keys the stack, the same whichever slices have arrived
    slices     sorted by position along the normal (PS3.3 C.7.6.2.1.1), never by InstanceNumber
    excluded   why it is never enhanced ("localizer", "no pixel data", ...), or "" where it may be
    regular    steps equal within 1 %
    """

    key: str
    slices: tuple[Slice, ...]
    excluded: str
    step_mm: float | None
    regular: bool

    @property
    def header(self) -> Header:
        """The header of the first slice by position: what rules are judged on."""
        return self.slices[0].header


class Outcome(StrEnum):
    """What became of one instance at one destination, in one attempt.

    ABORTED: the association broke off at it. EXCLUDED: our configuration keeps it from there, nothing was attempted.
    """

    SENT = "sent"
    WARNING = "warning"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    FAILED = "failed"
    ABORTED = "aborted"
    EXCLUDED = "excluded"

    @property
    def arrived(self) -> bool:
        return self in (Outcome.SENT, Outcome.WARNING, Outcome.DUPLICATE)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One outbox row, ready to be sent.

    derived_series  Study and Series Instance UID of an object that we derived and never sent there, None of all others:
                    it may be there already, where our index was lost
    """

    outbox_id: int
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    derived_series: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class DecodedPixels:
    """The pixels of one object as native Pixel Data (PS3.5 8.1.1): little endian, colour by pixel, frame by frame.

    path                        a file that holds them and nothing else
    photometric_interpretation  of these pixels: a decoder may have changed it
    """

    path: Path
    photometric_interpretation: str
    samples_per_pixel: int
    bits_allocated: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer for one outbox row. `status` is the DIMSE status, None where none came."""

    outbox_id: int
    outcome: Outcome
    status: int | None
    meaning: str
    hint: str
    transient: bool
