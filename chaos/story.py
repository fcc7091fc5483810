"""What happened, in order of time, and why each series took as long as it did: the nodes' events, the harness's own,
and the index, put together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from chaos.faults import EVERYWHERE, Kind
from chaos.scanner import Sending
from chaos.site import ARCHIVE, PACS
from dicomnode.testing.node import TO_PLAN

TOLD: Final = frozenset(
    {
        "node_started", "node_stopping", "node_stopped", "process_started", "process_ended", "process_waiting",
        "process_killed", "sign_of_life_failed", "thread_failed", "instance_refused", "association_refused",
        "series_closed", "series_routed", "plan_failed", "job_finished", "job_failed", "job_refused", "job_withheld",
        "series_derived", "delivery_failed", "delivery_refused", "destination_down", "destination_up",
        "config_rejected", "strays_set_aside",
        "work_resumed", "work_taken_over",
    }
)  # fmt: skip
"""Events of the nodes that the timeline shows; the rest stands in their logs."""

_AFTERMATH_S: Final = 60.0
"""How long after its end a fault may still be what is waited for: leases expire, processes start, retries come."""

_SYSTEM: Final = frozenset(
    {Kind.PROCESS_KILLED, Kind.MACHINE_KILLED, Kind.MACHINE_LOST, Kind.DATABASE_RESTARTED, Kind.DATABASE_CUT_OFF,
     Kind.DISK_FULL}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the timeline; `at` is seconds since the epoch, `who` a machine or the harness."""

    at: float
    who: str
    what: str
    fields: Mapping[str, Any]

    def line(self, zero: float) -> str:
        said = " ".join(f"{key}={value}" for key, value in self.fields.items())
        return f"{self.at - zero:8.2f} {self.who:<8} {self.what:<20} {said}".rstrip()


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault as it really was; `ended_at` is None where nothing mended it."""

    kind: Kind
    target: str
    began_at: float
    ended_at: float | None

    def line(self, zero: float) -> str:
        end = "for good" if self.ended_at is None else f"to {self.ended_at - zero:.1f} s"
        return f"{self.kind} ({self.target}) {self.began_at - zero:.1f} {end}"


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a series' way, from one time to another (seconds since the epoch).

    usual_s      what it takes where nothing goes wrong, on a machine that is busy with this run
    destination  the one it leads to; "" where there is none yet
    """

    name: str
    began_at: float
    ended_at: float
    usual_s: float
    destination: str = ""

    @property
    def seconds(self) -> float:
        return self.ended_at - self.began_at

    def causes(self, faults: Iterable[Happened]) -> list[Happened]:
        """What may have held it up: what was broken while it lasted; else what was broken shortly before."""
        meant = [each for each in faults if each.kind in _SYSTEM or each.target in (self.destination, EVERYWHERE)]
        return self._met(meant, 0.0) or self._met(meant, _AFTERMATH_S)

    def _met(self, faults: Iterable[Happened], aftermath_s: float) -> list[Happened]:
        return [
            fault
            for fault in faults
            if fault.began_at <= self.ended_at and (fault.ended_at or fault.began_at) + aftermath_s >= self.began_at
        ]


def moments(logs: Mapping[str, Path]) -> list[Moment]:
    """The events that nodes wrote, of those that the timeline shows. A line that a kill cut off is left out."""
    found = []
    for machine, path in logs.items():
        for line in path.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(entry, dict) and entry.get("event") in TOLD:
                at = datetime.fromisoformat(entry.pop("timestamp")).timestamp()
                what = entry.pop("event")
                found.append(Moment(at, machine, what, entry))
    return found


TIMES: Final = """
    SELECT source.series_instance_uid, outbox.destination, outbox.origin, max(source.closed_at), min(outbox.created_at),
           max(outbox.finished_at)
    FROM outbox JOIN instance ON instance.id = outbox.instance_row JOIN series ON series.id = instance.series_row
    LEFT JOIN job ON job.id = series.job_row
    JOIN series AS source ON source.id = coalesce(job.series_row, series.id)
    GROUP BY source.series_instance_uid, outbox.destination, outbox.origin
"""
"""Of each series: when it was closed last, and when its deliveries were made and done."""


TO_DO: Final = f"""
    SELECT 'series', id::text, state, '' FROM series WHERE {TO_PLAN}
    UNION ALL SELECT 'job', id::text, state, reasons::text FROM job WHERE state NOT IN ('derived', 'withheld')
    UNION ALL SELECT 'delivery', id::text, state, destination FROM outbox WHERE state IN ('held', 'ready', 'failed')
    UNION ALL SELECT 'workflow', workflow_uuid, status, executor_id FROM dbos.workflow_status WHERE status <> 'SUCCESS'
    UNION ALL SELECT 'process', executor_id, role, beat_at::text FROM process
"""
"""What is left, and who would have to do it: kind, identity, state, and more of it."""


def stages(sending: Sending, rows: Sequence[tuple[Any, ...]]) -> list[Stage]:
    """The way of one series; `rows` are those of TIMES. What never happened is left out."""
    of = {(row[1], row[2]): row[3:] for row in rows if row[0] == sending.series.uid}
    if sending.began_at is None or sending.acknowledged_at is None:
        return []
    found = [Stage("received", sending.began_at, sending.acknowledged_at, 3.0)]
    for destination in (PACS, ARCHIVE):
        _, made_at, done_at = of.get((destination, "received"), (None, None, None))
        if made_at is not None and done_at is not None:
            found.append(Stage(f"originals to {destination}", made_at, done_at, 4.0, destination))
    closed_at, made_at, _ = of.get((PACS, "derived"), (None, None, None))
    if closed_at is not None and made_at is not None:
        found.append(Stage("closed", sending.acknowledged_at, max(closed_at, sending.acknowledged_at), 9.0))
        found.append(Stage("derived", min(closed_at, made_at), made_at, 5.0))
    for destination in (PACS, ARCHIVE):
        _, made_at, done_at = of.get((destination, "derived"), (None, None, None))
        if made_at is not None and done_at is not None:
            found.append(Stage(f"derived to {destination}", made_at, done_at, 4.0, destination))
    return found


def explained(
    sendings: Iterable[Sending], rows: Sequence[tuple[Any, ...]], faults: Sequence[Happened], zero: float
) -> list[str]:
    """A line for each series, and one for each of its stages that took longer than usual, with what it waited for.

    zero  when the run began: times are seconds since then
    """
    lines = []
    for sending in sorted(sendings, key=lambda each: each.began_at or 0.0):
        way = stages(sending, rows)
        if not way:
            lines.append(f"{sending.series.uid}: never acknowledged")
            continue
        seconds = max(stage.ended_at for stage in way) - way[0].began_at
        slices, sent_s = len(sending.series.instances), way[0].began_at - zero
        lines.append(f"{sending.series.uid}: {slices} slices, sent at {sent_s:.1f} s, took {seconds:.1f} s")
        lines += [_delay(stage, faults, zero) for stage in way if stage.seconds > stage.usual_s]
    return lines


def unexplained(lines: Iterable[str]) -> int:
    """How many delays no fault accounts for."""
    return sum(line.endswith(_UNKNOWN) for line in lines)


_UNKNOWN: Final = "no fault: the machine was busy, or something is wrong"


def _delay(stage: Stage, faults: Sequence[Happened], zero: float) -> str:
    causes = stage.causes(faults)
    said = "; ".join(cause.line(zero) for cause in causes) if causes else _UNKNOWN
    return f"    {stage.name}: {stage.began_at - zero:.1f} to {stage.ended_at - zero:.1f} s <- {said}"
