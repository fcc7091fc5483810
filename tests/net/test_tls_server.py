"""The storage server on a TLS port, and on both."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.errors import ConfigError
from dicomnode.net import pdu
from dicomnode.net.negotiation import reject
from dicomnode.net.scp.listener import listen
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import Caller, ScpLimits, ScpSettings
from dicomnode.net.tls import Credentials, ServerSecurity
from dicomnode.testing.processes import wait_until
from tests.certificates import Authority, Identity
from tests.net.clients import CT, Client, MemoryIntake, fragment, store_request


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Identity:
    return authority.issue("scanner")


class Ports:
    """A server on a plain port and a TLS port."""

    def __init__(self, node: Identity, **limits: float) -> None:
        self.intake = MemoryIntake()
        self.plain, self.tls = listen("127.0.0.1", 0), listen("127.0.0.1", 0, tls=True)
        callers = (
            Caller("PLAIN", "plain", "127.0.0.1"),
            Caller("CT1", "ct1", "127.0.0.1", tls=True, certificates=("scanner",)),
        )
        security = ServerSecurity(node.credentials())
        self.settings = ScpSettings(
            ("NODE",), "127.0.0.1", 0, callers, limits=replace(ScpLimits(), **limits), security=security
        )
        self.server = StorageServer(self.settings, self.intake, (self.plain, self.tls))

    @contextlib.contextmanager
    def running(self) -> Iterator[Ports]:
        self.server.start()
        try:
            yield self
        finally:
            self.server.stop(grace_s=0.2)

    def connected(self, *, tls: bool) -> socket.socket:
        return socket.create_connection(("127.0.0.1", (self.tls if tls else self.plain).port), timeout=20)

    def secured(self, identity: Identity) -> ssl.SSLSocket:
        context = identity.credentials().client_context()
        return context.wrap_socket(self.connected(tls=True), server_hostname="localhost")


@pytest.fixture
def ports(node: Identity) -> Iterator[Ports]:
    with Ports(node).running() as ports:
        yield ports


def is_accepted(answer: bytes) -> bool:
    return answer[:1] == b"\x02"


def test_a_peer_with_the_right_certificate_stores(ports: Ports, scanner: Identity) -> None:
    content = bytes(range(256)) * 2000
    with ports.secured(scanner) as connection:
        client = Client(connection)
        assert is_accepted(client.associate(CT))
        client.send(fragment(store_request(), is_command=True))
        for start in range(0, len(content), 100_000):
            piece = content[start : start + 100_000]
            client.send(fragment(piece, is_last=start + 100_000 >= len(content)))
        assert client.read_pdu()[:1] == b"\x04"
        client.send(pdu.RELEASE_RQ)
        assert client.read_pdu() == pdu.RELEASE_RP
    assert ports.intake.contents() == {"1.2.3": content}
    assert [sender.peer for sender in ports.intake.opened] == ["ct1"]


def test_another_certificate_of_the_same_ca_is_refused(ports: Ports, authority: Authority) -> None:
    with ports.secured(authority.issue("other")) as connection:
        assert Client(connection).associate() == reject(1, 1, 3)
    assert not ports.intake.opened


def test_both_ports_serve_at_once_and_a_secured_peer_cannot_call_in_clear(ports: Ports, scanner: Identity) -> None:
    with ports.connected(tls=False) as plain, ports.secured(scanner) as secured:
        assert is_accepted(Client(plain).associate(calling_ae="PLAIN"))
        assert is_accepted(Client(secured).associate(calling_ae="CT1"))
    with ports.connected(tls=False) as plain:
        assert Client(plain).associate(calling_ae="CT1") == reject(1, 1, 3)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_nobody_without_a_certificate_gets_to_dicom(version: ssl.TLSVersion, ports: Ports, node: Identity) -> None:
    context = Credentials(ca=node.ca).client_context()
    context.maximum_version = version
    with (
        ports.connected(tls=True) as connection,
        pytest.raises(OSError, match=r"(?i)handshake|certificate|reset|broken"),
    ):
        secured = context.wrap_socket(connection, server_hostname="localhost")
        with secured:  # in TLS 1.3 it learns of it at the first read
            Client(secured).send(b"\x01")
            secured.recv(1)


def test_a_plain_caller_on_the_tls_port_is_cut_off(ports: Ports) -> None:
    with ports.connected(tls=True) as connection:
        answer = Client(connection).associate(calling_ae="PLAIN")
        assert answer[:1] in (b"", b"\x15")
    assert not ports.intake.opened


def test_a_tls_caller_on_the_plain_port_is_cut_off(ports: Ports, scanner: Identity) -> None:
    with ports.connected(tls=False) as connection, pytest.raises(OSError, match=r"(?i)ssl|reset"):
        scanner.credentials().client_context().wrap_socket(connection, server_hostname="localhost")


def test_silent_tls_connections_block_nobody_and_the_oldest_makes_room(node: Identity, scanner: Identity) -> None:
    with contextlib.ExitStack() as stack:
        ports = stack.enter_context(Ports(node, pending=4).running())
        silent = [stack.enter_context(ports.connected(tls=True)) for _ in range(8)]
        silent[-1].sendall(b"\x16\x03\x01")  # half a record
        assert is_accepted(Client(stack.enter_context(ports.secured(scanner))).associate(calling_ae="CT1"))
        assert is_accepted(Client(stack.enter_context(ports.connected(tls=False))).associate(calling_ae="PLAIN"))
        assert Client(silent[0]).is_cut_off()


def test_a_handshake_that_takes_too_long_is_ended(node: Identity) -> None:
    with Ports(node, artim_s=0.2).running() as ports, ports.connected(tls=True) as silent:
        assert Client(silent).is_cut_off()


def test_stopping_waits_for_no_handshake(node: Identity) -> None:
    with contextlib.ExitStack() as stack:
        with Ports(node).running() as ports:
            silent = stack.enter_context(ports.connected(tls=True))
            wait_until(lambda: threading.active_count() > 2, 20, "the connection was taken in")
        assert Client(silent).is_cut_off()


def test_a_new_certificate_is_used_at_once_and_open_associations_go_on(
    authority: Authority, scanner: Identity, tmp_path: Path
) -> None:
    own = Identity(tmp_path / "node.pem", tmp_path / "node.key", authority.path, "")

    def put(name: str) -> str:
        issued = authority.issue(name)
        own.certificate.write_bytes(issued.certificate.read_bytes())
        own.key.write_bytes(issued.key.read_bytes())
        return issued.fingerprint

    def shown(connection: ssl.SSLSocket) -> str:
        (name,) = [value for ((kind, value),) in (connection.getpeercert() or {})["subject"] if kind == "commonName"]
        return str(name)

    put("old")
    with Ports(own).running() as ports, ports.secured(scanner) as before:
        assert is_accepted(Client(before).associate(CT))
        put("new")
        with ports.secured(scanner) as meanwhile:
            assert shown(meanwhile) == "old"
        ports.server.reconfigure(ports.settings)
        with ports.secured(scanner) as after:
            assert shown(after) == "new"
        own.key.write_text("damaged")
        with pytest.raises(ConfigError):
            ports.server.reconfigure(replace(ports.settings, ae_titles=("ELSE",)))
        with ports.secured(scanner) as still:
            assert shown(still) == "new"
            assert is_accepted(Client(still).associate(CT))
        Client(before).send(fragment(store_request(), is_command=True) + fragment(b"abcd"))
        assert Client(before).read_pdu()[:1] == b"\x04"
    assert ports.intake.contents() == {"1.2.3": b"abcd"}


def test_a_server_with_unusable_certificates_says_so(node: Identity, tmp_path: Path) -> None:
    missing = replace(Ports(node).settings, security=ServerSecurity(Credentials(tmp_path / "none", None, node.ca)))
    with pytest.raises(ConfigError, match=r"tls\.certificate: .* cannot be read"):
        StorageServer(missing, MemoryIntake())
