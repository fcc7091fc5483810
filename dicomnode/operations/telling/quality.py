"""What was measured, and what drifts, for `why` and `status`."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.orm import Session

from dicomnode.core.figures import shown
from dicomnode.store.index import quality
from dicomnode.store.schema import Job, QualityRow

_TOLD = ("noise_before", "noise_after", "edge_modulation", "water", "noise", "uniformity")
_LISTED = 20


def quality_lines(session: Session, job: Job) -> tuple[str, ...]:
    """The figures of a job that say most, and what drifted when they were recorded; the others: `quality show`."""
    return tuple(line for row in quality.reports_of_job(session, job.id) for line in _row_lines(row))


def drifting(session: Session) -> Iterator[tuple[str, str]]:
    """(lineage, what drifts) of each scanner, protocol and engine whose latest report says so."""
    for row in quality.latest_of_lineages(session, _LISTED):
        if row.drifts:
            yield quality.lineage_of(row).key, "; ".join(row.drifts)


def failed_phantoms(session: Session) -> Iterator[tuple[str, str]]:
    """(lineage, what is out of its limits) of each scanner whose last phantom did not measure what it should."""
    for row in quality.latest_of_lineages(session, _LISTED):
        if row.kind == "constancy" and not row.passed:
            yield quality.lineage_of(row).key, "; ".join(row.reasons)


def _row_lines(row: QualityRow) -> Iterator[str]:
    told = ", ".join(shown(name, row.figures[name]) for name in _TOLD if name in row.figures)
    if told:
        yield f"{row.engine or 'phantom'} measured: {told}"
    yield from row.reasons if row.kind == "constancy" else ()
    yield from row.drifts
