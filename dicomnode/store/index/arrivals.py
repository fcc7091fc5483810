"""Recording instances: patient, study, series and instance rows, and the outbox rows that go with them.

What nobody has sent before is recorded by `dicomnode.store.index.recording`, what comes again by
`dicomnode.store.index.versions`; here is what both share, and our own derived ones.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.core.completeness import look_ahead_s, tightest
from dicomnode.core.types import CompletenessPolicy, OnDeadline, SameUidPolicy, Sender
from dicomnode.store.index.purges import file_is_gone, without_file
from dicomnode.store.schema import (
    Instance,
    Origin,
    OutboxState,
    Patient,
    Series,
    SeriesState,
    Study,
)

_EARLY_S: Final = 0.5

_TIMES: Final = attrgetter(
    "quiet_s", "released_quiet_s", "deadline_s", "quiet_min_s", "quiet_max_s", "longest_s", "on_deadline"
)
"""Of a policy, or of a series' row: how long it is waited for."""

KEY_OBJECT_SELECTION: Final = "1.2.840.10008.5.1.4.1.1.88.59"
"""Key Object Selection Document Storage."""


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
    """One instance at rest in the file store; `file` is its key there."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    file: str
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
    same_uid       what becomes of it where its UID is known, with other bytes
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
    same_uid: SameUidPolicy
    expected: int | None
    expected_source: str
    position_mm: float | None
    orientation: str | None


def record_derived(
    session: Session, identity: Identity, files: list[StoredFile], job_row: int, sender: Sender
) -> list[Instance]:
    """Insert the rows of a derived series; an instance whose UID is known stays as it is (the first result wins),
    unless retention has deleted its file.

    Returns the active instance of each file's UID, in order.
    """
    series = series_of(session, identity, Origin.DERIVED, sender.received_at)
    series.job_row = series.job_row or job_row
    series.state = SeriesState.CLOSED
    series.due_at = None
    uids = [file.sop_instance_uid for file in files]
    gone = without_file(session, uids)
    versions = _versions_of_each(session, uids)
    active: dict[str, Instance] = {}
    for uid, known in versions.items():
        for version in known:
            if version.active and version.id in gone:
                version.active = False
            elif version.active:
                active[uid] = version
    session.flush()  # two are never active at once
    for file in files:
        if file.sop_instance_uid not in active:
            number = next_version(versions.get(file.sop_instance_uid, ()))
            active[file.sop_instance_uid] = Instance(**_derived_values(series.id, file, sender, number))
            session.add(active[file.sop_instance_uid])
    session.flush()
    series.last_at = sender.received_at
    return [active[uid] for uid in uids]


def stored_files(session: Session, sop_instance_uids: Collection[str]) -> dict[str, StoredFile]:
    """Those of the instances that are stored, by UID: the active version of each."""
    rows = select(Instance).where(Instance.sop_instance_uid.in_(sop_instance_uids), Instance.active, ~file_is_gone())
    return {
        row.sop_instance_uid: StoredFile(
            row.sop_instance_uid, row.sop_class_uid, row.transfer_syntax_uid, row.file, row.size_bytes
        )
        for row in session.scalars(rows)
    }


def versions_of(session: Session, sop_instance_uid: str) -> list[Instance]:
    """All that came under a SOP Instance UID."""
    return list(session.scalars(select(Instance).where(Instance.sop_instance_uid == sop_instance_uid)))


def _versions_of_each(session: Session, sop_instance_uids: Collection[str]) -> dict[str, list[Instance]]:
    found: dict[str, list[Instance]] = {}
    for row in session.scalars(select(Instance).where(Instance.sop_instance_uid.in_(sop_instance_uids))):
        found.setdefault(row.sop_instance_uid, []).append(row)
    return found


def next_version(versions: Sequence[Instance]) -> int:
    """The number of one more."""
    return max((version.version for version in versions), default=-1) + 1


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


def series_of(session: Session, identity: Identity, origin: Origin, now: float) -> Series:
    """The series that an instance belongs to; made where there is none."""
    found = session.scalars(
        select(Series)
        .join(Study, Study.id == Series.study_row)
        .where(
            Study.study_instance_uid == identity.study_instance_uid,
            Series.series_instance_uid == identity.series_instance_uid,
        )
    ).first()
    if found is None:
        found = Series(**series_values(_study(session, identity).id, identity, origin, now))
        session.add(found)
        session.flush()
    return found


def series_values(study_row: int, identity: Identity, origin: Origin, now: float) -> dict[str, Any]:
    """A row for a series that has no instance yet."""
    none = CompletenessPolicy()
    return {
        "study_row": study_row,
        "series_instance_uid": identity.series_instance_uid,
        "modality": identity.modality,
        "origin": origin.value,
        "job_row": None,
        "state": SeriesState.CLOSED.value,
        "generation": 0,
        "planned_generation": 0,
        "expected": None,
        "expected_source": "",
        "quiet_s": none.quiet_s,
        "released_quiet_s": none.released_quiet_s,
        "deadline_s": none.deadline_s,
        "quiet_min_s": none.quiet_min_s,
        "quiet_max_s": none.quiet_max_s,
        "longest_s": none.longest_s,
        "on_deadline": none.on_deadline.value,
        "opened_at": now,
        "close_by": None,
        "first_at": now,
        "last_at": now,
        "due_at": None,
        "closed_at": None,
        "verdict": None,
    }


class SeriesWaiting(Protocol):
    """How a series is waited for: columns of its row."""

    @property
    def state(self) -> str: ...
    @property
    def quiet_s(self) -> float: ...
    @property
    def released_quiet_s(self) -> float: ...
    @property
    def deadline_s(self) -> float: ...
    @property
    def quiet_min_s(self) -> float: ...
    @property
    def quiet_max_s(self) -> float: ...
    @property
    def longest_s(self) -> float: ...
    @property
    def on_deadline(self) -> str: ...
    @property
    def opened_at(self) -> float: ...
    @property
    def last_at(self) -> float: ...
    @property
    def due_at(self) -> float | None: ...
    @property
    def expected(self) -> int | None: ...
    @property
    def expected_source(self) -> str: ...


def waiting(series: SeriesWaiting, arrival: Arrival) -> dict[str, Any]:
    """How a series is waited for after an arrival, which opens it if it was closed.

    Its due time moves with the instances; of several rules' limits the tightest holds.
    """
    policy, opened_at = arrival.policy, series.opened_at
    if series.state != SeriesState.RECEIVING:
        opened_at = arrival.sender.received_at
    elif _TIMES(series) != _TIMES(policy):  # rules differ: rare, and not cheap
        policy = tightest(waiting_policy(series), policy)
    last_at = max(series.last_at, arrival.sender.received_at)
    first_judged_at = _moved(series.due_at, last_at, look_ahead_s(policy.shortest_quiet_s))
    told = arrival.expected is not None
    return {
        **waiting_values(policy),
        "state": SeriesState.RECEIVING.value,
        "opened_at": opened_at,
        "last_at": last_at,
        "due_at": min(first_judged_at, opened_at + policy.longest_s),
        "expected": arrival.expected if told else series.expected,
        "expected_source": arrival.expected_source if told else series.expected_source,
    }


def waiting_policy(series: SeriesWaiting) -> CompletenessPolicy:
    """How long a series is waited for, by its row."""
    return CompletenessPolicy(
        quiet_s=series.quiet_s,
        released_quiet_s=series.released_quiet_s,
        deadline_s=series.deadline_s,
        quiet_min_s=series.quiet_min_s,
        quiet_max_s=series.quiet_max_s,
        longest_s=series.longest_s,
        on_deadline=OnDeadline(series.on_deadline),
    )


def waiting_values(policy: CompletenessPolicy) -> dict[str, Any]:
    """The columns that hold how long a series is waited for."""
    return {
        "quiet_s": policy.quiet_s,
        "released_quiet_s": policy.released_quiet_s,
        "deadline_s": policy.deadline_s,
        "quiet_min_s": policy.quiet_min_s,
        "quiet_max_s": policy.quiet_max_s,
        "longest_s": policy.longest_s,
        "on_deadline": policy.on_deadline.value,
    }


def _moved(due_at: float | None, last_at: float, quiet_s: float) -> float:
    """When a series is judged next. A time that is only a little too early stands, for an index is sorted by it: who
    judges then finds the silence too short, and waits for the rest."""
    exact = last_at + quiet_s
    if due_at is not None and 0 <= exact - due_at < min(_EARLY_S, quiet_s / 4):
        return due_at
    return exact


def update_series(series: Series, values: dict[str, Any]) -> None:
    """Write columns of a row."""
    for name, value in values.items():
        setattr(series, name, value)


def not_held(arrival: Arrival) -> Arrival:
    """The arrival of an instance for which its series is not opened again: nothing of it waits for that."""
    return replace(arrival, forward=tuple(replace(forward, held=False) for forward in arrival.forward))


def instance_values(series_row: int, arrival: Arrival, version: int, active: bool) -> dict[str, Any]:
    """The row of a received instance, without its id."""
    return {
        **_file_values(series_row, arrival.file, arrival.sender, version),
        "association_row": arrival.association_id,
        "origin": Origin.RECEIVED.value,
        "active": active,
        "matched": arrival.matched,
        "rules_digest": arrival.rules_digest,
        "kept_back": list(arrival.kept_back),
        "derived_by_us": arrival.derived_by_us,
        "position_mm": arrival.position_mm,
        "orientation": arrival.orientation,
    }


def _derived_values(series_row: int, file: StoredFile, sender: Sender, version: int) -> dict[str, Any]:
    return {
        **_file_values(series_row, file, sender, version),
        "association_row": None,
        "origin": Origin.DERIVED.value,
        "active": True,
        "matched": True,
        "rules_digest": "",
        "kept_back": [],
        "derived_by_us": True,
        "position_mm": None,
        "orientation": None,
    }


def _file_values(series_row: int, file: StoredFile, sender: Sender, version: int) -> dict[str, Any]:
    return {
        "series_row": series_row,
        "sop_instance_uid": file.sop_instance_uid,
        "sop_class_uid": file.sop_class_uid,
        "version": version,
        "transfer_syntax_uid": file.transfer_syntax_uid,
        "file": file.file,
        "size_bytes": file.size_bytes,
        "peer": sender.peer,
        "calling_ae": sender.calling_ae,
        "called_ae": sender.called_ae,
        "source_address": sender.source_address,
        "received_at": sender.received_at,
    }


def note_values(instance_row: int, arrival: Arrival) -> dict[str, Any] | None:
    """The row by which a Key Object Selection Document is read later: it may be a rejection note (IHE RAD IOCM).
    None for all else; for most arrivals this is one comparison."""
    if arrival.file.sop_class_uid != KEY_OBJECT_SELECTION:
        return None
    return {"instance_row": instance_row, "state": "unread", "title": "", "reason": "", "read_at": None}


def outbox_values(instance_row: int, arrival: Arrival) -> list[dict[str, Any]]:
    """The outbox rows of a received instance, without their ids."""
    return [
        {
            "destination": forward.destination,
            "instance_row": instance_row,
            "origin": Origin.RECEIVED.value,
            "rules": list(forward.rules),
            "calling_ae": forward.calling_ae,
            "priority": forward.priority,
            "state": (OutboxState.HELD if forward.held else OutboxState.READY).value,
            "reason": None,
            "after_series": None,
            "hold_until": None,
            "attempts": 0,
            "next_attempt_at": arrival.sender.received_at,
            "created_at": arrival.sender.received_at,
            "finished_at": None,
            "confirmed_at": None,
            "confirmed_by": None,
        }
        for forward in arrival.forward
    ]
