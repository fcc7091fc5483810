"""What to ask a peer for, and how a retrieval ended: decided by counting what is in our own index, and nothing else.

A peer that answers C-MOVE with success may have sent less than it holds. So the truth is what its C-FIND lists at IMAGE
level, else how many instances it says that each series has; and what arrived is what our index holds of that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

_MOST_AT_ONCE: Final = 50
"""SOP Instance UIDs in one request: archives put them into one statement of their database."""


class RetrieveMethod(StrEnum):
    """How a peer is asked for what it holds. AUTO: by C-GET, and by C-MOVE where that brings nothing."""

    AUTO = "auto"
    GET = "get"
    MOVE = "move"


class RetrievalState(StrEnum):
    """READY waits or is being fetched; the others are ends: counted, nothing, some or all of it is missing."""

    READY = "ready"
    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one C-MOVE or C-GET asks for: a study, a series, or instances of a series.

    patient_id  needed by peers that know the Patient Root only; never for a log
    """

    study_instance_uid: str
    series_instance_uid: str = ""
    sop_instance_uids: tuple[str, ...] = ()
    patient_id: str = ""


@dataclass(frozen=True, slots=True)
class SeriesAtPeer:
    """A series as a peer lists it.

    instances          how many it has, None where the peer does not tell
    sop_instance_uids  which ones, None where the peer does not tell
    sop_class_uids     of which SOP classes they are, as far as the peer tells
    """

    study_instance_uid: str
    series_instance_uid: str
    instances: int | None = None
    sop_instance_uids: tuple[str, ...] | None = None
    sop_class_uids: frozenset[str] = frozenset()
    patient_id: str = ""


@dataclass(frozen=True, slots=True)
class SeriesCount:
    """A series at the peer beside what we hold of it.

    held     how many of its instances we hold
    missing  which ones we lack, where the peer told which there are
    """

    series: SeriesAtPeer
    held: int
    missing: tuple[str, ...] = ()

    @property
    def lacking(self) -> int:
        """How many instances we lack; of a series that nobody counted nothing is known to be missing."""
        if self.series.sop_instance_uids is not None:
            return len(self.missing)
        return max(0, (self.series.instances or 0) - self.held)

    @property
    def is_counted(self) -> bool:
        return self.series.instances is not None


def count(series: SeriesAtPeer, held: Collection[str]) -> SeriesCount:
    """Compare a series with the SOP Instance UIDs that we hold: of those listed, or of the series where none is."""
    if series.sop_instance_uids is None:
        return SeriesCount(series, len(held))
    missing = tuple(uid for uid in series.sop_instance_uids if uid not in held)
    return SeriesCount(series, len(series.sop_instance_uids) - len(missing), missing)


def requests(counts: Sequence[SeriesCount], whole_studies: bool) -> Iterator[Wanted]:
    """What to ask for so that nothing is missing, as few requests as may be.

    whole_studies  whether all series of the studies are wanted: one of which we hold nothing is asked for as a whole
    """
    studies = dict.fromkeys(one.series.study_instance_uid for one in counts)
    for study in studies:
        of_study = [one for one in counts if one.series.study_instance_uid == study]
        if whole_studies and not any(one.held for one in of_study):
            yield Wanted(study, patient_id=of_study[0].series.patient_id)
            continue
        for one in of_study:
            yield from _requests_of(one)


def _requests_of(one: SeriesCount) -> Iterator[Wanted]:
    whole = Wanted(one.series.study_instance_uid, one.series.series_instance_uid, (), one.series.patient_id)
    if one.held == 0 or (one.lacking and not one.missing):
        yield whole
        return
    for start in range(0, len(one.missing), _MOST_AT_ONCE):
        some = one.missing[start : start + _MOST_AT_ONCE]
        yield Wanted(whole.study_instance_uid, whole.series_instance_uid, some, whole.patient_id)


def one_by_one(wanted: Wanted) -> tuple[Wanted, ...]:
    """The instances of a request that names several, by themselves; none for any other request."""
    if len(wanted.sop_instance_uids) < 2:
        return ()
    return tuple(replace(wanted, sop_instance_uids=(uid,)) for uid in reversed(wanted.sop_instance_uids))


def end_of(counts: Sequence[SeriesCount], unlisted: Sequence[str] = ()) -> tuple[RetrievalState, str]:
    """How a retrieval ended by the count, and in words. `unlisted`: series wanted that the peer does not list."""
    expected = sum(one.series.instances or 0 for one in counts)
    held = sum(one.held for one in counts)
    lacking = sum(one.lacking for one in counts)
    uncounted = sum(not one.is_counted for one in counts)
    if not counts or not held:
        return RetrievalState.FAILED, "nothing of it arrived" if counts else "the peer lists nothing of it"
    if lacking:
        return RetrievalState.PARTIAL, f"{expected - lacking} of {expected} instances; {lacking} did not come"
    if uncounted:
        return RetrievalState.PARTIAL, f"{held} instances; the peer does not count {uncounted} series"
    if unlisted:
        return RetrievalState.PARTIAL, f"{held} instances; the peer does not list series {', '.join(unlisted)}"
    return (
        RetrievalState.COMPLETE,
        f"{expected} of {expected} instances in {len(counts)} series, counted against C-FIND",
    )
