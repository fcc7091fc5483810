"""Taking in instances: bytes to the file store, rows to the index, and only then success.

One thread commits the rows of all associations in batches: while one batch is being forced to the disk the next
gathers, so concurrent senders share the wait.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from dicomnode.core.headers import scan_header, value
from dicomnode.core.identity import is_valid_uid
from dicomnode.core.routing import PRIORITIES, Routing, expected_instances, position_along_normal, required_uids
from dicomnode.core.rules import Facts, Forwarding, is_derived_by_us
from dicomnode.core.types import AssociationEnd, CompletenessPolicy, Header, Offer, Sender
from dicomnode.errors import DicomNodeError, InputError, MismatchError, StoreError
from dicomnode.faults import kill_point
from dicomnode.store.database import Database
from dicomnode.store.files import FileStore, WritingFile, storage_errors
from dicomnode.store.index import arrivals
from dicomnode.store.index.arrivals import Arrival, ForwardTo, StoredFile

_BATCH: Final = 256


@dataclass(eq=False)
class _Pending:
    """A row waiting for its commit."""

    arrival: Arrival
    done: threading.Event = field(default_factory=threading.Event)
    error: DicomNodeError | None = None


class StoreIntake:
    """The Intake of this machine (`dicomnode.core.ports.Intake`). `close` before the process ends."""

    def __init__(self, database: Database, files: FileStore, routing: Routing) -> None:
        self._database = database
        self._files = files
        self.routing = routing
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._commit_batches, name="commit")
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether rows are still committed."""
        return self._thread.is_alive()

    def recover(self) -> None:
        """Clear away what a killed receiver left: half files, associations that look open."""
        self._files.sweep()
        with self._database.write() as session:
            arrivals.lose_open_associations(session, time.time())

    def association_opened(self, sender: Sender) -> int:
        with _index_errors(), self._database.write() as session:
            return arrivals.open_association(session, sender)

    def association_ended(self, association_id: int, how: AssociationEnd) -> None:
        with _index_errors(), self._database.write() as session:
            arrivals.end_association(session, association_id, how, time.time())

    def begin(self, offer: Offer) -> IncomingInstance:
        if not is_valid_uid(offer.sop_instance_uid) or not is_valid_uid(offer.sop_class_uid):
            raise InputError("the request's SOP UIDs are not valid", "the sender must use UIDs of digits and dots")
        return IncomingInstance(offer, self._files.begin(offer), self.routing, self._commit)

    def close(self) -> None:
        """Commit what is waiting and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _commit(self, arrival: Arrival) -> None:
        pending = _Pending(arrival)
        self._queue.put(pending)
        pending.done.wait()
        if pending.error is not None:
            raise pending.error

    def _commit_batches(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < _BATCH and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    self._queue.put(None)
                    break
                batch.append(following)
            self._record(batch)

    def _record(self, batch: list[_Pending]) -> None:
        kill_point("receive.before_commit")
        try:
            with self._database.write() as session:
                for pending in batch:
                    arrivals.record_arrival(session, pending.arrival)
        except Exception as error:  # noqa: BLE001  whatever it is, each sender is answered and the thread goes on
            if len(batch) > 1:  # one bad row must not fail the others
                for pending in batch:
                    self._record([pending])
                return
            batch[0].error = _index_error(error)
        kill_point("receive.after_commit")
        for pending in batch:
            pending.done.set()


class IncomingInstance:
    """One instance being received (`dicomnode.core.ports.Incoming`)."""

    def __init__(self, offer: Offer, file: WritingFile, routing: Routing, commit: Callable[[Arrival], None]) -> None:
        self._offer = offer
        self._file = file
        self._routing = routing
        self._commit = commit
        kill_point("receive.before_write")

    def write(self, chunk: bytes | memoryview) -> None:
        self._file.write(chunk)

    def commit(self) -> None:
        kill_point("receive.after_write")
        try:
            header = self._header()
            identity = _identity(header)
            facts = Facts(header, self._offer.sender, time.localtime(self._offer.sender.received_at).tm_hour)
            forwarding, policy = self._routing.decide(facts)
            digest = self._file.finish()
        except BaseException:
            self._file.discard()
            raise
        stored = StoredFile(
            self._offer.sop_instance_uid,
            self._offer.sop_class_uid,
            self._offer.transfer_syntax_uid,
            digest,
            self._file.size_bytes,
        )
        self._commit(_arrival(self._offer, stored, identity, header, (forwarding, policy), self._routing))

    def abort(self) -> None:
        self._file.discard()

    def _header(self) -> Header:
        with storage_errors(), self._file.path.open("rb") as written:
            written.seek(self._file.header_bytes)
            header = scan_header(written, self._offer.transfer_syntax_uid, self._routing.keywords)
        announced = {"SOPClassUID": self._offer.sop_class_uid, "SOPInstanceUID": self._offer.sop_instance_uid}
        for keyword, uid in announced.items():
            if value(header, keyword) != uid:
                raise MismatchError(
                    f"{keyword} in the data set is not the one that the request announced",
                    "the sender mixed up two objects",
                )
        return header


@contextmanager
def _index_errors() -> Iterator[None]:
    """Errors of the database as StoreError. Their own text quotes rows, which may be a patient's: it is dropped."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _index_error(error) from None


def _index_error(error: Exception) -> StoreError:
    kind = type(error).__name__
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
        expected=None if expected is None else expected[0],
        expected_source="" if expected is None else expected[1],
        position_mm=None if position is None else position[0],
        orientation=None if position is None else position[1],
    )
