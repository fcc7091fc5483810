"""A storage server whose intake is in memory, and certificates."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import ScpLimits, ScpSettings
from tests.certificates import Authority, Identity
from tests.net.clients import Client, MemoryIntake


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA of a module's own."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def node(authority: Authority) -> Identity:
    """The certificate that our server shows."""
    return authority.issue("node")


@pytest.fixture
def intake() -> MemoryIntake:
    return MemoryIntake()


@pytest.fixture
def limits() -> ScpLimits:
    return ScpLimits()


@pytest.fixture
def settings(limits: ScpLimits) -> ScpSettings:
    return ScpSettings(("NODE", "OTHER"), "127.0.0.1", 0, accept_unknown=True, limits=limits)


@pytest.fixture
def server(settings: ScpSettings, intake: MemoryIntake) -> Iterator[StorageServer]:
    server = StorageServer(settings, intake)
    server.start()
    yield server
    server.stop(grace_s=0.2)


@pytest.fixture
def connect(server: StorageServer) -> Iterator[Callable[[], Client]]:
    connections = []

    def _connect() -> Client:
        connections.append(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        return Client(connections[-1])

    yield _connect
    for connection in connections:
        connection.close()
