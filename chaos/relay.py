"""TCP relays on 127.0.0.1: a balancer before the machines, and lines to the database that can be cut."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from dicomnode.testing.listening import Listening

_CONNECT_S: Final = 2.0
_BLOCK_BYTES: Final = 1 << 16


class Relay(Listening):
    """Passes connections on to one of its targets, each time to the next that takes one; a context manager.

    Who connects while no target takes connections is closed at once. While it is cut, nothing passes in either
    direction and nobody is told, as where a cable was pulled; new connections are taken, and left without a word.
    """

    def __init__(self, targets: Sequence[int]) -> None:
        super().__init__()
        self._targets = itertools.cycle(targets)
        self._count = len(targets)
        self._passing = threading.Event()
        self._passing.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.mend(keep=False)

    def cut(self) -> None:
        """Let nothing pass."""
        self._passing.clear()

    def mend(self, keep: bool) -> None:
        """Let everything pass again; `keep` the connections, with what waited in them, or end them all."""
        if not keep:
            with self._lock:
                for connection in self._open:
                    with contextlib.suppress(OSError):  # it has ended already
                        connection.shutdown(socket.SHUT_RDWR)
        self._passing.set()

    def _serve(self, caller: socket.socket) -> None:
        with caller:
            self._passing.wait()
            target = self._target()
            if target is None:
                return
            with target, self._kept(caller, target):
                back = threading.Thread(target=self._pump, args=(target, caller), daemon=True)
                back.start()
                self._pump(caller, target)
                back.join()

    @contextlib.contextmanager
    def _kept(self, *connections: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.update(connections)
        try:
            yield
        finally:
            with self._lock:
                self._open.difference_update(connections)

    def _target(self) -> socket.socket | None:
        """A connection with the next target that takes one."""
        for _ in range(self._count):
            with contextlib.suppress(OSError):
                target = socket.create_connection(("127.0.0.1", next(self._targets)), _CONNECT_S)
                target.settimeout(None)
                target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return target
        return None

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Pass bytes on until one side has ended; then the other is told."""
        with contextlib.suppress(OSError):
            while block := source.recv(_BLOCK_BYTES):
                self._passing.wait()
                sink.sendall(block)
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
