"""Listening sockets that were bound before the server that accepts on them."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing

import pytest

from dicomnode.errors import ConfigError
from dicomnode.net.scp.listener import Listener, listen
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import ScpSettings
from dicomnode.net.scp.slots import Slots
from tests.net.clients import Client, MemoryIntake

SETTINGS = ScpSettings(("NODE",), "127.0.0.1", 1, accept_unknown=True)


def is_answered(port: int) -> bool:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        return Client(connection).associate()[0] == 2


def test_it_accepts_on_every_socket_it_is_given() -> None:
    listeners = [listen("127.0.0.1", 0), listen("127.0.0.1", 0)]
    ports = [listener.port for listener in listeners]
    server = StorageServer(SETTINGS, MemoryIntake(), listeners)
    server.start()
    try:
        assert all(is_answered(port) for port in ports)
    finally:
        server.stop(0)


def test_who_comes_while_nobody_accepts_waits_for_the_next() -> None:
    with ExitStack() as stack:
        ours = listen("127.0.0.1", 0)
        stack.callback(ours.close)
        first, second = (StorageServer(SETTINGS, MemoryIntake(), [Listener(ours.socket.dup())]) for _ in range(2))
        first.start()
        assert is_answered(ours.port)
        first.stop(0)
        connection = stack.enter_context(closing(socket.create_connection(("127.0.0.1", ours.port), timeout=10)))
        second.start()
        stack.callback(second.stop, 0)
        assert Client(connection).associate()[0] == 2


def test_a_port_in_use_is_said_with_a_hint() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken, pytest.raises(ConfigError) as caught:
        listen("127.0.0.1", taken.getsockname()[1])
    assert "cannot listen on 127.0.0.1 port" in str(caught.value)
    assert "node.port" in caught.value.hint


def test_connections_are_spread_over_those_who_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers on one socket, as two processes would be."""
    monkeypatch.setattr("dicomnode.net.scp.server._GIVING_WAY_S", 60.0)
    slots = Slots()
    with ExitStack() as stack:
        shared = listen("127.0.0.1", 0)
        stack.callback(shared.close)
        intakes = [MemoryIntake(), MemoryIntake()]
        for index, intake in enumerate(intakes):
            server = StorageServer(SETTINGS, intake, [Listener(shared.socket.dup())], slots=slots.of(index))
            server.start()
            stack.callback(server.stop, 0)
        for _ in range(4):
            connection = stack.enter_context(closing(socket.create_connection(("127.0.0.1", shared.port), timeout=10)))
            assert Client(connection).associate()[0] == 2
        assert [len(intake.opened) for intake in intakes] == [2, 2]
