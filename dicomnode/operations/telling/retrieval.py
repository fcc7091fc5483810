"""What is told of fetching: of a series from whom, by whose wish, counted against what; and what waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from dicomnode.core.retrieving import RetrievalState
from dicomnode.operations.wording import counted
from dicomnode.store.index import retrievals
from dicomnode.store.index.processes import clock
from dicomnode.store.schema import Retrieval, Series, Study

_LATELY_S: Final = 86_400.0
_UNKNOWN_S: Final = 3600.0
"""What the peer knows nothing of is a mistyped number mostly, and who asked has had the answer."""

_LISTED: Final = 10
_ENDS: Final = {
    RetrievalState.READY: "it goes on",
    RetrievalState.COMPLETE: "complete",
    RetrievalState.PARTIAL: "partial",
    RetrievalState.FAILED: "failed",
}


def retrieval_lines(session: Session, series: Series) -> tuple[str, ...]:
    """A sentence for each retrieval that had the series, the oldest first."""
    study = session.get_one(Study, series.study_row).study_instance_uid
    found = retrievals.of_series(session, study, series.series_instance_uid)
    return tuple(_line(row, listed, held) for row, listed, held in found)


def _line(row: Retrieval, listed: int | None, held: int) -> str:
    of = "it did not say how many there are" if listed is None else f"{held} of {counted(listed, 'instance')} here"
    state = RetrievalState(row.state)
    was_here = ", and all here already," if state is RetrievalState.COMPLETE else ""
    how = f"fetched from {row.peer} by {row.used}" if row.used else f"asked of {row.peer}{was_here}"
    return f"{how} for {row.requested_by} (retrieval {row.id}, {_ENDS[state]}): {of} by its C-FIND"


@dataclass(frozen=True)
class WaitingRetrieval:
    """A retrieval that has not ended. `reason` is why its last attempt came to nothing, "" where there was none."""

    retrieval: int
    peer: str
    is_running: bool
    expected: int | None
    held: int | None
    attempts: int
    reason: str

    def line(self) -> str:
        counted_so_far = "" if self.expected is None else f", {self.held} of {self.expected} instances"
        state = "is running" if self.is_running else f"waits after {counted(self.attempts, 'attempt')}"
        return f"  {self.retrieval} from {self.peer} {state}{counted_so_far}{f': {self.reason}' if self.reason else ''}"


@dataclass(frozen=True)
class RetrievalStatus:
    """What is to be fetched, and how what was fetched in the last day ended."""

    waiting: tuple[WaitingRetrieval, ...]
    ended: Mapping[str, int]

    def lines(self) -> tuple[str, ...]:
        """Nothing where nothing is fetched."""
        if not self.waiting and not self.ended:
            return ()
        ended = ", ".join(
            f"{self.ended.get(state.value, 0)} {state.value}" for state in _ENDS if state.value != "ready"
        )
        head = f"fetched   {ended} in the last day; {len(self.waiting)} to be fetched"
        return (head, *(one.line() for one in self.waiting[:_LISTED]))


def retrieval_status(session: Session, now: float) -> RetrievalStatus:
    """`now` is the database's."""
    waiting = tuple(
        WaitingRetrieval(
            row.id,
            row.peer,
            row.lease_until is not None and row.lease_until > now,
            row.expected,
            row.held,
            row.attempts,
            row.reason,
        )
        for row in retrievals.waiting(session)
    )
    return RetrievalStatus(waiting, retrievals.ended_since(session, now - _LATELY_S))


def unfetched(session: Session, limit: int) -> tuple[tuple[str, str], ...]:
    """(study, or the retrieval's row, what is the matter) for what did not come in the last day, the newest first; what
    the peer does not know: in the last hour."""
    now = clock(session)
    return tuple(
        (row.study_instance_uid or f"retrieval {row.id}", f"{row.state}, from {row.peer}: {row.reason}; {row.hint}")
        for row in retrievals.incomplete(session, now - _LATELY_S, now - _UNKNOWN_S, limit)
    )
