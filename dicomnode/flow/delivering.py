"""Draining the outbox: one thread a destination, so that one that is down delays no other.

A drainer works only while it holds its destination's lease, however many associations its deliverer opens. Answers are
committed as they come, those that came during a commit together by the next: after a crash nothing that was recorded is
sent again. A destination that fails as a whole is parked, and tried again with back-off.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomnode import metrics
from dicomnode.core.ports import Deliverer
from dicomnode.core.types import Outgoing, Receipt
from dicomnode.errors import AssociationRejectedError, PeerError
from dicomnode.faults import kill_point
from dicomnode.net.tls import ClientSecurity
from dicomnode.store.database import Database
from dicomnode.store.index import outbox
from dicomnode.store.index.outbox import RetryPolicy
from dicomnode.store.reach import enduring
from dicomnode.store.schema import Destination, Instance, Outbox, OutboxState
from dicomnode.telemetry import event

_POLL_S: Final = 0.2
_LEASE_S: Final = 60.0
_TOLD_AS: Final = {
    OutboxState.SENT: "delivery_sent",
    OutboxState.FAILED: "delivery_failed",
    OutboxState.EXCLUDED: "delivery_excluded",
}
_SMALLEST_BATCH: Final = 64
_LARGEST_BATCH: Final = 1024
_BATCH_S: Final = 2.0
"""A batch is what the destination takes in about this time: so long waits what is urgent and comes later."""

_FINISH_S: Final = 10.0
"""How long an instance that is being sent may take once a stop was asked for."""


@dataclass(frozen=True)
class Route:
    """One destination: where it is, how patient we are with it, and what makes the one who sends to it.

    Two routes are equal where nothing of the destination's configuration differs: `settings` is what else `make` uses.
    """

    name: str
    address: str
    retry: RetryPolicy
    make: Callable[[], Deliverer] = field(compare=False)
    security: ClientSecurity | None = None
    settings: Hashable = None


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A calling AE title that the destination rejected: how often in a row, and until when it is passed over."""

    failures: int
    until: float


class Drainer:
    """A thread that sends what is ready for one destination until it is stopped."""

    def __init__(self, database: Database, path_of: Callable[[str], Path], route: Route) -> None:
        self._database = database
        self._path_of = path_of
        self.route = route
        self._deliverer = route.make()
        self._owner = f"{socket.gethostname()}:{uuid.uuid4().hex}"
        self._leased_until = 0.0
        self._batch = _SMALLEST_BATCH
        self._refused: dict[str, _Refusal] = {}
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

    def ask_stop(self) -> None:
        self._stopping.set()
        self._deliverer.finish()

    def stop(self, until: float) -> None:
        """Finish the instances that are being sent, or break them off at `until` (monotonic); give the lease up."""
        self.ask_stop()
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():  # it waits for an answer that may never come
            self._deliverer.interrupt()
            self._thread.join()
        self._deliverer.close()
        with enduring(), self._database.write() as session:  # else it ends by itself
            outbox.release_leases(session, self._owner)

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            pause_s = _POLL_S
            with enduring():
                pause_s = 0.0 if self.drain(time.time()) else _POLL_S

    def drain(self, now: float) -> bool:
        """Send one batch of what is ready; whether there was anything to send."""
        if not self._may_send(now):
            return False
        refused = [title for title, refusal in self._refused.items() if refusal.until > now]
        with self._database.read() as session:
            batch = outbox.ready(session, self.route.name, now, self._batch, refused)
        if not batch:
            return False
        try:
            self._send(batch)
        except AssociationRejectedError as error:
            self._pass_over(batch[0][0].calling_ae, error)
        except PeerError as error:
            if not self._stopping.is_set():  # else it is we who broke it off
                self._park(error)
        return True

    def _may_send(self, now: float) -> bool:
        """Hold the lease, and find the destination not parked."""
        if now < self._leased_until - _LEASE_S / 2:
            with self._database.read() as session:
                row = session.get_one(Destination, self.route.name)
            return row.down_until is None or row.down_until <= now
        with self._database.write() as session:
            leased = outbox.lease(session, self.route.name, self._owner, now, now + _LEASE_S)
            if leased is None:
                return False
            self._leased_until = now + _LEASE_S
            abandoned = outbox.give_up(session, self.route.name, self.route.retry, now)
        if abandoned:
            metrics.count("dicomnode_deliveries_total", abandoned, destination=self.route.name, outcome="given_up")
            event("delivery_failed", destination=self.route.name, reason=f"{abandoned} not taken within the patience")
        return leased.down_until is None or leased.down_until <= now

    def _send(self, batch: list[tuple[Outbox, Instance]]) -> None:
        started = time.monotonic()
        rows = {row.id: instance for row, instance in batch}
        arrived = 0
        kill_point("deliver.before_send")
        for receipts in self._deliverer.deliver([self._outgoing(row, instance) for row, instance in batch]):
            if receipts:
                kill_point("deliver.before_receipt")
            states = self._record(receipts)
            if receipts:
                kill_point("deliver.after_receipt")
                self._refused.pop(batch[0][0].calling_ae, None)
            for receipt, state in zip(receipts, states, strict=True):
                self._tell(receipt, rows[receipt.outbox_id], state)
            arrived += sum(receipt.outcome.arrived for receipt in receipts)
        seconds = time.monotonic() - started
        self._batch = max(_SMALLEST_BATCH, min(int(len(batch) / max(seconds, 0.001) * _BATCH_S), _LARGEST_BATCH))
        self._tell_finished(arrived, seconds)

    def _record(self, receipts: Sequence[Receipt]) -> Sequence[OutboxState]:
        """Commit what was answered, all that is known by now at once; keep the lease."""
        now = time.time()
        renewed = now > self._leased_until - _LEASE_S / 2
        if not receipts and not renewed:
            return ()
        with self._database.write() as session:
            row = session.get_one(Destination, self.route.name)
            if row.failures and any(receipt.status is not None for receipt in receipts):
                outbox.destination_works(session, self.route.name)
                event("destination_up", destination=self.route.name, address=self.route.address)
            if renewed:
                outbox.lease(session, self.route.name, self._owner, now, now + _LEASE_S)
                self._leased_until = now + _LEASE_S
            return outbox.record_answers(session, receipts, self.route.retry, now)

    def _park(self, error: PeerError) -> None:
        """Leave the destination alone for a while."""
        now = time.time()
        with self._database.write() as session:
            until = outbox.destination_failed(session, self.route.name, (str(error), error.hint), self.route.retry, now)
            failures = session.get_one(Destination, self.route.name).failures
        self._tell_down(error, failures, until - now)

    def _pass_over(self, calling_ae: str, error: AssociationRejectedError) -> None:
        """Leave one calling AE title alone for a while: the destination may know the others that we pass through."""
        failures = self._refused[calling_ae].failures + 1 if calling_ae in self._refused else 1
        delay_s = self.route.retry.delay_s(failures)
        self._refused[calling_ae] = _Refusal(failures, time.time() + delay_s)
        with self._database.write() as session:
            outbox.destination_refuses(session, self.route.name, (str(error), error.hint))
        self._tell_down(error, failures, delay_s)

    def _tell_down(self, error: PeerError, failures: int, retry_s: float) -> None:
        metrics.count("dicomnode_destination_failures_total", destination=self.route.name)
        event(
            "destination_down",
            destination=self.route.name,
            address=self.route.address,
            attempt=failures,
            retry_s=retry_s,
            error=type(error).__name__,
            reason=str(error),
            hint=error.hint,
        )

    def _outgoing(self, row: Outbox, instance: Instance) -> Outgoing:
        return Outgoing(
            outbox_id=row.id,
            path=self._path_of(instance.file),
            sop_class_uid=instance.sop_class_uid,
            sop_instance_uid=instance.sop_instance_uid,
            transfer_syntax_uid=instance.transfer_syntax_uid,
            calling_ae=row.calling_ae,
        )

    def _tell(self, receipt: Receipt, instance: Instance, state: OutboxState) -> None:
        metrics.count("dicomnode_deliveries_total", destination=self.route.name, outcome=receipt.outcome.value)
        name = _TOLD_AS.get(state, "delivery_refused")
        why = {} if state == OutboxState.SENT else {"reason": receipt.meaning, "hint": receipt.hint}
        event(
            name,
            outbox_id=receipt.outbox_id,
            destination=self.route.name,
            sop_instance_uid=instance.sop_instance_uid,
            status=receipt.status,
            **why,
        )

    def _tell_finished(self, arrived: int, seconds: float) -> None:
        if arrived:
            event("delivery_finished", destination=self.route.name, instances=arrived, seconds=seconds)


class Drainers:
    """The drainers of all destinations; `follow` goes along with a changed configuration."""

    def __init__(self, database: Database, path_of: Callable[[str], Path]) -> None:
        self._database = database
        self._path_of = path_of
        self.running: tuple[Drainer, ...] = ()

    @property
    def are_alive(self) -> bool:
        return all(drainer.is_alive for drainer in self.running)

    def follow(self, routes: Iterable[Route]) -> None:
        """Have one drainer for each route. Those whose route is as before go on undisturbed."""
        wanted = {route.name: route for route in routes}
        kept = tuple(drainer for drainer in self.running if wanted.get(drainer.route.name) == drainer.route)
        _stop(drainer for drainer in self.running if drainer not in kept)
        names = {drainer.route.name for drainer in kept}
        added = tuple(
            Drainer(self._database, self._path_of, route) for name, route in wanted.items() if name not in names
        )
        self.running = (*kept, *added)
        for drainer in added:
            drainer.start()

    def stop(self) -> None:
        _stop(self.running)
        self.running = ()


def _stop(drainers: Iterable[Drainer]) -> None:
    """All are asked before any is waited for: those that hang cost their time once, not each its own."""
    stopping = tuple(drainers)
    for drainer in stopping:
        drainer.ask_stop()
    until = time.monotonic() + _FINISH_S
    for drainer in stopping:
        drainer.stop(until)
