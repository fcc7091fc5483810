"""Ends of associations: evidence that what they carried has arrived."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import Double, bindparam, case, exists, select, update
from sqlalchemy.orm import Session

from dicomnode.core.completeness import LOOK_AHEAD_S
from dicomnode.core.types import AssociationEnd
from dicomnode.store.schema import Association, Instance, Series, SeriesState

END_ASSOCIATION: Final = (
    update(Association)
    .where(Association.id == bindparam("association"))
    .values(ended_at=bindparam("now"), ended=bindparam("how"))
)

_SHORTEST_QUIET_S: Final = case(
    (Series.released_quiet_s < Series.quiet_s, Series.released_quiet_s), else_=Series.quiet_s
)
_LOOK_AHEAD_S: Final = case((_SHORTEST_QUIET_S < LOOK_AHEAD_S, _SHORTEST_QUIET_S), else_=LOOK_AHEAD_S)
_NOW: Final = bindparam("now", type_=Double)
_SOONEST: Final = case((Series.last_at + _LOOK_AHEAD_S > _NOW, Series.last_at + _LOOK_AHEAD_S), else_=_NOW)
DUE_SOONER: Final = (
    update(Series)
    .where(
        Series.state == SeriesState.RECEIVING.value,
        Series.last_at
        >= select(Association.opened_at).where(Association.id == bindparam("association")).scalar_subquery(),
        exists().where(Instance.series_row == Series.id, Instance.association_row == bindparam("association")),
    )
    .values(due_at=case((Series.due_at < _SOONEST, Series.due_at), else_=_SOONEST))
)
"""The series that an association carried are judged again as soon as a learned quiet time may be over. Few have had an
instance since it began: they are looked through, and no index by association has to be kept for every instance."""


def with_open_associations(session: Session, owners: Collection[str]) -> frozenset[str]:
    """Those of the receivers that have associations open, as far as the index knows."""
    rows = select(Association.owner).where(Association.ended_at.is_(None), Association.owner.in_(owners))
    return frozenset(session.scalars(rows))


def lose_open_associations(session: Session, owner: str, now: float) -> int:
    """Mark what was open when a receiver died as lost; how many."""
    rows = select(Association.id).where(Association.ended_at.is_(None), Association.owner == owner)
    lost = session.scalars(rows).all()
    connection = session.connection()
    for row in lost:
        connection.execute(END_ASSOCIATION, {"association": row, "now": now, "how": AssociationEnd.LOST.value})
        connection.execute(DUE_SOONER, {"association": row, "now": now})
    return len(lost)
