"""`dicomnode close`: a person says that nothing more of a series comes, or that what there is of it will do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.errors import NotFoundError
from dicomnode.operations.index import writing
from dicomnode.operations.terminal import printable_lines
from dicomnode.store.index import needs as needs_index
from dicomnode.store.index import overview
from dicomnode.store.index import series as series_index
from dicomnode.store.index.actions import record_action, user
from dicomnode.store.schema import Origin
from dicomnode.telemetry import event


@dataclass(frozen=True)
class Closing:
    """Series Instance UIDs: of those that the node closes now, and of those that were closed already.

    rules  those that wait no longer for more series of the study
    """

    closing: tuple[str, ...]
    closed: tuple[str, ...]
    rules: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        told = [f"series {uid}: closed now, whatever is missing; its rules are applied" for uid in self.closing]
        told += [f"series {uid}: is closed already" for uid in self.closed]
        return printable_lines(
            (*told, *(f"rule {rule!r}: goes on with the series that are there" for rule in self.rules))
        )


def close(config: Config, subject: str, reason: str = "") -> Closing:
    """Have the series that a UID or an accession number names closed: at once by a running node, else when it runs.

    Raises NotFoundError where nothing is known by that name.
    """
    now = time.time()
    asked, known = [], []
    with writing(config) as session:
        for series in overview.series_about(session, subject):
            if series.origin != Origin.RECEIVED:
                continue
            if series_index.ask_to_close(session, series, user(), now):
                record_action(session, "close", series.series_instance_uid, reason, now)
                asked.append(series)
            else:
                known.append(series.series_instance_uid)
        waiting = _go_on(session, subject, reason, now)
    if not asked and not known and not waiting:
        raise NotFoundError("no received series is known by that UID or accession number", "see: dicomnode status")
    for series in asked:
        event("series_close_asked", series_id=series.id, series_instance_uid=series.series_instance_uid)
    return Closing(tuple(series.series_instance_uid for series in asked), tuple(known), waiting)


def _go_on(session: Session, subject: str, reason: str, now: float) -> tuple[str, ...]:
    """Where a study is named: the rules that wait for more of its series, which they do no longer."""
    rules: list[str] = []
    for study in overview.studies_named(session, subject):
        found = needs_index.go_on(session, study.id, now)
        if found:
            record_action(session, "close", study.study_instance_uid, reason, now)
        rules += [row.rule for row in found]
    return tuple(rules)
