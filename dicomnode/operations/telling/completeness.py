"""When a series was, or will be, judged complete, and on what grounds: for `why` and `status`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sqlalchemy.orm import Session

from dicomnode.operations.wording import counted
from dicomnode.store.index import series as series_index
from dicomnode.store.index.expectations import expectations_of
from dicomnode.store.schema import ExpectationRow, Series, SeriesState, Study


def completeness_lines(session: Session, series: Series) -> tuple[str, ...]:
    """The judgement on a received series with its reasons, and what others say of it; nothing of a derived one."""
    if series.job_row is not None:
        return ()
    study = session.get_one(Study, series.study_row).study_instance_uid
    told = expectations_of(session, study, series.series_instance_uid)
    return (*_state_lines(series), *map(_expectation_line, told))


def held_series(session: Session, limit: int) -> Iterator[tuple[str, str]]:
    """Series that wait for a person: each UID, with what is missing and what to type."""
    for series in series_index.held_series(session, limit):
        uid = series.series_instance_uid
        yield uid, f"incomplete: {_reasons(series)}  (dicomnode close {uid})"


def _state_lines(series: Series) -> Iterator[str]:
    if series.state == SeriesState.HELD:
        yield f"incomplete at its deadline, and held: {_reasons(series)}; `dicomnode close` lets it go on"
    elif series.state == SeriesState.CLOSED and not series.generation:
        yield "kept as it came back; nothing else follows"
    elif series.state == SeriesState.CLOSED and series.verdict is not None:
        closed = f"{series.verdict['state']} at {_when(series.closed_at or series.last_at)}"
        yield f"{closed} (confidence {series.verdict['confidence']:.2f}): {_reasons(series)}"
        if series_index.incompleteness(series):
            yield "what is derived of it says that its source is incomplete"
    else:
        is_waiting = series.verdict is not None and series.verdict["state"] == "wait"
        yield f"still arriving; judged again at {_when(series.due_at or series.last_at)}" + (
            f": {_reasons(series)}" if is_waiting else ""
        )
        if series.close_by is not None:
            yield f"{series.close_by} wants it closed now: done as soon as the node runs"


def _expectation_line(row: ExpectationRow) -> str:
    number = len(row.sop_instance_uids or ()) if row.instances is None else row.instances
    by = f" by {row.peer}" if row.peer else ""
    return f"{row.source}{by} told of {counted(number, 'instance')} at {_when(row.at)}"


def _reasons(series: Series) -> str:
    return "; ".join(series.verdict["reasons"]) if series.verdict is not None else ""


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
