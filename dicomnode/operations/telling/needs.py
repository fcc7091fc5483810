"""Rules that need several series of a study: what is fulfilled, what is missing, and what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sqlalchemy.orm import Session

from dicomnode.core.rules.needs import missing
from dicomnode.store.index import needs as needs_index
from dicomnode.store.schema import NeedState, Series, Study, StudyNeed

_STATES = {
    NeedState.DUE: "is made now",
    NeedState.FIRED: "has run",
    NeedState.HELD: "is held: the others did not come; `dicomnode close` of the study lets it go on",
    NeedState.ENDED: "has ended: its input did not come",
}


def needs_lines(session: Session, series: Series) -> tuple[str, ...]:
    """Of a received series: the rules with needs that any series of its study does something for."""
    if series.job_row is not None:
        return ()
    return tuple(line for row in needs_index.needs_of(session, series.study_row) for line in _lines(row))


def held_needs(session: Session, limit: int) -> Iterator[tuple[str, str]]:
    """Studies in which a rule waits for a person: each UID, with the rule, what is missing and what to type."""
    for row in needs_index.held_needs(session, limit):
        uid = session.get_one(Study, row.study_row).study_instance_uid
        lacking = ", ".join(map(repr, missing(row.needs, row.met)))
        yield uid, f"rule {row.rule!r} needs {lacking}, which did not come  (dicomnode close {uid})"


def _lines(row: StudyNeed) -> Iterator[str]:
    waits = f"waits for the others until {_when(row.due_at)}" if row.due_at is not None else "waits for the others"
    state = _STATES.get(NeedState(row.state), waits)
    yield f"rule {row.rule!r}, for which several series of the study are needed, {state}"
    for need in row.needs:
        met = row.met.get(need)
        yield f"  {need}: " + (f"series {met['series_instance_uid']}, stack {met['stack_key']}" if met else "missing")


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
