"""Recording instances: patient, study, series and instance rows, and the outbox rows that go with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from dicomnode.core.types import AssociationEnd, CompletenessPolicy, Sender
from dicomnode.store.schema import (
    Association,
    Instance,
    Origin,
    Outbox,
    OutboxState,
    Patient,
    Series,
    SeriesState,
    Study,
)

_ANY_VERSION: Final = select(Instance.id).where(Instance.sop_instance_uid == bindparam("uid")).limit(1)
_INSERT_INSTANCE: Final = insert(Instance)
_INSERT_OUTBOX: Final = insert(Outbox)
_INSTANCE_COLUMNS: Final = tuple(column.name for column in Instance.__table__.columns if column.name != "id")
_OUTBOX_COLUMNS: Final = tuple(column.name for column in Outbox.__table__.columns if column.name != "id")


@dataclass(frozen=True, slots=True)
class Identity:
    """Where an instance belongs, from its header; all but the UIDs may be empty."""

    patient_id: str
    issuer: str
    study_instance_uid: str
    accession_number: str
    series_instance_uid: str
    modality: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One instance at rest in the file store."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ForwardTo:
    """One destination an original goes to. `calling_ae` is resolved; `held` waits for the series to close."""

    destination: str
    rules: tuple[str, ...]
    calling_ae: str
    priority: int
    held: bool


@dataclass(frozen=True, slots=True)
class Arrival:
    """Everything recorded of one received instance.

    matched        whether any rule wanted to forward it
    rules_digest   of the rules that it was judged by
    kept_back      sentences: where the loop protection does not let it go
    round_trip_ok  a matching rule said `echo`: forward it though a destination sent it back to us
    destinations_of_peer  destinations that lead to the peer it came from
    """

    identity: Identity
    file: StoredFile
    sender: Sender
    association_id: int | None
    forward: tuple[ForwardTo, ...]
    matched: bool
    rules_digest: str
    kept_back: tuple[str, ...]
    round_trip_ok: bool
    destinations_of_peer: tuple[str, ...]
    derived_by_us: bool
    policy: CompletenessPolicy
    expected: int | None
    expected_source: str
    position_mm: float | None
    orientation: str | None


def record_arrival(session: Session, arrival: Arrival) -> None:
    """Insert the rows of one received instance.

    The very same bytes again change nothing, unless the rules have changed since: then they are judged anew.
    """
    versions = _versions(session, arrival.file.sop_instance_uid)
    same = next((version for version in versions if version.digest == arrival.file.digest), None)
    series = _series(session, arrival.identity, Origin.RECEIVED, arrival.sender.received_at)
    came_back = tuple(f"round trip: {name} sent it back" for name in _sent_to_sender(session, versions, arrival))
    if same is not None and (same.active or came_back):
        same.kept_back = list(dict.fromkeys((*same.kept_back, *came_back)))
        if same.active and not came_back and same.rules_digest != arrival.rules_digest:
            _judge_again(session, series, same, arrival)
        elif same.active and series.state == SeriesState.RECEIVING:
            _touch(series, arrival)
        return
    if came_back:
        session.add(_instance(series, replace(arrival, kept_back=came_back), active=False))
        return
    if versions:
        _deactivate(session, arrival.file.sop_instance_uid)
    _reopen(series, arrival)
    if same is not None:
        _restore(session, same, arrival)
        return
    _insert(session, _instance(series, arrival, active=True), arrival.forward)


def record_derived(
    session: Session, identity: Identity, files: list[StoredFile], job_row: int, sender: Sender
) -> list[Instance]:
    """Insert the rows of a derived series; an instance whose UID is known stays as it is (the first result wins).

    Returns the active instance of each file's UID, in order.
    """
    series = _series(session, identity, Origin.DERIVED, sender.received_at)
    series.job_row = series.job_row or job_row
    series.state = SeriesState.CLOSED
    series.due_at = None
    recorded = []
    for file in files:
        known = [version for version in _versions(session, file.sop_instance_uid) if version.active]
        if not known:
            known = [_new_instance(series, file, sender, Origin.DERIVED)]
            session.add(known[0])
            session.flush()
        recorded.append(known[0])
    series.last_at = sender.received_at
    return recorded


def stored_files(session: Session, sop_instance_uids: Collection[str]) -> dict[str, StoredFile]:
    """Those of the instances that are stored, by UID: the active version of each."""
    rows = select(Instance).where(Instance.sop_instance_uid.in_(sop_instance_uids), Instance.active)
    return {
        row.sop_instance_uid: StoredFile(
            row.sop_instance_uid, row.sop_class_uid, row.transfer_syntax_uid, row.digest, row.size_bytes
        )
        for row in session.scalars(rows)
    }


def open_association(session: Session, sender: Sender) -> int:
    """Record that a sender opened an association; its row id."""
    row = Association(
        peer=sender.peer,
        calling_ae=sender.calling_ae,
        called_ae=sender.called_ae,
        source_address=sender.source_address,
        opened_at=sender.received_at,
        ended_at=None,
        ended=None,
    )
    session.add(row)
    session.flush()
    return row.id


def end_association(session: Session, association_row: int, how: AssociationEnd, now: float) -> None:
    """Record the end; the series it carried are judged again once their shorter quiet time is over."""
    session.execute(update(Association).where(Association.id == association_row).values(ended_at=now, ended=how.value))
    carried = select(Instance.series_row).where(Instance.association_row == association_row).distinct()
    open_series = select(Series).where(Series.id.in_(carried), Series.state == SeriesState.RECEIVING)
    for series in session.scalars(open_series):
        soonest = max(now, series.last_at + min(series.released_quiet_s, series.quiet_s))
        series.due_at = soonest if series.due_at is None else min(series.due_at, soonest)


def lose_open_associations(session: Session, now: float) -> int:
    """Mark what was open when the receiver died as lost; how many."""
    lost = session.scalars(select(Association.id).where(Association.ended_at.is_(None))).all()
    for row in lost:
        end_association(session, row, AssociationEnd.LOST, now)
    return len(lost)


def _versions(session: Session, sop_instance_uid: str) -> list[Instance]:
    """Nearly always there is none: that is asked in the cheapest way."""
    if session.connection().execute(_ANY_VERSION, {"uid": sop_instance_uid}).first() is None:
        return []
    return list(session.scalars(select(Instance).where(Instance.sop_instance_uid == sop_instance_uid)))


def _insert(session: Session, instance: Instance, forward: Sequence[ForwardTo]) -> None:
    """Insert an instance with its outbox rows by plain statements: this runs for every instance received, and the
    unit of work would cost more than all the rest."""
    connection = session.connection()
    values = {name: getattr(instance, name) for name in _INSTANCE_COLUMNS}
    inserted = connection.execute(_INSERT_INSTANCE, values).inserted_primary_key
    assert inserted is not None  # one row was inserted
    instance.id = inserted[0]
    if forward:
        rows = [_outbox_row(instance, each) for each in forward]
        connection.execute(_INSERT_OUTBOX, [{name: getattr(row, name) for name in _OUTBOX_COLUMNS} for row in rows])


def _deactivate(session: Session, sop_instance_uid: str) -> None:
    session.execute(update(Instance).where(Instance.sop_instance_uid == sop_instance_uid).values(active=False))


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


def _patient(session: Session, identity: Identity) -> Patient:
    found = session.scalars(
        select(Patient).where(Patient.patient_id == identity.patient_id, Patient.issuer == identity.issuer)
    ).first()
    if found is None:
        found = Patient(patient_id=identity.patient_id, issuer=identity.issuer)
        session.add(found)
        session.flush()
    return found


def _study(session: Session, identity: Identity) -> Study:
    found = session.scalars(select(Study).where(Study.study_instance_uid == identity.study_instance_uid)).first()
    if found is None:
        found = Study(
            patient_row=_patient(session, identity).id,
            study_instance_uid=identity.study_instance_uid,
            accession_number=identity.accession_number,
        )
        session.add(found)
        session.flush()
    return found


def _series(session: Session, identity: Identity, origin: Origin, now: float) -> Series:
    found = session.scalars(
        select(Series)
        .join(Study, Study.id == Series.study_row)
        .where(
            Study.study_instance_uid == identity.study_instance_uid,
            Series.series_instance_uid == identity.series_instance_uid,
        )
    ).first()
    if found is None:
        none = CompletenessPolicy()
        found = Series(
            study_row=_study(session, identity).id,
            series_instance_uid=identity.series_instance_uid,
            modality=identity.modality,
            origin=origin.value,
            job_row=None,
            state=SeriesState.CLOSED.value,
            generation=0,
            expected=None,
            expected_source="",
            quiet_s=none.quiet_s,
            released_quiet_s=none.released_quiet_s,
            deadline_s=none.deadline_s,
            first_at=now,
            last_at=now,
            due_at=None,
            closed_at=None,
            verdict=None,
        )
        session.add(found)
        session.flush()
    return found


def _reopen(series: Series, arrival: Arrival) -> None:
    if series.state == SeriesState.CLOSED:
        series.quiet_s = arrival.policy.quiet_s
        series.released_quiet_s = arrival.policy.released_quiet_s
        series.deadline_s = arrival.policy.deadline_s
    series.state = SeriesState.RECEIVING.value
    _touch(series, arrival)


def _touch(series: Series, arrival: Arrival) -> None:
    """The series' due time moves with each instance; of several rules' limits the tightest holds."""
    series.quiet_s = min(series.quiet_s, arrival.policy.quiet_s)
    series.released_quiet_s = min(series.released_quiet_s, arrival.policy.released_quiet_s)
    series.deadline_s = min(series.deadline_s, arrival.policy.deadline_s)
    series.last_at = max(series.last_at, arrival.sender.received_at)
    series.due_at = series.last_at + min(series.quiet_s, series.released_quiet_s)
    if arrival.expected is not None:
        series.expected, series.expected_source = arrival.expected, arrival.expected_source


def _instance(series: Series, arrival: Arrival, active: bool) -> Instance:
    instance = _new_instance(series, arrival.file, arrival.sender, Origin.RECEIVED)
    instance.association_row = arrival.association_id
    instance.active = active
    instance.matched = arrival.matched
    instance.rules_digest = arrival.rules_digest
    instance.kept_back = list(arrival.kept_back)
    instance.derived_by_us = arrival.derived_by_us
    instance.position_mm = arrival.position_mm
    instance.orientation = arrival.orientation
    return instance


def _new_instance(series: Series, file: StoredFile, sender: Sender, origin: Origin) -> Instance:
    """A row for a file; what is left open is as for a derived one."""
    return Instance(
        series_row=series.id,
        association_row=None,
        sop_instance_uid=file.sop_instance_uid,
        sop_class_uid=file.sop_class_uid,
        transfer_syntax_uid=file.transfer_syntax_uid,
        digest=file.digest,
        size_bytes=file.size_bytes,
        origin=origin.value,
        peer=sender.peer,
        calling_ae=sender.calling_ae,
        called_ae=sender.called_ae,
        source_address=sender.source_address,
        received_at=sender.received_at,
        active=True,
        matched=True,
        rules_digest="",
        kept_back=[],
        derived_by_us=True,
        position_mm=None,
        orientation=None,
    )


def _judge_again(session: Session, series: Series, instance: Instance, arrival: Arrival) -> None:
    """Let other rules than before have their say: what they add is sent, and the series is closed and planned anew."""
    instance.rules_digest = arrival.rules_digest
    instance.matched = arrival.matched
    instance.kept_back = list(arrival.kept_back)
    instance.association_row = arrival.association_id
    known = set(session.scalars(select(Outbox.destination).where(Outbox.instance_row == instance.id)))
    session.add_all(_outbox_row(instance, each) for each in arrival.forward if each.destination not in known)
    _reopen(series, arrival)


def _restore(session: Session, instance: Instance, arrival: Arrival) -> None:
    """Make a version that another had replaced the newest again. It is sent again: destinations hold the other one."""
    instance.active = True
    instance.kept_back = list(arrival.kept_back)
    sent = {row.destination: row for row in session.scalars(select(Outbox).where(Outbox.instance_row == instance.id))}
    for forward in arrival.forward:
        row = sent.get(forward.destination)
        if row is None:
            session.add(_outbox_row(instance, forward))
        else:
            row.state, row.attempts, row.finished_at = _state_of(forward), 0, None
            row.created_at = row.next_attempt_at = arrival.sender.received_at


def _state_of(forward: ForwardTo) -> str:
    return (OutboxState.HELD if forward.held else OutboxState.READY).value


def _outbox_row(instance: Instance, forward: ForwardTo) -> Outbox:
    return Outbox(
        destination=forward.destination,
        instance_row=instance.id,
        origin=Origin.RECEIVED.value,
        rules=list(forward.rules),
        calling_ae=forward.calling_ae,
        priority=forward.priority,
        state=_state_of(forward),
        after_series=None,
        hold_until=None,
        attempts=0,
        next_attempt_at=instance.received_at,
        created_at=instance.received_at,
        finished_at=None,
    )
