"""Whatever others hold open, a known peer is answered."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import Caller, ScpLimits, ScpSettings
from tests.net.clients import ECHO, Client, MemoryIntake

IDLE = 1000
ACCEPTED, REJECTED = 2, 3
Connect = Callable[[], Client]


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4 * IDLE:
        pytest.skip("this system does not let us open so many connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * IDLE), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def settings() -> ScpSettings:
    """A busy gateway may have more associations than others at its address."""
    callers = (Caller("CT1", "ct1", "127.0.0.1"), Caller("GATE", "gate", "127.0.0.1", associations=3))
    limits = ScpLimits(associations=10, per_address=2)
    return ScpSettings(("NODE",), "127.0.0.1", 0, callers, accept_unknown=True, limits=limits)


def test_a_thousand_idle_connections_from_its_address_do_not_keep_a_known_peer_out(
    server: StorageServer, connect: Connect, intake: MemoryIntake
) -> None:
    with ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        answer = connect().associate(ECHO, calling_ae="CT1")
        assert answer[0] == ACCEPTED
        assert [sender.peer for sender in intake.opened] == ["ct1"]


def test_a_peer_has_so_many_associations_as_it_was_given(connect: Connect) -> None:
    assert [connect().associate(ECHO, calling_ae="GATE")[0] for _ in range(4)] == [ACCEPTED] * 3 + [REJECTED]
    rejected = connect().associate(ECHO, calling_ae="CT1")
    assert rejected[0] == REJECTED, "its address has three already, and two are allowed to those without a number"


def test_who_opens_many_connections_closes_his_own(settings: ScpSettings) -> None:
    """Addresses within 127.0.0.0/8 are all ours."""
    limits = ScpLimits(pending=10)
    server = StorageServer(ScpSettings(("NODE",), "127.0.0.1", 0, accept_unknown=True, limits=limits), MemoryIntake())
    server.start()
    with ExitStack() as stack:
        stack.callback(server.stop, 0.2)

        def come_from(address: str) -> Client:
            connection = socket.create_connection(("127.0.0.1", server.port), 10, (address, 0))
            return Client(stack.enter_context(connection))

        quiet = come_from("127.0.0.2")
        crowd = [come_from("127.0.0.3") for _ in range(20)]
        assert crowd[0].is_cut_off()
        assert quiet.associate(ECHO)[0] == ACCEPTED
