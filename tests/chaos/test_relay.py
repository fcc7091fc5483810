"""The balancer and the lines that can be cut, between sockets of the test's own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chaos.relay import Relay
from dicomnode.testing.processes import free_port

TIMEOUT_S = 20.0


@contextmanager
def echoing(name: bytes) -> Iterator[int]:
    """A server that answers each connection with its name, then with what it is sent; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection: socket.socket) -> None:
            with connection:
                connection.sendall(name)
                while content := connection.recv(100):
                    connection.sendall(content)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def connected(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), TIMEOUT_S)


def test_callers_are_dealt_to_the_targets_in_turn_and_past_those_that_are_down() -> None:
    with echoing(b"a") as one, echoing(b"b") as other, Relay([one, free_port(), other]) as relay:
        names = []
        for _ in range(4):
            with connected(relay) as caller:
                names.append(caller.recv(1))
    assert sorted(names) == [b"a", b"a", b"b", b"b"]


def test_a_caller_whom_no_target_takes_is_told_at_once() -> None:
    with Relay([free_port()]) as relay, connected(relay) as caller:
        assert caller.recv(1) == b""


@pytest.mark.parametrize("keep", [True, False])
def test_nothing_passes_while_the_line_is_cut(keep: bool) -> None:
    with echoing(b"a") as target, Relay([target]) as relay, connected(relay) as caller:
        assert caller.recv(1) == b"a"
        relay.cut()
        caller.sendall(b"x")
        with connected(relay) as late:
            for each in (caller, late):
                each.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    each.recv(1)
                each.settimeout(TIMEOUT_S)
            relay.mend(keep=keep)
            assert late.recv(1) == b"a"
        assert caller.recv(1) == (b"x" if keep else b"")
