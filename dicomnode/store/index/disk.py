"""How full disks were: sampled now and then, kept for a while."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from dicomnode.core.disk import Level, Sample
from dicomnode.store.schema import DiskUse

FILES: Final = "files"
INDEX: Final = "index"

_KEPT_S: Final = 90 * 86400.0


def record_sample(session: Session, place: tuple[str, str], sample: Sample, level: Level) -> None:
    """Store a sample of a disk of a machine, and forget what is old."""
    machine, disk = place
    session.merge(
        DiskUse(
            machine=machine,
            disk=disk,
            at=sample.at,
            free_bytes=sample.free_bytes,
            total_bytes=sample.total_bytes,
            level=level.value,
        )
    )
    session.execute(delete(DiskUse).where(DiskUse.machine == machine, DiskUse.at < sample.at - _KEPT_S))


def samples(session: Session, machine: str, disk: str) -> list[Sample]:
    """What is known of a disk of a machine, in order of time."""
    rows = select(DiskUse).where(DiskUse.machine == machine, DiskUse.disk == disk).order_by(DiskUse.at)
    return [Sample(row.at, row.free_bytes, row.total_bytes) for row in session.scalars(rows)]


def last_level(session: Session, machine: str, disk: str) -> Level:
    """What its level was last; ample where nothing is known of it."""
    rows = select(DiskUse.level).where(DiskUse.machine == machine, DiskUse.disk == disk)
    found = session.scalar(rows.order_by(DiskUse.at.desc()).limit(1))
    return Level.AMPLE if found is None else Level(found)
