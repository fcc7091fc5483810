"""Taking in instances: bytes to the file store, rows to the index, and only then success.

Rows are committed in batches: whoever commits takes the rows of all who wait (`dicomnode.store.combining`), so
concurrent senders share the wait for the disk.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from dicomnode import metrics, telemetry
from dicomnode.core.headers import scan_header, scan_start, value
from dicomnode.core.identity import is_valid_uid
from dicomnode.core.routing import PRIORITIES, Routing, expected_instances, position_along_normal, required_uids
from dicomnode.core.rules import Facts, Forwarding, is_derived_by_us
from dicomnode.core.types import AssociationEnd, CompletenessPolicy, Header, Offer, Sender
from dicomnode.errors import DicomNodeError, DiskFullError, IndexAwayError, InputError, MismatchError, StoreError
from dicomnode.faults import kill_point
from dicomnode.store.combining import Combined
from dicomnode.store.database import Database
from dicomnode.store.files import FileStore, WritingFile, hour_of, storage_errors
from dicomnode.store.index import arrivals, associations, versions
from dicomnode.store.index import files as index_files
from dicomnode.store.index.arrivals import Arrival, ForwardTo, StoredFile
from dicomnode.store.index.recording import Recorder
from dicomnode.store.index.versions import Again
from dicomnode.store.reach import is_out_of_reach

_ASSOCIATION_ID_BITS: Final = 62
_STRAYS_HINT: Final = (
    "after a kill or a power cut they were never acknowledged and may be removed; "
    "after the index was put back from a backup, send them to the node again"
)
_SERVER_FULL: Final = "53100"  # disk_full, PostgreSQL's appendix A
_TRIES: Final = 3
"""Of one row: two receivers that take in the first instances of a series at once collide, and the later one sees the
row of the other at its next try."""


@dataclass(eq=False)
class _Pending:
    """Rows waiting for their commit. Where the instance's UID `is_known` already nothing was done but for that.

    is_unsure  a commit was tried, and it is not known whether it came through
    """

    arrival: Arrival
    is_known: bool = False
    is_committed: bool = False
    is_unsure: bool = False
    error: DicomNodeError | None = None


@dataclass(frozen=True, slots=True)
class _End:
    """The end of an association, waiting for its commit."""

    association_id: int
    how: AssociationEnd
    at: float


class StoreIntake:
    """The Intake of one receiver (`dicomnode.core.ports.Intake`).

    owner     this receiver's name, which no other has on any machine that shares the index
    announce  called when something is to be sent; it takes no time
    """

    def __init__(
        self,
        database: Database,
        files: FileStore,
        routing: Routing,
        owner: str = "",
        announce: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._files = files
        self.routing = routing
        self._owner = owner
        self._announce = announce
        self._recorder = Recorder(database.engine.dialect, owner)
        self._conflicts = _conflicts(database)
        self._waiting: deque[_Pending | _End] = deque()
        self._commit_waiting = Combined(self._record_waiting)
        self._lock = threading.Lock()
        self._unrecorded: dict[int, Sender] = {}  # associations without a row: nothing came yet

    def recover(self) -> None:
        """Clear away what this receiver left when it was killed: files without a row, associations that look open."""
        set_strays_aside(self._database, self._files)
        with _index_errors(), self._database.write() as session:
            associations.lose_open_associations(session, self._owner, time.time())

    def association_opened(self, sender: Sender) -> int:
        association_id = int.from_bytes(os.urandom(8)) >> (64 - _ASSOCIATION_ID_BITS)
        with self._lock:
            self._unrecorded[association_id] = sender
        return association_id

    def association_ended(self, association_id: int, how: AssociationEnd) -> None:
        with self._lock:
            if self._unrecorded.pop(association_id, None) is not None:
                return  # it brought nothing
        self._waiting.append(_End(association_id, how, time.time()))
        self._commit_waiting()

    def begin(self, offer: Offer) -> IncomingInstance:
        if not is_valid_uid(offer.sop_instance_uid) or not is_valid_uid(offer.sop_class_uid):
            raise InputError("the request's SOP UIDs are not valid", "the sender must use UIDs of digits and dots")
        return IncomingInstance(offer, self._files.begin(offer), self.routing, self._commit)

    def _commit(self, arrival: Arrival) -> None:
        """Record an instance whose file is durable. Where it cannot be, the file is removed."""
        pending = _Pending(arrival)
        self._waiting.append(pending)
        self._commit_waiting()
        try:
            if not pending.is_committed:  # an error that was not foreseen leaves none here
                raise pending.error or _index_error(RuntimeError())
            kept = not pending.is_known or self._record_again(pending)
        except DicomNodeError:
            if not (pending.is_unsure and self._may_be_recorded(arrival)):
                self._files.remove(arrival.file.file)
            raise
        if not kept:
            self._files.remove(arrival.file.file)

    def _may_be_recorded(self, arrival: Arrival) -> bool:
        """Whether a row names the file though its commit failed: a server may have committed, and gone before it said
        so. While that cannot be found out the file stays; at the next start it is set aside if it has no row."""
        try:
            with self._database.read() as session:
                return index_files.is_recorded(session, arrival.file)
        except SQLAlchemyError:
            return True

    def _record_again(self, pending: _Pending) -> bool:
        """Record an instance whose UID is known; whether its file is needed, for no other holds the same bytes."""
        arrival = pending.arrival
        same: dict[str, bool] = {}
        with _index_errors(), self._database.read() as session:
            candidates = versions.of_the_same_size(session, arrival)
        while True:  # until nobody has written another that may be the same meanwhile
            same |= {key: self._files.same_content(key, arrival.file.file) for key in candidates if key not in same}
            with _index_errors(), self._database.write() as session:
                candidates = versions.of_the_same_size(session, arrival)
                if arrival.file.file in candidates:  # a try came through, though we were told that it failed
                    return True
                if same.keys() >= set(candidates):
                    pending.is_unsure = True
                    found = next((key for key in candidates if same[key]), None)
                    again = versions.record_again(session, arrival, found)
                    break
        _tell_again(arrival, again)
        return found is None

    def _record_waiting(self) -> None:
        """Commit all that waits. Never raises: each sender finds its own error."""
        batch = []
        while self._waiting:
            batch.append(self._waiting.popleft())
        if batch:
            started = time.perf_counter()
            self._record(batch)
            metrics.observe("dicomnode_commit_seconds", time.perf_counter() - started)
            metrics.observe("dicomnode_commit_instances", len(batch))

    def _record(self, batch: Sequence[_Pending | _End], tries: int = 1) -> None:
        kill_point("receive.before_commit")
        is_commit_tried = False
        try:
            with self._database.statements() as cursor:
                for each in batch:
                    self._write(cursor, each)
                is_commit_tried = True
        except Exception as error:  # noqa: BLE001  whatever it is, each sender is answered
            if is_commit_tried:
                _note_unsure(batch)
            if len(batch) > 1 and not is_out_of_reach(error):  # one bad row must not fail the others
                for each in batch:
                    self._record([each])
            elif tries < _TRIES and isinstance(error, self._conflicts):
                self._record(batch, tries + 1)
            else:
                for each in batch:
                    _fail(each, error)
            return
        kill_point("receive.after_commit")
        with self._lock:
            for each in batch:
                if isinstance(each, _Pending):
                    each.is_committed = True
                    if each.arrival.association_id is not None:
                        self._unrecorded.pop(each.arrival.association_id, None)
        if any(isinstance(each, _Pending) and each.arrival.forward for each in batch):
            self._announce()

    def _write(self, cursor: DBAPICursor, each: _Pending | _End) -> None:
        if isinstance(each, _End):
            self._recorder.end_association(cursor, each.association_id, each.how, each.at)
        else:
            each.is_known = not self._recorder.record(cursor, each.arrival, self._unrecorded.get)


def _tell_again(arrival: Arrival, again: Again) -> None:
    """For the audit: other bytes than before came under a SOP Instance UID."""
    if again is not Again.SAME:
        telemetry.event(
            "instance_version",
            peer=arrival.sender.peer,
            calling_ae=arrival.sender.calling_ae,
            sop_instance_uid=arrival.file.sop_instance_uid,
            state=again.value,
        )


def _note_unsure(batch: Sequence[_Pending | _End]) -> None:
    for each in batch:
        if isinstance(each, _Pending):
            each.is_unsure = True


def set_strays_aside(database: Database, files: FileStore) -> int:
    """Set aside what the file store's owner wrote and was killed before it had a row; how many files."""
    latest = files.own_latest()
    if not latest:
        return 0
    with _index_errors(), database.read() as session:
        strays = index_files.without_row(session, latest, min(map(hour_of, latest)))
    for key in strays:
        files.set_aside(key)
    if strays:
        telemetry.event("strays_set_aside", instances=len(strays), path=str(files.strays), hint=_STRAYS_HINT)
    return len(strays)


class IncomingInstance:
    """One instance being received (`dicomnode.core.ports.Incoming`)."""

    def __init__(self, offer: Offer, file: WritingFile, routing: Routing, commit: Callable[[Arrival], None]) -> None:
        self._offer = offer
        self._file = file
        self._routing = routing
        self._commit = commit
        self._header: Header | None = None
        kill_point("receive.before_write")

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        if not self._file.size_bytes:
            self._header = scan_start(pieces, self._offer.transfer_syntax_uid, self._routing.keywords)
        self._file.write(pieces)

    def commit(self) -> None:
        kill_point("receive.after_write")
        try:
            header = self._read_header()
            identity = _identity(header)
            facts = Facts(header, self._offer.sender, time.localtime(self._offer.sender.received_at).tm_hour)
            decided = self._routing.decide(facts)
            self._file.finish()
            stored = StoredFile(
                self._offer.sop_instance_uid,
                self._offer.sop_class_uid,
                self._offer.transfer_syntax_uid,
                self._file.key,
                self._file.size_bytes,
            )
            arrival = _arrival(self._offer, stored, identity, header, decided, self._routing)
        except BaseException:
            self._file.discard()
            raise
        self._commit(arrival)

    def abort(self) -> None:
        self._file.discard()

    def _read_header(self) -> Header:
        """The header; read from the file where the start did not tell all of it. It must be the announced object's."""
        if self._header is not None and _tells(self._header, self._offer):
            return self._header
        header = self._scan_file()
        if (keyword := _difference(header, self._offer)) is not None:
            raise MismatchError(
                f"{keyword} in the data set is not the one that the request announced",
                "the sender mixed up two objects",
            )
        return header

    def _scan_file(self) -> Header:
        if not self._file.key:
            raise InputError("the data set is empty", "the sender must send one with its request")
        with storage_errors(), self._file.path.open("rb") as written:
            written.seek(self._file.header_bytes)
            return scan_header(written, self._offer.transfer_syntax_uid, self._routing.keywords)


def _conflicts(database: Database) -> tuple[type[Exception], ...]:
    """The driver's errors for rows that another receiver wrote meanwhile, which the next try finds there."""
    driver = database.engine.dialect.loaded_dbapi
    if database.engine.dialect.name == "sqlite":
        return (driver.IntegrityError,)
    return (driver.IntegrityError, driver.OperationalError)  # a deadlock is an operational one


def _tells(header: Header, offer: Offer) -> bool:
    """Whether the start of a data set told that it is the announced object, and where it belongs.

    One whose elements are out of order (PS3.5 7.1) may tell so only further on.
    """
    return _difference(header, offer) is None and all(
        value(header, keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID")
    )


def _difference(header: Header, offer: Offer) -> str | None:
    """The keyword in which a data set is another than its request said."""
    announced = {"SOPClassUID": offer.sop_class_uid, "SOPInstanceUID": offer.sop_instance_uid}
    return next((keyword for keyword, uid in announced.items() if value(header, keyword) != uid), None)


def _fail(each: _Pending | _End, error: Exception) -> None:
    if isinstance(each, _Pending):
        each.error = _index_error(error)
    else:
        telemetry.event("association_end_lost", association_id=each.association_id, error=type(error).__name__)


@contextmanager
def _index_errors() -> Iterator[None]:
    """Errors of the database as StoreError. Their own text quotes rows, which may be a patient's: it is dropped."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _index_error(error) from None


def _index_error(error: Exception) -> StoreError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", None) or getattr(cause, "sqlstate", None)
    if code in (sqlite3.SQLITE_FULL, _SERVER_FULL):
        return DiskFullError("the disk of the index is full", "free space there")
    kind = type(error).__name__
    if is_out_of_reach(error):
        return IndexAwayError(f"the index is out of reach ({kind})", "the sender will try again; the log tells more")
    return StoreError(f"the index took no row ({kind})", "look at the disk; the sender will try again")


def _identity(header: Header) -> arrivals.Identity:
    study, series = required_uids(header)
    return arrivals.Identity(
        patient_id=value(header, "PatientID"),
        issuer=value(header, "IssuerOfPatientID"),
        study_instance_uid=study,
        accession_number=value(header, "AccessionNumber"),
        series_instance_uid=series,
        modality=value(header, "Modality"),
    )


def _arrival(
    offer: Offer,
    stored: StoredFile,
    identity: arrivals.Identity,
    header: Header,
    decided: tuple[Forwarding, CompletenessPolicy],
    routing: Routing,
) -> Arrival:
    forwarding, policy = decided
    position = position_along_normal(header)
    expected = expected_instances(header)
    return Arrival(
        identity=identity,
        file=stored,
        sender=offer.sender,
        association_id=offer.association_id,
        forward=tuple(
            ForwardTo(
                destination=target.destination,
                rules=target.rules,
                calling_ae=routing.calling_ae(target.destination, offer.sender.calling_ae),
                priority=PRIORITIES[target.priority],
                held=routing.destinations[target.destination].when_complete,
            )
            for target in forwarding.targets
        ),
        matched=not forwarding.unrouted,
        rules_digest=routing.rules.digest,
        kept_back=tuple(map(str, forwarding.suppressed)),
        round_trip_ok=routing.echoes(forwarding),
        destinations_of_peer=routing.destinations_of_peer(offer.sender.peer),
        derived_by_us=is_derived_by_us(header),
        policy=policy,
        same_uid=routing.peer_policy(offer.sender.peer).same_uid,
        expected=None if expected is None else expected[0],
        expected_source="" if expected is None else expected[1],
        position_mm=None if position is None else position[0],
        orientation=None if position is None else position[1],
    )
