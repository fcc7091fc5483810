"""Measuring: what the gates after engines measured, and what phantoms are like, into the index and its trends."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy.orm import Session

from dicomnode.core.figures import figures_of
from dicomnode.core.scanners import SCANNER_KEYWORDS, Lineage, device_of, preset_of, protocol_of
from dicomnode.core.types import Header
from dicomnode.flow.rooms import Rooms
from dicomnode.flow.taking import Digests
from dicomnode.store.index import jobs as job_index
from dicomnode.store.index import quality
from dicomnode.store.index.quality import Measured
from dicomnode.store.schema import Instance, Job
from dicomnode.telemetry import event
from engines.quality.constancy import limits_of

_DECODE_TIMEOUT_S: Final = 1800.0
_MEASURE_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True)
class PhantomSeen:
    """What was measured of a phantom, or why nothing could be."""

    measured: Measured | None
    refused: tuple[str, ...] = ()


class Measurer:
    """Keeps the figures of jobs."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def of_engines(self, job: Job, report: Mapping[str, Any]) -> list[Measured]:
        """What the gates after a job's engines measured; nothing of an output that cannot be compared."""
        measured = [
            (index, stage, name)
            for index, stage in enumerate(report["stages"])
            for name, output in stage.get("outputs", {}).items()
            if output["quality"]
        ]
        if not measured:
            return []
        scanner = self._scanner(job)
        sources = _digest_of(Digests(report.get("digests", []), report.get("others", {})).told)
        return [_of_output(job, one, scanner, sources) for one in measured]

    def of_phantom(self, job: Job, instances: Sequence[Instance]) -> PhantomSeen:
        """Decode and measure a phantom's stack."""
        with self._rooms.results.scratch() as scratch:
            folder = scratch / "volume"
            folder.mkdir()
            paths = self._rooms.paths(instances)
            decoded = self._rooms.pixels.call("decode_stack", _DECODE_TIMEOUT_S, paths=paths, out=str(folder))
            answer = self._rooms.pixels.call("measure_phantom", _MEASURE_TIMEOUT_S, volume=str(folder))
        if "refused" in answer:
            return PhantomSeen(None, tuple(one for one in answer["refused"] if one))
        report = {**answer["report"], "unit": "HU", "sources": _digest_of(decoded["digests"])}
        figures = figures_of(report)
        told = limits_of(figures)
        return PhantomSeen(Measured(0, "constancy", self._scanner(job), not told, told, report, figures))

    def record(self, session: Session, job: Job, measured: Sequence[Measured]) -> list[str]:
        """Store them, in the transaction that says how the job ended; what has begun to drift, for `tell_drifts`."""
        told = []
        for one in measured:
            known = quality.was_drifting(session, one.lineage)
            row = quality.record(session, job, one, time.time())
            if row.drifts and not known:
                told.append(f"{one.lineage.key}: {'; '.join(row.drifts)}")
        return told

    def _scanner(self, job: Job) -> Lineage:
        """The scanner and protocol of a job's series; its engine is still to be said."""
        with self._rooms.database.read() as session:
            first = job_index.job_instances(session, job)[0]
        (read,) = self._rooms.headers(self._rooms.paths([first]), SCANNER_KEYWORDS)
        header: Header = {keyword: tuple(values) for keyword, values in read.get("header", {}).items()}
        return Lineage(first.peer, device_of(header), protocol_of(header), "")


def tell_drifts(job: Job, told: Sequence[str]) -> None:
    """Say what has begun to drift, once what shows it is stored."""
    for reason in told:
        event("quality_drift", job_id=job.id, series_id=job.series_row, reason=reason, hint="dicomnode quality trends")


def tell_phantom(job: Job, seen: PhantomSeen) -> None:
    """Say which figures of a phantom are out of their limits."""
    if seen.measured is not None and not seen.measured.passed:
        reason = "; ".join(seen.measured.reasons)
        hint = "dicomnode quality show; calibrate the scanner, or scan the phantom again"
        event("phantom_out_of_limits", job_id=job.id, series_id=job.series_row, reason=reason, hint=hint)


def is_constancy(job: Job) -> bool:
    """Whether a job measures a phantom, and runs no engine."""
    return bool(job.content.get("kind") == "constancy")


def _of_output(job: Job, one: tuple[int, Mapping[str, Any], str], scanner: Lineage, sources: str) -> Measured:
    index, stage, name = one
    output = stage["outputs"][name]
    gate = output["after"] or {"passed": True, "findings": []}
    report = {**output["quality"], "unit": output["unit"], "sources": sources}
    beside = "" if name == stage["output"] else f":{name}"
    engine = f"{stage['engine']}@{stage['version']}{beside}"
    return Measured(
        stage=index,
        output=name,
        kind="shadow" if job.content.get("kind") == "shadow" else "job",
        lineage=replace(scanner, engine=engine, preset=preset_of(stage["settings"])),
        passed=bool(gate["passed"]),
        reasons=tuple(one["sentence"] for one in gate["findings"] if not one["passed"]),
        report=report,
        figures=figures_of(report),
        card_digest=stage["card_digest"],
        runtime=stage["runtime"],
        settings=stage["settings"],
        seconds=float(stage["seconds"]),
    )


def _digest_of(digests: Sequence[str]) -> str:
    """One digest of all source slices."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
