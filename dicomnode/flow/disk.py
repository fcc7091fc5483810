"""Watching the disks: one event where a limit is crossed, and a sample now and then from which days are foretold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomnode.core.disk import Level, Marks, Sample, level
from dicomnode.flow.repeating import Repeating
from dicomnode.store.database import Database
from dicomnode.store.files import free_bytes
from dicomnode.store.index import disk as disk_index
from dicomnode.telemetry import event

_POLL_S: Final = 10.0
_SAMPLED_EVERY_S: Final = 3600.0
_HINTS: Final[Mapping[Level, str]] = {
    Level.AMPLE: "",
    Level.WARNING: "free space, or set [retention]; dicomnode status foretells how long it will do",
    Level.REFUSING: "C-STORE is answered with 0xA700 until space is free: delete something, or set [retention]",
}


@dataclass(frozen=True, slots=True)
class Watched:
    """A disk that is watched: what it is called, a folder on it, and its limits."""

    name: str
    folder: Path
    marks: Marks


class DiskWatch(Repeating):
    """Watches the disks of one machine. `watched` may be set anew."""

    def __init__(self, database: Database, machine: str, watched: tuple[Watched, ...]) -> None:
        super().__init__("disk", _POLL_S, self.look)
        self._database = database
        self._machine = machine
        self.watched = watched
        self._levels: dict[str, Level] = {}
        self._sampled_at: dict[str, float] = {}

    def look(self, now: float) -> None:
        """Look at every disk once."""
        for one in self.watched:
            free, total = free_bytes(one.folder)
            self._judge(one, Sample(now, free, total))

    def _judge(self, one: Watched, sample: Sample) -> None:
        former = self._levels.get(one.name)
        if former is None:
            with self._database.read() as session:
                former = disk_index.last_level(session, self._machine, one.name)
        found = level(former, sample, one.marks)
        self._levels[one.name] = found
        if found is not former:
            self._tell(one, found, sample)
        sampled_at = self._sampled_at.get(one.name)
        is_due = sampled_at is None or sample.at - sampled_at >= _SAMPLED_EVERY_S
        if found is not former or is_due:
            self._sampled_at[one.name] = sample.at
            with self._database.write() as session:
                disk_index.record_sample(session, (self._machine, one.name), sample, found)

    def _tell(self, one: Watched, found: Level, sample: Sample) -> None:
        what = "the stored files" if one.name == disk_index.FILES else "the index"
        event(
            "disk_changed",
            state=found.value,
            bytes=sample.free_bytes,
            reason=f"space for {what}: {sample.free_bytes // 1_000_000} MB are free",
            hint=_HINTS[found],
        )
