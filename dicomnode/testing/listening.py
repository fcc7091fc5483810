"""A listener on 127.0.0.1 that gives each caller a thread: the base of TCP servers of tests and benchmarks."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from typing import Final, Self

from dicomnode.testing.processes import free_port

_BACKLOG: Final = 128


class Listening(ABC):
    """Listens at `port` from the start, and serves who calls while it is entered; a context manager.

    Once it is left nobody is let in any more; connections that are open then go on.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=_BACKLOG)
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @abstractmethod
    def _serve(self, caller: socket.socket) -> None:
        """Serve one connection to its end, and close it."""

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(caller,), daemon=True).start()
