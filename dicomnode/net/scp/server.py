"""The storage server: listening sockets, a thread an association."""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from dicomnode import telemetry
from dicomnode.core.ports import Intake, Notifications
from dicomnode.net.contexts import NOTIFICATION_CLASSES, STORAGE_CLASSES, VERIFICATION
from dicomnode.net.dimse import CommandField
from dicomnode.net.pdu import Wire
from dicomnode.net.scp.admission import AddressesOf, HostAddresses, normal_address
from dicomnode.net.scp.agreement import Negotiator, Terms
from dicomnode.net.scp.association import Acceptor, serve
from dicomnode.net.scp.exchange import Service
from dicomnode.net.scp.listener import Listener, is_waited_for, listen
from dicomnode.net.scp.notification import notification_services
from dicomnode.net.scp.settings import ScpSettings
from dicomnode.net.scp.slots import OwnSlots, Slots
from dicomnode.net.scp.storage import StorageService, echo
from dicomnode.net.tls_wire import TlsWire

_OUT_OF_DESCRIPTORS_PAUSE_S: Final = 0.2
_GIVING_WAY_S: Final = 0.02
_GIVING_WAY_STEP_S: Final = 0.001


class StorageServer:
    """Receives instances and hands them to an `Intake`. `start` once, `stop` once.

    listeners     where to accept; none: one of its own, by the settings, bound at the start
    addresses_of  resolves the hosts of callers
    notifications  takes in what peers tell by N-services; none: those are not offered
    slots         where open associations are counted; none: for this server alone
    """

    def __init__(
        self,
        settings: ScpSettings,
        intake: Intake,
        listeners: Sequence[Listener] = (),
        addresses_of: AddressesOf | None = None,
        slots: OwnSlots | None = None,
        notifications: Notifications | None = None,
    ) -> None:
        self._settings = settings
        self._context = _context(settings)
        self._served = frozenset() if notifications is None else NOTIFICATION_CLASSES
        self._acceptor = Acceptor(
            settings=settings,
            intake=intake,
            negotiate=self._negotiator(settings),
            services={
                CommandField.C_ECHO_RQ: echo,
                CommandField.C_STORE_RQ: StorageService(intake, settings.limits.max_dataset_bytes),
                **notification_services(notifications),
            },
            addresses_of=addresses_of or HostAddresses(),
            take_slot=self._take_slot,
        )
        self._slots = slots or Slots().of(0)
        self._lock = threading.Lock()
        self._threads: dict[Wire, threading.Thread] = {}
        self._taken: dict[Wire, int] = {}
        self._pending: dict[Wire, None] = {}  # no association yet, oldest first
        self._stopping = threading.Event()
        self._awake, self._awaken = socket.socketpair()
        self._listeners = tuple(listeners)
        self._accepting = threading.Thread(target=self._accept, name="dicom-accept", daemon=True)

    @property
    def port(self) -> int:
        """The TCP port listened on; known once started."""
        return self._listeners[0].port

    @property
    def is_accepting(self) -> bool:
        return self._accepting.is_alive()

    def start(self) -> None:
        """Serve in background threads. Raises ConfigError where the port cannot be had."""
        self._listeners = self._listeners or (listen(self._settings.host, self._settings.port),)
        self._slots.open()
        self._accepting.start()

    def reconfigure(self, settings: ScpSettings) -> None:
        """Judge associations by other settings from now on. Open ones go on; host and port stay what they are.

        Certificates are read anew. Raises ConfigError where they cannot be used; nothing has changed then.
        """
        self._context = _context(settings) or self._context
        self._settings = settings
        services: dict[int, Service] = {
            **self._acceptor.services,
            CommandField.C_STORE_RQ: StorageService(self._acceptor.intake, settings.limits.max_dataset_bytes),
        }
        self._acceptor = replace(
            self._acceptor, settings=settings, services=services, negotiate=self._negotiator(settings)
        )

    def _negotiator(self, settings: ScpSettings) -> Negotiator:
        supported = frozenset({VERIFICATION, *STORAGE_CLASSES, *settings.private_sop_classes, *self._served})
        return Negotiator(Terms(supported, settings.accept_unknown_sop_classes, settings.operations))

    def stop(self, grace_s: float = 30.0) -> None:
        """Accept nothing new, let associations finish for at most `grace_s`, abort the others."""
        deadline = time.monotonic() + grace_s
        if not self._stopping.is_set():
            self._stop_accepting()
        with self._lock:
            pending, threads = tuple(self._pending), dict(self._threads)
        for wire in pending:
            wire.stop()
        for thread in threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        for wire, thread in threads.items():
            wire.stop()
            thread.join(self._settings.limits.idle_s)  # one that is committing finishes that

    def _stop_accepting(self) -> None:
        self._stopping.set()
        self._slots.close()
        self._awaken.send(b"\0")
        if self._accepting.ident is not None:
            self._accepting.join()
        for listener in self._listeners:
            listener.close()
        self._awake.close()
        self._awaken.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._awake, selectors.EVENT_READ)
            for listener in self._listeners:
                selector.register(listener.socket, selectors.EVENT_READ, listener)
            while not self._stopping.is_set():
                for key, _ in selector.select():
                    if key.data is not None:
                        self._give_way(key.data)
                        self._accept_one(key.data)

    def _give_way(self, listener: Listener) -> None:
        """Four associations should have two processes at work, not one: who has fewer connections goes first."""
        until = time.monotonic() + _GIVING_WAY_S
        while self._slots.others_are_idler() and time.monotonic() < until and is_waited_for(listener):
            self._stopping.wait(_GIVING_WAY_STEP_S)

    def _accept_one(self, listener: Listener) -> None:
        try:
            connection, address = listener.socket.accept()
        except BlockingIOError:  # another process that accepts here was faster
            return
        except OSError as error:
            hint = "the limit of open files may be too low: see ulimit -n"
            telemetry.event("connection_failed", reason=error.strerror or type(error).__name__, hint=hint)
            self._stopping.wait(_OUT_OF_DESCRIPTORS_PAUSE_S)
            return
        self._take_in(self._wire(connection, normal_address(str(address[0])), listener))

    def _wire(self, connection: socket.socket, address: str, listener: Listener) -> Wire:
        if listener.tls:
            assert self._context is not None, "a TLS port and no security settings"
            return TlsWire(connection, address, self._context)
        return Wire(connection, address)

    def _take_in(self, wire: Wire) -> None:
        """Serve a new connection; the oldest one without an association makes room for it if need be."""
        thread = threading.Thread(target=self._serve, args=(wire,), name="dicom-association", daemon=True)
        with self._lock:
            if len(self._pending) >= self._settings.limits.pending:
                superfluous = _superfluous(self._pending)
                del self._pending[superfluous]
                superfluous.stop()
            self._pending[wire] = None
            self._threads[wire] = thread
            self._slots.tell_connections(len(self._threads))
        thread.start()

    def _serve(self, wire: Wire) -> None:
        try:
            serve(wire, self._acceptor)
        finally:
            with self._lock:
                self._pending.pop(wire, None)
                del self._threads[wire]
                self._slots.tell_connections(len(self._threads))
                if (slot := self._taken.pop(wire, None)) is not None:
                    self._slots.give_back(slot)

    def _take_slot(self, wire: Wire, peer: str) -> bool:
        """Count a connection as an association of a peer, where the limits allow it."""
        slot = self._slots.take(wire.address, peer, self._settings.most(peer))
        if slot is None:
            return False
        with self._lock:
            self._taken[wire] = slot
            self._pending.pop(wire, None)
        return True


def _superfluous(pending: Iterable[Wire]) -> Wire:
    """The oldest connection without an association, from the address that has most of them: who opens many closes his
    own, and no others'."""
    at = Counter(wire.address for wire in pending)
    busiest = max(at.values())
    return next(wire for wire in pending if at[wire.address] == busiest)


def _context(settings: ScpSettings) -> ssl.SSLContext | None:
    return None if settings.security is None else settings.security.context()
