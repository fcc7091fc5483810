"""Draining the outbox: one thread a destination, so that one that is down delays no other.

A drainer works only while it holds its destination's lease. Every answer is committed by itself, at once: after a crash
nothing that was answered is sent again. A destination that fails as a whole is parked, and tried again with back-off.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomnode.core.ports import Deliverer
from dicomnode.core.types import Outgoing, Receipt
from dicomnode.errors import PeerError
from dicomnode.faults import kill_point
from dicomnode.store.database import Database
from dicomnode.store.index import outbox
from dicomnode.store.index.outbox import RetryPolicy
from dicomnode.store.schema import Destination, Instance, Outbox, OutboxState
from dicomnode.telemetry import event

_POLL_S: Final = 0.2
_LEASE_S: Final = 60.0
_BATCH: Final = 64


@dataclass(frozen=True)
class Route:
    """One destination: how to send to it, and how patient we are with it. `address` is for the log."""

    name: str
    deliverer: Deliverer
    retry: RetryPolicy
    address: str


class Drainer:
    """A thread that sends what is ready for one destination until it is stopped."""

    def __init__(self, database: Database, path_of: Callable[[str], Path], route: Route) -> None:
        self._database = database
        self._path_of = path_of
        self._route = route
        self._owner = f"{socket.gethostname()}:{uuid.uuid4().hex}"
        self._leased_until = 0.0
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

    def stop(self) -> None:
        """Finish the instance that is being sent, and give the lease up."""
        self.ask_stop()
        self._thread.join()
        with self._database.write() as session:
            outbox.release_leases(session, self._owner)

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            pause_s = 0.0 if self.drain(time.time()) else _POLL_S

    def drain(self, now: float) -> bool:
        """Send one batch of what is ready; whether there was anything to send."""
        if not self._may_send(now):
            return False
        with self._database.read() as session:
            batch = outbox.ready(session, self._route.name, now, _BATCH)
        if not batch:
            return False
        try:
            self._send(batch)
        except PeerError as error:
            self._park(error)
        return True

    def _may_send(self, now: float) -> bool:
        """Hold the lease, and find the destination not parked."""
        if now < self._leased_until - _LEASE_S / 2:
            with self._database.read() as session:
                row = session.get_one(Destination, self._route.name)
            return row.down_until is None or row.down_until <= now
        with self._database.write() as session:
            leased = outbox.lease(session, self._route.name, self._owner, now, now + _LEASE_S)
            if leased is None:
                return False
            self._leased_until = now + _LEASE_S
            abandoned = outbox.give_up(session, self._route.name, self._route.retry, now)
        if abandoned:
            event("delivery_failed", destination=self._route.name, reason=f"{abandoned} not taken within the patience")
        return leased.down_until is None or leased.down_until <= now

    def _send(self, batch: list[tuple[Outbox, Instance]]) -> None:
        started = time.monotonic()
        rows = {row.id: instance for row, instance in batch}
        arrived = 0
        kill_point("deliver.before_send")
        for receipt in self._route.deliverer.deliver([self._outgoing(row, instance) for row, instance in batch]):
            kill_point("deliver.before_receipt")
            state = self._record(receipt)
            kill_point("deliver.after_receipt")
            self._tell(receipt, rows[receipt.outbox_id], state)
            arrived += receipt.outcome.arrived
            if self._stopping.is_set():
                break
        self._tell_finished(arrived, time.monotonic() - started)

    def _record(self, receipt: Receipt) -> OutboxState:
        now = time.time()
        with self._database.write() as session:
            row = session.get_one(Destination, self._route.name)
            if row.failures and receipt.status is not None:
                outbox.destination_works(session, self._route.name)
                event("destination_up", destination=self._route.name, address=self._route.address)
            if now > self._leased_until - _LEASE_S / 2:
                outbox.lease(session, self._route.name, self._owner, now, now + _LEASE_S)
                self._leased_until = now + _LEASE_S
            return outbox.record_answer(session, receipt, self._route.retry, now)

    def _park(self, error: PeerError) -> None:
        now = time.time()
        with self._database.write() as session:
            until = outbox.destination_failed(
                session, self._route.name, (str(error), error.hint), self._route.retry, now
            )
            failures = session.get_one(Destination, self._route.name).failures
        event(
            "destination_down",
            destination=self._route.name,
            address=self._route.address,
            attempt=failures,
            retry_s=until - now,
            error=type(error).__name__,
            reason=str(error),
            hint=error.hint,
        )

    def _outgoing(self, row: Outbox, instance: Instance) -> Outgoing:
        return Outgoing(
            outbox_id=row.id,
            path=self._path_of(instance.digest),
            sop_class_uid=instance.sop_class_uid,
            sop_instance_uid=instance.sop_instance_uid,
            transfer_syntax_uid=instance.transfer_syntax_uid,
            calling_ae=row.calling_ae,
        )

    def _tell(self, receipt: Receipt, instance: Instance, state: OutboxState) -> None:
        name = {OutboxState.SENT: "delivery_sent", OutboxState.FAILED: "delivery_failed"}.get(state, "delivery_refused")
        why = {} if state == OutboxState.SENT else {"reason": receipt.meaning, "hint": receipt.hint}
        event(
            name,
            outbox_id=receipt.outbox_id,
            destination=self._route.name,
            sop_instance_uid=instance.sop_instance_uid,
            status=receipt.status,
            **why,
        )

    def _tell_finished(self, arrived: int, seconds: float) -> None:
        if arrived:
            event("delivery_finished", destination=self._route.name, instances=arrived, seconds=seconds)


class Drainers:
    """The drainers of all destinations; `replace` follows a changed configuration."""

    def __init__(self, database: Database, path_of: Callable[[str], Path]) -> None:
        self._database = database
        self._path_of = path_of
        self.running: tuple[Drainer, ...] = ()

    @property
    def are_alive(self) -> bool:
        return all(drainer.is_alive for drainer in self.running)

    def replace(self, routes: Iterable[Route]) -> None:
        """Stop every drainer and start one for each route."""
        self.stop()
        self.running = tuple(Drainer(self._database, self._path_of, route) for route in routes)
        for drainer in self.running:
            drainer.start()

    def stop(self) -> None:
        """All are asked before any is waited for: a destination that hangs costs its time once, not each its own."""
        for drainer in self.running:
            drainer.ask_stop()
        for drainer in self.running:
            drainer.stop()
        self.running = ()
