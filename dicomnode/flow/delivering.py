"""Draining the outbox towards one destination, in a thread of its own: one that is down delays no other.

A drainer works only while this process holds its destination's lease, however many associations its deliverer opens.
Answers are committed as they come, those that came during a commit together by the next: after a crash nothing that was
recorded is sent again. A destination that fails as a whole is parked, and probed by C-ECHO until it answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dicomnode.core.hours import ALWAYS, WorkingHours
from dicomnode.core.patience import lost_patience_before
from dicomnode.core.ports import Deliverer
from dicomnode.core.types import Outgoing, Receipt
from dicomnode.errors import AssociationLostError, AssociationRejectedError, PeerError, StoreError
from dicomnode.faults import kill_point
from dicomnode.flow.leasing import Leases
from dicomnode.flow.telling import tell_answer, tell_failure, tell_held, tell_up
from dicomnode.net.tls import ClientSecurity
from dicomnode.store.database import Database
from dicomnode.store.files import FileStore
from dicomnode.store.index import health, outbox
from dicomnode.store.index.outbox import Wanted
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.reach import enduring, is_out_of_reach
from dicomnode.store.schema import Instance, Outbox, OutboxState
from dicomnode.telemetry import event

_SMALLEST_BATCH: Final = 64
_LARGEST_BATCH: Final = 1024
_BATCH_S: Final = 2.0
"""A batch is what the destination takes in about this time: so long waits what is urgent and comes later."""

_GATHER_S: Final = 0.02
_FEW: Final = 16
"""After a batch of so few, what comes within an instant goes together: each batch costs more than an instance."""

_RECORD_AGAIN_S: Final = 0.5
_GIVEN_UP_AT_ONCE: Final = 500
"""Receivers must not wait for a transaction that ends the deliveries of a week."""

_PATIENCE_PERIODS: Final = 50
_LONGEST_PERIOD_S: Final = 120.0


@dataclass(frozen=True)
class Opening:
    """When a destination may be sent to. `urgent_anytime`: urgent deliveries go outside of the hours too."""

    hours: WorkingHours = ALWAYS
    urgent_anytime: bool = True


@dataclass(frozen=True)
class Route:
    """One destination: where it is, how patient we are with it, and what makes the one who sends to it.

    Two routes are equal where nothing of the destination's configuration differs: `settings` is what else `make` uses.
    `calling_ae` is the AE title to ask with whether it is there, while nothing waits.
    """

    name: str
    address: str
    retry: RetryPolicy
    make: Callable[[], Deliverer] = field(compare=False)
    security: ClientSecurity | None = None
    settings: Hashable = None
    opening: Opening = Opening()
    calling_ae: str = ""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A calling AE title that the destination rejected: how often in a row, and until when it is passed over."""

    failures: int
    until: float


class Drainer:
    """A thread that sends what is ready for one destination whenever it is woken, until it is stopped."""

    def __init__(
        self,
        database: Database,
        files: FileStore,
        route: Route,
        leases: Leases,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._database = database
        self._files = files
        self.route = route
        self._leases = leases
        self._deliverer = route.make()
        self._replacing = threading.Lock()  # of the deliverer: one that was halted sends nothing any more
        self._is_halted = False
        self._is_delayed = False
        self._batch = _SMALLEST_BATCH
        self._owed = 0
        self._refused: dict[str, _Refusal] = {}
        self._echo_tells = True
        self._looked_at = clock()  # when patience was last looked at: who was away for days tries first
        self.is_busy = False
        self.is_sending = False  # and so must hold the lease
        self.sends_all = False  # not only what is urgent
        self._waking = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"deliver {route.name}")

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def wake(self) -> None:
        """There may be something to send; from any thread."""
        self._waking.set()

    def halt(self) -> None:
        """Begin nothing further of what is being sent, for it may not be sent any more; from any thread."""
        with self._replacing:
            self._is_halted = True
            self._deliverer.finish()

    def cut(self) -> None:
        """Break off what is being sent: another machine may be sending it by now; from any thread."""
        with self._replacing:
            self._is_halted = True
            self._deliverer.interrupt()

    def ask_stop(self) -> None:
        self._stopping.set()
        self._waking.set()
        with self._replacing:
            self._deliverer.finish()

    def stop(self, until: float) -> None:
        """Finish the instances that are being sent, or break them off at `until` (monotonic); give the lease up."""
        self.ask_stop()
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():  # it waits for an answer that may never come
            self._deliverer.interrupt()
            self._thread.join()
        self._deliverer.close()
        self._leases.let_go([self.route.name])

    @property
    def _period_s(self) -> float:
        """How often patience is looked at."""
        return min(self.route.retry.patience_s / _PATIENCE_PERIODS, _LONGEST_PERIOD_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            is_woken = self._waking.wait(self._period_s)
            self._waking.clear()
            with enduring():
                if is_woken or self._has_work(self._clock()):
                    self._drain_all()
            self.is_busy = False

    def _drain_all(self) -> None:
        self.is_busy = True
        while not self._stopping.is_set() and (sent := self.drain(self._clock())):
            if sent < _FEW:
                self._stopping.wait(_GATHER_S)

    def _has_work(self, now: float) -> bool:
        """Whether anything waits, though it may not be sent at the moment: its patience may be over."""
        with self._database.read() as session:
            found = health.situations(session, [self.route.name], now).get(self.route.name)
        return found is not None and (found.urgent or found.normal)

    def drain(self, now: float) -> int:
        """Try to send one batch of what is ready; how many instances it had."""
        if not self._leases.hold(self.route.name):
            return 0
        self.is_sending = True
        try:
            return self._drain(now)
        finally:
            self.is_sending = False

    def _drain(self, now: float) -> int:
        self._replace_halted()
        self._look_at_patience(now)
        with self._database.read() as session:
            batch, is_parked_till_now = self._next(session, now)
        if not batch:
            if is_parked_till_now:
                self._probe_for_nothing()
            return 0
        if not self._have_files(batch):
            return 0
        calling_ae = batch[0][0].calling_ae
        try:
            if is_parked_till_now and self._echo_tells:
                self._probe(calling_ae)
            self._send(batch)
        except AssociationRejectedError as error:
            self._pass_over(calling_ae, error)
        except PeerError as error:
            if not (self._stopping.is_set() or self._is_halted):  # else it is we who broke it off
                self._park(error)
        return len(batch)

    def _next(self, session: Session, now: float) -> tuple[list[tuple[Outbox, Instance]], bool]:
        """What goes next, and whether the destination was parked until now."""
        name, opening = self.route.name, self.route.opening
        found = health.situations(session, [name], now)[name]
        is_open = opening.hours.is_open(now)
        if found.paused or found.is_parked(now) or not (is_open or opening.urgent_anytime):
            return [], False
        refused = [title for title, refusal in self._refused.items() if refusal.until > now]
        self.sends_all = is_open
        wanted = Wanted(self._batch, refused, not is_open, self._owed)
        batch, self._owed = outbox.ready(session, name, now, wanted)
        return batch, found.down_until is not None

    def _replace_halted(self) -> None:
        with self._replacing:
            if self._is_halted:
                self._deliverer.close()
                self._deliverer = self.route.make()
                self._is_halted = False
                if self._stopping.is_set():
                    self._deliverer.finish()

    def _have_files(self, batch: Sequence[tuple[Outbox, Instance]]) -> bool:
        """Have the files lie here; False where they are out of reach for the moment."""
        try:
            self._files.bring([instance.file for _, instance in batch])
        except StoreError as error:
            if not self._is_delayed:
                event("delivery_delayed", destination=self.route.name, reason=str(error), hint=error.hint)
            self._is_delayed = True
            return False
        self._is_delayed = False
        return True

    def _probe(self, calling_ae: str) -> None:
        """Find out by C-ECHO whether it is there again; one that takes none is tried with an instance. PeerError where
        it is not."""
        try:
            answered = self._deliverer.probe(calling_ae)
        except AssociationRejectedError:
            return
        if answered:
            with self._database.write() as session:
                self._note_works(session)

    def _probe_for_nothing(self) -> None:
        """Find out whether it is there again though nothing waits: all may have been given up."""
        try:
            self._deliverer.probe(self.route.calling_ae)
        except PeerError as error:
            if not (self._stopping.is_set() or self._is_halted):
                self._park(error)
            return
        with self._database.write() as session:
            self._note_works(session)

    def _send(self, batch: list[tuple[Outbox, Instance]]) -> None:
        started = time.monotonic()
        rows = {row.id: instance for row, instance in batch}
        arrived = 0
        kill_point("deliver.before_send")
        for receipts in self._deliverer.deliver(self._outgoing(batch)):
            if not receipts:
                continue
            kill_point("deliver.before_receipt")
            states = self._record(receipts)
            kill_point("deliver.after_receipt")
            if states is None:
                return
            self._refused.pop(batch[0][0].calling_ae, None)
            for receipt, state in zip(receipts, states, strict=True):
                tell_answer(self.route.name, receipt, rows[receipt.outbox_id], state)
            arrived += sum(receipt.outcome.arrived for receipt in receipts)
        seconds = time.monotonic() - started
        self._batch = max(_SMALLEST_BATCH, min(int(len(batch) / max(seconds, 0.001) * _BATCH_S), _LARGEST_BATCH))
        if arrived:
            event("delivery_finished", destination=self.route.name, instances=arrived, seconds=seconds)

    def _record(self, receipts: Sequence[Receipt]) -> Sequence[OutboxState] | None:
        """Commit what was answered, whatever became of the lease; while the database is away, as soon as it is back.
        None where a stop was asked for before it was."""
        while True:
            try:
                with self._database.write() as session:
                    if any(receipt.status is not None for receipt in receipts):
                        self._echo_tells = True
                        self._note_works(session)
                    return outbox.record_answers(session, receipts, self.route.retry, self._clock())
            except SQLAlchemyError as error:
                if not is_out_of_reach(error):
                    raise
            if self._stopping.wait(_RECORD_AGAIN_S):
                return None

    def _note_works(self, session: Session) -> None:
        """It answers. While it rejects another calling AE title, that stays to be seen."""
        now = self._clock()
        if any(refusal.until > now for refusal in self._refused.values()):
            health.answers(session, self.route.name)
            return
        down_s = health.works(session, self.route.name, now)
        if down_s is not None:
            tell_up(self.route.name, self.route.address, down_s)

    def _park(self, error: PeerError) -> None:
        """Leave the destination alone for a while. One that breaks off while it takes instances is not believed when it
        answers a C-ECHO."""
        self._echo_tells = not isinstance(error, AssociationLostError)
        now = self._clock()
        with self._database.write() as session:
            row = health.failed(session, self.route.name, (str(error), error.hint), self.route.retry, now)
            failures, until = row.failures, row.down_until or now
        tell_failure(self.route.name, self.route.address, error, failures, until - now)

    def _pass_over(self, calling_ae: str, error: AssociationRejectedError) -> None:
        """Leave one calling AE title alone for a while: the destination may know the others that we pass through."""
        failures = self._refused[calling_ae].failures + 1 if calling_ae in self._refused else 1
        delay_s = self.route.retry.delay_s(failures)
        now = self._clock()
        self._refused[calling_ae] = _Refusal(failures, now + delay_s)
        with self._database.write() as session:
            health.refuses(session, self.route.name, (str(error), error.hint), now)
        tell_failure(self.route.name, self.route.address, error, failures, delay_s)

    def _look_at_patience(self, now: float) -> None:
        """Fail what the destination has not taken within its patience, a part at a time; say so once in an outage."""
        if 0.0 <= now - self._looked_at < self._period_s:
            return
        self._looked_at = now
        name, retry = self.route.name, self.route.retry
        with self._database.read() as session:
            oldest = outbox.oldest_ready(session, name)
            pauses = health.pauses_since(session, name, oldest) if oldest is not None else ()
        if oldest is None:
            return
        before = lost_patience_before(now, retry.patience_s, oldest, self.route.opening.hours, pauses)
        given_up, is_first = 0, False
        while before is not None and not self._stopping.is_set():
            with self._database.write() as session:
                found = outbox.give_up(session, name, before, now, _GIVEN_UP_AT_ONCE)
                is_first = (found > 0 and outbox.is_to_be_told(session, name, retry, now)) or is_first
            given_up += found
            if found < _GIVEN_UP_AT_ONCE:
                break
        if given_up:
            tell_held(name, given_up, is_first=is_first)

    def _outgoing(self, batch: list[tuple[Outbox, Instance]]) -> list[Outgoing]:
        with self._database.read() as session:
            derived = outbox.derived_series(session, [instance for _, instance in batch])
        return [
            Outgoing(
                outbox_id=row.id,
                path=self._files.path(instance.file),
                sop_class_uid=instance.sop_class_uid,
                sop_instance_uid=instance.sop_instance_uid,
                transfer_syntax_uid=instance.transfer_syntax_uid,
                calling_ae=row.calling_ae,
                derived_series=None if row.attempts else derived.get(instance.series_row),
            )
            for row, instance in batch
        ]
