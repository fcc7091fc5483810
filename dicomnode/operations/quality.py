"""`dicomnode quality show`: what engines did to the images of a series, in figures; as a table, pages and a file.

Nothing here holds patient data: series are named by their UIDs.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.core.figures import FIGURES, shown
from dicomnode.core.scanners import Lineage
from dicomnode.errors import NotFoundError
from dicomnode.operations.index import reading
from dicomnode.operations.quality_pages import shown_slice
from dicomnode.operations.terminal import printable_lines
from dicomnode.pixels.pages import Told, page_of, subjects_of
from dicomnode.pixels.read import quiet_pydicom
from dicomnode.pixels.sheet import draw, png
from dicomnode.store.index import overview
from dicomnode.store.index import quality as index
from dicomnode.store.schema import Job, QualityRow, Series

_COLUMNS = (
    "series", "stack", "job", "stage", "output", "kind", "engine", "preset", "runtime", "peer", "device", "protocol",
    "at", "passed", *FIGURES,
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One stored report. `figures` are by the names of `dicomnode.core.figures`; `at` is seconds since the epoch."""

    series: str
    stack: str
    job: int
    stage: int
    output: str
    kind: str
    engine: str
    runtime: str
    settings: dict[str, Any]
    peer: str
    device: str
    protocol: str
    preset: str
    at: float
    passed: bool
    reasons: tuple[str, ...]
    drifts: tuple[str, ...]
    figures: dict[str, float]

    @property
    def heading(self) -> str:
        return {"constancy": "phantom"}.get(self.kind, self.engine) + (" (tried out)" if self.kind == "shadow" else "")

    @property
    def subjects(self) -> tuple[str, ...]:
        """What was measured, and when."""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.at))
        lineage = Lineage(self.peer, self.device, self.protocol, self.engine, self.preset)
        computed = (self.runtime, f"job {self.job}")
        return subjects_of(self.series, lineage, when, computed, passed=self.passed)

    def lines(self) -> Sequence[str]:
        return (
            self.heading,
            *(f"  {line}" for line in (*self.subjects, *self.reasons, *self.drifts)),
            *(f"  {shown(name, value)}" for name, value in self.figures.items()),
        )


@dataclass(frozen=True)
class Measurements:
    """The reports on the series that a subject names, and the files that were written of them."""

    subject: str
    reports: tuple[Measurement, ...]
    written: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        return printable_lines(
            (*(line for report in self.reports for line in report.lines()), *(f"wrote {path}" for path in self.written))
        )


def show_quality(config: Config, subject: str, pages: Path | None = None, table: Path | None = None) -> Measurements:
    """The reports on a study, series or instance (a UID), or an accession number.

    pages  folder for one PNG each; made where it is missing       table  file for all of them as CSV

    Raises NotFoundError where nothing was measured.
    """
    quiet_pydicom()
    written: list[str] = []
    with reading(config) as session:
        rows = _rows_about(session, subject)
        reports = tuple(measurement(session, row) for row in rows)
        if not reports:
            raise NotFoundError("nothing was measured of that", "see what became of it: dicomnode why UID")
        if pages is not None:
            pages.mkdir(parents=True, exist_ok=True)
            pairs = zip(rows, reports, strict=True)
            written += [str(_write_page(config, session, pages, row, report)) for row, report in pairs]
    if table is not None:
        write_table(table, reports)
        written.append(str(table))
    return Measurements(subject, reports, tuple(written))


def measurement(session: Session, row: QualityRow) -> Measurement:
    """A stored report, as it is shown."""
    return Measurement(
        series=index.series_uid(session, row),
        stack=row.stack_key,
        job=row.job_row,
        stage=row.stage,
        output=row.output,
        kind=row.kind,
        engine=row.engine,
        runtime=row.runtime,
        settings=row.settings,
        peer=row.peer,
        device=row.device,
        protocol=row.protocol,
        preset=row.preset,
        at=row.at,
        passed=row.passed,
        reasons=tuple(row.reasons),
        drifts=tuple(row.drifts),
        figures=row.figures,
    )


def told_of(job: Job, row: QualityRow, report: Measurement) -> Told:
    """What is written on the page of a report."""
    notes = (*index.checks_of(job, row), *report.drifts)
    return Told(report.heading, report.subjects, row.report, row.figures, notes)


def write_table(path: Path, reports: Sequence[Measurement]) -> None:
    """One line for each report, one column for each figure; what was not measured is empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for report in reports:
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(report.at))
            writer.writerow({**asdict(report), **report.figures, "at": at})


def _rows_about(session: Session, subject: str) -> list[QualityRow]:
    """Reports on received series; of a derived one, those of the job that made it."""
    found: dict[int, QualityRow] = {}
    for series in overview.series_about(session, subject):
        for row in _rows_of(session, series):
            found[row.id] = row
    return list(found.values())


def _rows_of(session: Session, series: Series) -> list[QualityRow]:
    if series.job_row is not None:
        return index.reports_of_job(session, series.job_row)
    return index.reports_of_series(session, series.id)


def _write_page(config: Config, session: Session, folder: Path, row: QualityRow, report: Measurement) -> Path:
    job = overview.job_of(session, row.job_row)
    path = folder / f"quality-{row.id}.png"
    path.write_bytes(png(draw(page_of(told_of(job, row, report), shown_slice(config, session, job, row)))))
    return path
