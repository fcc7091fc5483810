"""What came late, what replaced what, and what was rejected: for `why` and `status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from dicomnode.core.lateness import Lateness
from dicomnode.core.types import LatePolicy
from dicomnode.operations.wording import counted
from dicomnode.store.index import overview, rejections, withdrawals
from dicomnode.store.index.lateness import late_instances
from dicomnode.store.schema import Job, Series

_BECOMES: Final = {
    LatePolicy.SUPERSEDE: "what was derived is made anew",
    LatePolicy.SEPARATE: "handled as a group of their own",
    LatePolicy.IGNORE: "stored and sent as they are; no engine sees them",
}


@dataclass(frozen=True)
class WithdrawnStatus:
    """Derived instances that hold no longer.

    instances  how many there are
    held       how many deliveries of them had arrived
    told       of how many of these deliveries a rejection note tells the destination
    """

    instances: int
    held: int
    told: int

    def lines(self) -> Iterator[str]:
        if self.instances:
            yield (
                f"replaced or rejected: {counted(self.instances, 'derived instance')}; "
                f"{self.held} had been delivered, and rejection notes tell of {self.told} of these"
            )


def withdrawn_status(session: Session) -> WithdrawnStatus:
    """What `status` tells of them."""
    return WithdrawnStatus(*withdrawals.counts(session))


def late_lines(session: Session, series: Series) -> tuple[str, ...]:
    """What came late to a series; what replaced it, or what of it was rejected; or, if it is a note, what it did."""
    return (
        *_late(session, series),
        *_rejected(session, series),
        *_notes(session, series),
        *_replacing(session, series),
        *_withdrawn(session, series),
    )


def _late(session: Session, series: Series) -> Iterator[str]:
    found: Counter[Lateness] = Counter(late_instances(session, series.id).values())
    for late, instances in sorted(found.items()):
        yield (
            f'{counted(instances, "instance")} came after closing {late.generation} (late = "{late.policy.value}"): '
            f"{_BECOMES[late.policy]}"
        )


def _rejected(session: Session, series: Series) -> Iterator[str]:
    """The rejection notes that others wrote on instances of this series."""
    for row, note, instances in rejections.rejections_of(session, series.id):
        yield (
            f"{counted(instances, 'instance')} rejected by note {note.sop_instance_uid} from "
            f"{note.peer or note.calling_ae}: {row.reason}"
        )
        for destination, arrived in rejections.arrived(session, row.id, series.id):
            yield f"  {arrived} of them had arrived at {destination}: it must hear of the note itself"


def _notes(session: Session, series: Series) -> Iterator[str]:
    """What the rejection notes among the instances of this series did, whoever wrote them."""
    for row in rejections.notes_in(session, series.id):
        yield f"rejection note, {row.state}{f': {row.reason}' if row.reason else ''}"
    for destination, instances in withdrawals.told_by(session, series.id):
        yield f"rejection note of ours: tells {destination} of {counted(instances, 'derived instance')}"


def _replacing(session: Session, series: Series) -> Iterator[str]:
    """Which series a derived one replaces, and which replaces it."""
    for job in overview.jobs_that_derived(session, series.series_instance_uid):
        for other, said in ((job.supersedes, "takes the place of"), (job.superseded_by, "its place takes")):
            if other is not None:
                yield from _other(series, overview.job_of(session, other), said)


def _other(series: Series, other: Job, said: str) -> Iterator[str]:
    uids: Sequence[str] = [uid for uid in other.derived_series if uid != series.series_instance_uid]
    if uids and series.series_instance_uid not in other.derived_series:
        yield f"{said} series {', '.join(uids)}"


def _withdrawn(session: Session, series: Series) -> Iterator[str]:
    """Which instances of a derived series hold no longer, and where they are."""
    for reason, rows in withdrawals.reasons_of(session, series.id).items():
        yield f"{counted(len(rows), 'instance')} hold no longer: {reason}"
        for destination, held, told in withdrawals.whereabouts(session, rows):
            untold = held - told
            yield (
                f"  {held} had arrived at {destination}: "
                + (f"{untold} without a rejection note (withdraw = true sends one)" if untold else "it was told")
            )
