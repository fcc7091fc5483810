"""Instances that come after their series was closed: which they are, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.core.lateness import Lateness
from dicomnode.core.types import LatePolicy
from dicomnode.store.schema import Instance, Late


class ClosedBefore(Protocol):
    """Columns of a series' row. `generation`: how often it was closed."""

    @property
    def id(self) -> int: ...
    @property
    def generation(self) -> int: ...


def lateness(series: ClosedBefore, policy: LatePolicy) -> Lateness | None:
    """Of an instance that is new to a series; None where it is in time."""
    return Lateness(series.generation, policy) if series.generation else None


def lateness_again(
    session: Session, series: ClosedBefore, versions: Sequence[Instance], policy: LatePolicy
) -> Lateness | None:
    """Of a further version of an instance: that of the one before it in its series."""
    before = [version.id for version in versions if version.series_row == series.id]
    if not before:
        return lateness(series, policy)
    found = session.scalars(
        select(Late).where(Late.instance_row.in_(before)).order_by(Late.instance_row.desc())
    ).first()
    return None if found is None else Lateness(found.generation, LatePolicy(found.policy))


def late_values(instance_row: int, series_row: int, late: Lateness) -> dict[str, Any]:
    """The row of a late instance."""
    return {
        "instance_row": instance_row,
        "series_row": series_row,
        "generation": late.generation,
        "policy": late.policy.value,
    }


def late_instances(session: Session, series_row: int) -> dict[int, Lateness]:
    """The late instances of a series, by their row id."""
    rows = session.scalars(select(Late).where(Late.series_row == series_row).order_by(Late.instance_row))
    return {row.instance_row: Lateness(row.generation, LatePolicy(row.policy)) for row in rows}
