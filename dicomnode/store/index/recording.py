"""Recording what nobody has sent before: this runs for every instance received."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from sqlalchemy import Dialect, bindparam, insert, select, update
from sqlalchemy.engine.interfaces import DBAPICursor

from dicomnode.core.types import AssociationEnd, Sender
from dicomnode.store.index.arrivals import (
    Arrival,
    Identity,
    instance_values,
    not_held,
    note_values,
    outbox_values,
    series_values,
    waiting,
)
from dicomnode.store.index.associations import DUE_SOONER, END_ASSOCIATION
from dicomnode.store.index.lateness import late_values, lateness
from dicomnode.store.index.statements import Prepared
from dicomnode.store.schema import Association, Base, Instance, Late, Origin, Outbox, Patient, Rejection, Series, Study

_WAITING: Final = (
    "state", "quiet_s", "released_quiet_s", "deadline_s", "quiet_min_s", "quiet_max_s", "longest_s", "on_deadline",
    "opened_at", "last_at", "due_at", "expected", "expected_source",
)  # fmt: skip


class _SeriesRow(NamedTuple):
    id: int
    generation: int
    state: str
    quiet_s: float
    released_quiet_s: float
    deadline_s: float
    quiet_min_s: float
    quiet_max_s: float
    longest_s: float
    on_deadline: str
    opened_at: float
    last_at: float
    due_at: float | None
    expected: int | None
    expected_source: str


class Recorder:
    """Writes the rows of arrivals through the cursor of a transaction that is open already (`Database.statements`)."""

    def __init__(self, dialect: Dialect, owner: str) -> None:
        self._owner = owner
        self._any_version = Prepared(
            select(Instance.id).where(Instance.sop_instance_uid == bindparam("uid")).limit(1), dialect
        )
        self._association = Prepared(select(Association.id).where(Association.id == bindparam("row")), dialect)
        self._series = Prepared(_SERIES, dialect)
        self._wait = Prepared(
            update(Series)
            .where(Series.id == bindparam("row"))
            .values({getattr(Series, name): bindparam(name) for name in _WAITING}),
            dialect,
        )
        self._study = Prepared(select(Study.id).where(Study.study_instance_uid == bindparam("uid")), dialect)
        self._patient = Prepared(
            select(Patient.id).where(
                Patient.patient_id == bindparam("patient_id"), Patient.issuer == bindparam("issuer")
            ),
            dialect,
        )
        self._end = Prepared(END_ASSOCIATION, dialect)
        self._due_sooner = Prepared(DUE_SOONER, dialect)
        self._insert_association = _insert(Association, dialect, keep_id=True)
        self._insert_patient = _insert(Patient, dialect)
        self._insert_study = _insert(Study, dialect)
        self._insert_series = _insert(Series, dialect)
        self._insert_instance = _insert(Instance, dialect)
        self._insert_outbox = _insert(Outbox, dialect)
        self._insert_late = _insert(Late, dialect, keep_id=True)
        self._insert_note = _insert(Rejection, dialect)

    def record(self, cursor: DBAPICursor, arrival: Arrival, opened: Callable[[int], Sender | None]) -> bool:
        """Insert the rows of one instance; False, and only its association is recorded, where its UID is known.

        opened  who opened an association that may have no row yet; None where it has
        """
        if arrival.association_id is not None:
            self._open_association(cursor, arrival.association_id, opened(arrival.association_id))
        if self._any_version(cursor, {"uid": arrival.file.sop_instance_uid}).fetchone() is not None:
            return False
        series = self._series_of(cursor, arrival.identity, arrival.sender.received_at)
        late = lateness(series, arrival.policy.late)
        if late is not None and late.is_ignored:
            arrival = not_held(arrival)
        else:
            self._wait(cursor, {"row": series.id, **waiting(series, arrival)})
        row = _id(self._insert_instance(cursor, instance_values(series.id, arrival, 0, active=True)))
        if arrival.forward:
            self._insert_outbox.many(cursor, outbox_values(row, arrival))
        if late is not None:
            self._insert_late(cursor, late_values(row, series.id, late))
        if (note := note_values(row, arrival)) is not None:
            self._insert_note(cursor, note)
        return True

    def end_association(self, cursor: DBAPICursor, association: int, how: AssociationEnd, now: float) -> None:
        """Record the end; the series it carried are judged again once their shorter quiet time is over."""
        self._end(cursor, {"association": association, "now": now, "how": how.value})
        self._due_sooner(cursor, {"association": association, "now": now})

    def _open_association(self, cursor: DBAPICursor, row: int, sender: Sender | None) -> None:
        if sender is None or self._association(cursor, {"row": row}).fetchone() is not None:
            return
        self._insert_association(
            cursor,
            {
                "id": row,
                "owner": self._owner,
                "peer": sender.peer,
                "calling_ae": sender.calling_ae,
                "called_ae": sender.called_ae,
                "source_address": sender.source_address,
                "opened_at": sender.received_at,
                "ended_at": None,
                "ended": None,
            },
        )

    def _series_of(self, cursor: DBAPICursor, identity: Identity, now: float) -> _SeriesRow:
        uids = {"study_uid": identity.study_instance_uid, "series_uid": identity.series_instance_uid}
        found = self._series(cursor, uids).fetchone()
        if found is None:
            values = series_values(self._study_row(cursor, identity), identity, Origin.RECEIVED, now)
            self._insert_series(cursor, values)
            found = self._series(cursor, uids).fetchone()
        assert found is not None  # inserted just now
        return _SeriesRow(*found)

    def _study_row(self, cursor: DBAPICursor, identity: Identity) -> int:
        found = self._study(cursor, {"uid": identity.study_instance_uid}).fetchone()
        if found is not None:
            return int(found[0])
        values = {
            "patient_row": self._patient_row(cursor, identity),
            "study_instance_uid": identity.study_instance_uid,
            "accession_number": identity.accession_number,
        }
        return _id(self._insert_study(cursor, values))

    def _patient_row(self, cursor: DBAPICursor, identity: Identity) -> int:
        values = {"patient_id": identity.patient_id, "issuer": identity.issuer}
        found = self._patient(cursor, values).fetchone()
        return int(found[0]) if found is not None else _id(self._insert_patient(cursor, values))


_SERIES: Final = (
    select(*(getattr(Series, name) for name in _SeriesRow._fields))
    .join(Study, Study.id == Series.study_row)
    .where(
        Study.study_instance_uid == bindparam("study_uid"),
        Series.series_instance_uid == bindparam("series_uid"),
    )
    .with_for_update(of=Series)  # SQLite knows none, and needs none: there is one writer
)


def _insert(kind: type[Base], dialect: Dialect, keep_id: bool = False) -> Prepared:
    table: Any = kind.__table__
    columns = [column.name for column in table.columns if keep_id or column.name != "id"]
    statement = insert(table)
    return Prepared(
        statement if keep_id or kind in (Outbox, Rejection) else statement.returning(table.c.id), dialect, columns
    )


def _id(cursor: DBAPICursor) -> int:
    """The id of the row that was inserted."""
    row = cursor.fetchone()
    assert row is not None  # RETURNING gives one for each row
    return int(row[0])
