"""Recording instances whose SOP Instance UID is known: the very same bytes again, other bytes, or one sent back.

All bytes that ever came under a UID are kept, each as a version; one of them is active. Which one that is where other
bytes come is the sender's policy (`SameUidPolicy`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from enum import StrEnum

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dicomnode.core.types import SameUidPolicy
from dicomnode.store.index.arrivals import (
    Arrival,
    instance_values,
    next_version,
    not_held,
    note_values,
    outbox_values,
    series_of,
    update_series,
    versions_of,
    waiting,
)
from dicomnode.store.index.lateness import late_values, lateness_again
from dicomnode.store.index.purges import file_is_gone, without_file
from dicomnode.store.index.replacing import cancel_unsent
from dicomnode.store.schema import Instance, Late, Origin, Outbox, OutboxState, Rejection, Series, SeriesState


class Again(StrEnum):
    """What became of an instance that came again.

    SAME: the very same bytes. RETURNED: a destination sent it back. NEWEST: it replaces the version before it.
    BESIDE: it is kept, and the version before it stays active.
    """

    SAME = "same"
    RETURNED = "returned"
    NEWEST = "newest"
    BESIDE = "beside"


def of_the_same_size(session: Session, arrival: Arrival) -> list[str]:
    """Files of the versions of an instance that may be the very same bytes."""
    rows = select(Instance.file).where(
        Instance.sop_instance_uid == arrival.file.sop_instance_uid,
        Instance.size_bytes == arrival.file.size_bytes,
        ~file_is_gone(),
    )
    return list(session.scalars(rows))


def record_again(session: Session, arrival: Arrival, same_file: str | None) -> Again:
    """Record an instance whose UID is known. `same_file` holds the very same bytes, if any does.

    The very same bytes again change nothing, unless the rules have changed since: then they are judged anew.
    """
    versions = versions_of(session, arrival.file.sop_instance_uid)
    same = next((version for version in versions if version.file == same_file), None)
    series = series_of(session, arrival.identity, Origin.RECEIVED, arrival.sender.received_at)
    came_back = tuple(f"round trip: {name} sent it back" for name in _sent_to_sender(session, versions, arrival))
    if same is not None and (same.active or came_back):
        same.kept_back = list(dict.fromkeys((*same.kept_back, *came_back)))
        if same.active and not came_back and same.rules_digest != arrival.rules_digest:
            _judge_again(session, series, same, arrival)
        elif same.active and series.state == SeriesState.RECEIVING:
            update_series(series, waiting(series, arrival))
        return Again.SAME
    gone = without_file(session, [arrival.file.sop_instance_uid])
    beside = came_back or _stays_beside(versions, arrival, gone)
    if not beside:
        _replace(session, (series, versions), same, arrival)
        return Again.NEWEST
    if same is None:
        arrival = replace(arrival, kept_back=beside)
        session.add(Instance(**instance_values(series.id, arrival, next_version(versions), active=False)))
    return Again.RETURNED if came_back else Again.BESIDE


def _stays_beside(versions: Sequence[Instance], arrival: Arrival, gone: Collection[int]) -> tuple[str, ...]:
    """Why the version that is active stays so; nothing where this one takes its place. Where retention has deleted
    its file it does: nothing is left that could be compared."""
    if any(version.active and version.id in gone for version in versions):
        return ()
    first = min(versions, key=lambda version: version.version)
    if arrival.same_uid is SameUidPolicy.FIRST:
        return ('other bytes under a known SOP Instance UID: the first version counts (same_uid = "first")',)
    if arrival.same_uid is SameUidPolicy.SAME_SENDER and not _is_sender_of(first, arrival):
        return ('other bytes under the SOP Instance UID of another sender (same_uid = "same-sender")',)
    return ()


def _is_sender_of(first: Instance, arrival: Arrival) -> bool:
    """Whether the two have one sender: a configured peer or, where it is none, an AE title at one address."""
    sender = arrival.sender
    if first.peer or sender.peer:
        return first.peer == sender.peer
    return (first.calling_ae, first.source_address) == (sender.calling_ae, sender.source_address)


def _replace(
    session: Session, place: tuple[Series, Sequence[Instance]], same: Instance | None, arrival: Arrival
) -> None:
    """Make an instance the active version of its UID: a new one, or one that another had replaced."""
    series, versions = place
    late = lateness_again(session, series, versions, arrival.policy.late)
    session.execute(
        update(Instance).where(Instance.sop_instance_uid == arrival.file.sop_instance_uid).values(active=False)
    )
    # else both might go out at once over several associations, and arrive in any order
    replaced = [version.id for version in versions]
    cancel_unsent(session, replaced, "a newer version takes its place", arrival.sender.received_at)
    if late is not None and late.is_ignored:
        arrival = not_held(arrival)
    else:
        update_series(series, waiting(series, arrival))
    if same is not None:
        _restore(session, same, arrival)
        return
    instance = Instance(**instance_values(series.id, arrival, next_version(versions), active=True))
    session.add(instance)
    session.flush()
    session.add_all(Outbox(**values) for values in outbox_values(instance.id, arrival))
    if late is not None:
        session.add(Late(**late_values(instance.id, series.id, late)))
    if (note := note_values(instance.id, arrival)) is not None:
        session.add(Rejection(**note))


def _sent_to_sender(session: Session, versions: list[Instance], arrival: Arrival) -> Sequence[str]:
    """The destinations by which the instance's sender had it from us, in these or other bytes: it sends it back."""
    if arrival.round_trip_ok or not versions or not arrival.destinations_of_peer:
        return ()
    sent = select(Outbox.destination).where(
        Outbox.instance_row.in_([version.id for version in versions]),
        Outbox.destination.in_(arrival.destinations_of_peer),
        Outbox.state == OutboxState.SENT,
    )
    return session.scalars(sent.distinct().order_by(Outbox.destination)).all()


def _judge_again(session: Session, series: Series, instance: Instance, arrival: Arrival) -> None:
    """Let other rules than before have their say: what they add is sent, and the series is closed and planned anew."""
    instance.rules_digest = arrival.rules_digest
    instance.matched = arrival.matched
    instance.kept_back = list(arrival.kept_back)
    instance.association_row = arrival.association_id
    known = set(session.scalars(select(Outbox.destination).where(Outbox.instance_row == instance.id)))
    session.add_all(
        Outbox(**values) for values in outbox_values(instance.id, arrival) if values["destination"] not in known
    )
    update_series(series, waiting(series, arrival))


def _restore(session: Session, instance: Instance, arrival: Arrival) -> None:
    """Make a version that another had replaced the newest again. It is sent again: destinations hold the other one."""
    instance.active = True
    instance.kept_back = list(arrival.kept_back)
    sent = {row.destination: row for row in session.scalars(select(Outbox).where(Outbox.instance_row == instance.id))}
    for values in outbox_values(instance.id, arrival):
        row = sent.get(values["destination"])
        if row is None:
            session.add(Outbox(**values))
        else:
            row.state, row.reason, row.attempts, row.finished_at = values["state"], None, 0, None
            row.confirmed_at = row.confirmed_by = None
            row.created_at = row.next_attempt_at = arrival.sender.received_at
