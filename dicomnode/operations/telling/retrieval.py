"""What is told of a series that we fetched: from whom, by whose wish, counted against what."""

from __future__ import annotations

from sqlalchemy.orm import Session

from dicomnode.core.retrieving import RetrievalState
from dicomnode.operations.wording import counted
from dicomnode.store.index import retrievals
from dicomnode.store.schema import Retrieval, Series, Study

_ENDS = {
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
    by = f" by {row.used}" if row.used else ", of which all was here already"
    end = _ENDS[RetrievalState(row.state)]
    return f"fetched from {row.peer}{by} for {row.requested_by} (retrieval {row.id}, {end}): {of} by its C-FIND"
