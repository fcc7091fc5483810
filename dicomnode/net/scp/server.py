"""The storage server: one listening socket, a thread an association."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Final

from dicomnode import telemetry
from dicomnode.core.ports import Intake
from dicomnode.errors import ConfigError
from dicomnode.net.contexts import STORAGE_CLASSES, VERIFICATION
from dicomnode.net.dimse import CommandField
from dicomnode.net.pdu import Wire
from dicomnode.net.scp.admission import AddressesOf, HostAddresses, normal_address
from dicomnode.net.scp.association import Acceptor, serve
from dicomnode.net.scp.exchange import Service
from dicomnode.net.scp.settings import ScpSettings
from dicomnode.net.scp.storage import StorageService, echo

_RECEIVE_BUFFER_BYTES: Final = 1 << 20  # 15 to 25 % more throughput than the kernel's own choice
_BACKLOG: Final = 128
_OUT_OF_DESCRIPTORS_PAUSE_S: Final = 0.2


class StorageServer:
    """Receives instances and hands them to an `Intake`. `start` once, `stop` once.

    addresses_of  resolves the hosts of callers
    """

    def __init__(self, settings: ScpSettings, intake: Intake, addresses_of: AddressesOf | None = None) -> None:
        self._settings = settings
        self._acceptor = Acceptor(
            settings=settings,
            intake=intake,
            supported=frozenset({VERIFICATION, *STORAGE_CLASSES, *settings.private_sop_classes}),
            services={
                CommandField.C_ECHO_RQ: echo,
                CommandField.C_STORE_RQ: StorageService(intake, settings.limits.max_dataset_bytes),
            },
            addresses_of=addresses_of or HostAddresses(),
            take_slot=self._take_slot,
        )
        self._lock = threading.Lock()
        self._threads: dict[Wire, threading.Thread] = {}
        self._pending: dict[Wire, None] = {}  # no association yet, oldest first
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._accepting = threading.Thread(target=self._accept, name="dicom-accept", daemon=True)

    @property
    def port(self) -> int:
        """The TCP port listened on; known once started."""
        assert self._listener is not None, "not started"
        return int(self._listener.getsockname()[1])

    @property
    def is_accepting(self) -> bool:
        return self._accepting.is_alive()

    def start(self) -> None:
        """Bind and serve in background threads. Raises ConfigError where the port cannot be had."""
        host, port = self._settings.host, self._settings.port
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host} port {port}: {error.strerror}", "another program may have it: see node.port"
            ) from None
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self._accepting.start()

    def reconfigure(self, settings: ScpSettings) -> None:
        """Judge associations by other settings from now on. Open ones go on; host and port stay what they are."""
        self._settings = settings
        services: dict[int, Service] = {
            **self._acceptor.services,
            CommandField.C_STORE_RQ: StorageService(self._acceptor.intake, settings.limits.max_dataset_bytes),
        }
        self._acceptor = replace(self._acceptor, settings=settings, services=services)

    def stop(self, grace_s: float = 30.0) -> None:
        """Accept nothing new, let associations finish for at most `grace_s`, abort the others."""
        deadline = time.monotonic() + grace_s
        self._stopping.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread; close() would not
            self._accepting.join()
            self._listener.close()
        with self._lock:
            pending, threads = tuple(self._pending), dict(self._threads)
        for wire in pending:
            wire.stop()
        for thread in threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        for wire, thread in threads.items():
            wire.stop()
            thread.join(self._settings.limits.idle_s)  # one that is committing finishes that

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._stopping.is_set():
            try:
                connection, address = self._listener.accept()
            except OSError as error:
                if not self._stopping.is_set():
                    hint = "the limit of open files may be too low: see ulimit -n"
                    telemetry.event("connection_failed", reason=error.strerror or type(error).__name__, hint=hint)
                    self._stopping.wait(_OUT_OF_DESCRIPTORS_PAUSE_S)
                continue
            self._take_in(Wire(connection, normal_address(str(address[0]))))

    def _take_in(self, wire: Wire) -> None:
        """Serve a new connection; the oldest one without an association makes room for it if need be."""
        thread = threading.Thread(target=self._serve, args=(wire,), name="dicom-association", daemon=True)
        with self._lock:
            if len(self._pending) >= self._settings.limits.pending:
                oldest = next(iter(self._pending))
                del self._pending[oldest]
                oldest.stop()
            self._pending[wire] = None
            self._threads[wire] = thread
        thread.start()

    def _serve(self, wire: Wire) -> None:
        try:
            serve(wire, self._acceptor)
        finally:
            with self._lock:
                self._pending.pop(wire, None)
                del self._threads[wire]

    def _take_slot(self, wire: Wire) -> bool:
        """Count a connection as an association, where the limits allow it."""
        limits = self._settings.limits
        with self._lock:
            open_at = Counter(other.address for other in self._threads if other not in self._pending)
            if open_at.total() >= limits.associations or open_at[wire.address] >= limits.per_address:
                return False
            self._pending.pop(wire, None)
            return True
