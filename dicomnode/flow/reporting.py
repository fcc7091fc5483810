"""Reporting: quality reports as DICOM objects, to where the rules want them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy.orm import Session

from dicomnode.core.types import Sender
from dicomnode.flow.dispatching import Dispatcher
from dicomnode.flow.rooms import Rooms
from dicomnode.flow.storing import identity_of, store_built
from dicomnode.pixels.pages import slice_to_show, subjects_of
from dicomnode.store.index import quality, replacing
from dicomnode.store.index.arrivals import StoredFile, record_derived
from dicomnode.store.schema import Instance, Job, QualityRow
from engines.tasks.image import STRENGTH

_BUILD_TIMEOUT_S: Final = 600.0
_OWN_NUMBER: Final = 9
"""Of the numbers that are kept free for one job, the last: its engines take the first ones."""


class Document(NamedTuple):
    """One report at rest, in a series of its own."""

    series_instance_uid: str
    file: StoredFile


class Reporter:
    """Makes the documents that rules ask for."""

    def __init__(self, rooms: Rooms, dispatcher: Dispatcher) -> None:
        self._rooms = rooms
        self._dispatcher = dispatcher

    def make(
        self,
        job: Job,
        instances: Sequence[Instance],
        said: Mapping[str, Any],
        made: Callable[[QualityRow], str],
        scratch: Path,
    ) -> list[Document]:
        """Build and store the reports on a job's stages.

        said  equipment, content_qualification and series (its number offset) of what we derive
        made  the folder of the output that was measured, "" of a phantom
        """
        if not job.content.get("reports") or not job.content["report_targets"]:
            return []
        with self._rooms.database.read() as session:
            rows = quality.reports_of_job(session, job.id)
            uids = {row.id: quality.series_uid(session, row) for row in rows}
        return [
            document
            for row in rows
            for document in self._documents(job, instances, said, (row, uids[row.id], made(row)), scratch)
        ]

    def record(self, session: Session, job: Job, documents: Sequence[Document], us: Sender) -> None:
        """Enter them in the index and the outbox, as objects that the whole stack influenced."""
        for document in documents:
            identity = identity_of(session, job.series_row, document.series_instance_uid)
            instances = record_derived(session, identity, [document.file], job.id, us)
            replacing.record_derivations(session, job, [(instances[0], job.instance_rows[0])], by_volume=True)
            self._dispatcher.dispatch(session, job, {"targets": job.content["report_targets"]}, instances)

    def _documents(
        self,
        job: Job,
        instances: Sequence[Instance],
        said: Mapping[str, Any],
        about: tuple[QualityRow, str, str],
        scratch: Path,
    ) -> list[Document]:
        row, series_uid, after = about
        out = scratch / f"report-{row.id}"
        out.mkdir()
        answer = self._rooms.pixels.call(
            "write_reports",
            _BUILD_TIMEOUT_S,
            sources=self._rooms.paths(instances),
            place=slice_to_show(row.report, len(instances)),
            after=after,
            report=_told(job, row, series_uid, said),
            forms=job.content["reports"],
            equipment=said["equipment"],
            content_qualification=said["content_qualification"],
            created_at=job.created_at,
            out=str(out),
        )
        stored = store_built(self._rooms, answer["instances"])
        return [
            Document(one["series_instance_uid"], file) for one, file in zip(answer["instances"], stored, strict=True)
        ]


def _told(job: Job, row: QualityRow, series_uid: str, said: Mapping[str, Any]) -> dict[str, Any]:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created_at))
    return {
        "heading": _heading(row),
        "subjects": subjects_of(series_uid, quality.lineage_of(row), when, _computed(row), passed=row.passed),
        "report": row.report,
        "figures": row.figures,
        "notes": [*quality.checks_of(job, row), *row.drifts],
        "unit": row.report.get("unit", ""),
        "identity": {
            "series": series_uid,
            "stack": row.stack_key,
            "sources": row.report.get("sources", ""),
            "engine": f"{row.engine} {row.card_digest} {row.runtime}",
            "settings": json.dumps(row.settings, sort_keys=True),
        },
        "number_offset": said["series"]["number_offset"] + _OWN_NUMBER,
    }


def _heading(row: QualityRow) -> str:
    """What was measured; presets of one engine are told apart in the description of the report's series."""
    strength = row.settings.get(STRENGTH)
    chosen = f" {STRENGTH} {strength:g}" if isinstance(strength, int | float) and strength != 1 else ""
    return f"{row.engine}{chosen}" if row.engine else "phantom"


def _computed(row: QualityRow) -> tuple[str, ...]:
    return (row.runtime, f"digest {row.card_digest}") if row.runtime else ()
