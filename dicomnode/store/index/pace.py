"""What is learned of senders' pauses: read when a series is judged, and added to when it closes.

It is learned from the rows that are there anyway (when each instance came, by which association): receivers do nothing
for it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dicomnode.core.quiet import Carried, Pace, Pause, Silence, longest_pauses, pauses, silence_of
from dicomnode.core.types import AssociationEnd, CompletenessPolicy, LatePolicy, Sender
from dicomnode.store.schema import Association, Instance, Late, Origin, PaceRow, Series

_LEAST_S: Final = 0.5
"""Shorter silences are not looked at: no series is judged so soon."""

_MOST_LATE: Final = 100


def sender_key(sender: Sender) -> str:
    """By what a sender is known again: its name, or the AE title and address of a caller without one."""
    return sender.peer or f"{sender.calling_ae}@{sender.source_address}"


def last_sender(session: Session, series_row: int) -> Sender | None:
    """Who sent the last instance of a series; None where nobody did."""
    newest = select(func.max(Instance.id)).where(
        Instance.series_row == series_row, Instance.origin == Origin.RECEIVED.value
    )
    row = session.scalars(select(Instance).where(Instance.id == newest.scalar_subquery())).first()
    if row is None:
        return None
    return Sender(row.peer, row.calling_ae, row.called_ae, row.source_address, row.received_at)


def pace_of(session: Session, sender: Sender) -> Pace:
    row = session.get(PaceRow, sender_key(sender))
    return Pace() if row is None else Pace.from_json(row.content)


def carriers(session: Session, series_row: int) -> dict[int, Carried]:
    """The associations that carried a series, by row."""
    carrying = select(Instance.association_row).where(Instance.series_row == series_row).distinct()
    rows = session.execute(
        select(Association.id, Association.opened_at, Association.ended_at, Association.ended).where(
            Association.id.in_(carrying)
        )
    )
    return {
        row: Carried(opened_at, ended_at, None if ended is None else AssociationEnd(ended))
        for row, opened_at, ended_at, ended in rows
    }


def learn(session: Session, series: Series, policy: CompletenessPolicy, now: float) -> None:
    """Add what a series that was just closed teaches to its sender's pace; nothing where nothing is to be learned.

    series  as it was judged: its `closed_at` tells until when it was learned from before

    A series that was closed too early teaches it too: the pause before what came after counts like any other. Where
    late instances are ignored (`late = "ignore"`) they close nothing again, and are learned with the next series.
    """
    sender = last_sender(session, series.id)
    if sender is None or not policy.longest_quiet_s:
        return
    newest = session.scalar(select(func.max(Instance.id))) or 0
    row = session.get(PaceRow, sender_key(sender))
    if row is None:
        row = PaceRow(sender=sender_key(sender), content={}, learned_to=newest, updated_at=now)
        session.add(row)
    pace = Pace.from_json(row.content)
    for one in (series, *_ignored_since(session, sender, row.learned_to, series.id)):
        pace = pace.learned(_longest_pauses(session, one, sender, policy.longest_quiet_s))
    row.content = pace.to_json()
    row.learned_to, row.updated_at = newest, now


def _longest_pauses(session: Session, series: Series, sender: Sender, most_s: float) -> dict[Silence, float]:
    """What a series teaches, of what came after its last closing."""
    known = carriers(session, series.id)
    arrivals = [(at, known.get(row) if row is not None else None) for at, row in _arrivals(session, series.id)]
    taught_until = max((at for at, _ in arrivals if series.closed_at is not None and at <= series.closed_at), default=0)
    found = [(began, pause) for began, pause in pauses(arrivals, _LEAST_S) if began >= taught_until]
    others = _sent_beside(session, series, sender, min([series.last_at, *(began for began, _ in found)]))
    return longest_pauses(
        [_with_moved_on(began, pause, others) for began, pause in found],
        silence_of(known.values()),
        moved_on=_between(others, series.last_at, math.inf),
        most_s=most_s,
    )


def _ignored_since(session: Session, sender: Sender, instance_row: int, but: int) -> list[Series]:
    """Other series of the sender to which something came late after an instance, and was ignored; not too many."""
    newest = (
        select(Instance.series_row)
        .join(Late, Late.instance_row == Instance.id)
        .where(
            Late.instance_row > instance_row,
            Late.policy == LatePolicy.IGNORE.value,
            Instance.peer == sender.peer,
            Instance.calling_ae == sender.calling_ae,
            Instance.source_address == sender.source_address,
        )
        .order_by(Late.instance_row.desc())
        .limit(_MOST_LATE)
    )
    rows = sorted({row for row in session.scalars(newest) if row != but})
    return list(session.scalars(select(Series).where(Series.id.in_(rows)).order_by(Series.id)))


def moved_on(session: Session, series: Series, sender: Sender) -> bool:
    """Whether the sender has sent another series of the study since the last instance of this one."""
    return bool(_sent_beside(session, series, sender, series.last_at))


def _arrivals(session: Session, series_row: int) -> Sequence[tuple[float, int | None]]:
    """When each instance came first: one that is sent again with other bytes is corrected, and tells of no pause."""
    rows = select(Instance.received_at, Instance.association_row).where(
        Instance.series_row == series_row, Instance.origin == Origin.RECEIVED.value, Instance.version == 0
    )
    return [(at, row) for at, row in session.execute(rows.order_by(Instance.received_at, Instance.id))]


def _sent_beside(session: Session, series: Series, sender: Sender, after: float) -> list[float]:
    """When the sender sent instances of other series of the study after a time, in order."""
    beside = select(Series.id).where(
        Series.study_row == series.study_row, Series.id != series.id, Series.last_at > after
    )
    rows = select(Instance.received_at).where(
        Instance.series_row.in_(beside),
        Instance.received_at > after,
        Instance.origin == Origin.RECEIVED.value,
        Instance.peer == sender.peer,
        Instance.calling_ae == sender.calling_ae,
        Instance.source_address == sender.source_address,
    )
    return list(session.scalars(rows.order_by(Instance.received_at)))


def _with_moved_on(began: float, pause: Pause, others: Sequence[float]) -> Pause:
    return pause.with_moved_on(_between(others, began, began + pause.seconds))


def _between(times: Sequence[float], after: float, before: float) -> bool:
    return bisect_left(times, before) > bisect_right(times, after)
