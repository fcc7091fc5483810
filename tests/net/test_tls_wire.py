"""Two ends of one TLS connection."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode.errors import AssociationLostError
from dicomnode.net import pdu
from dicomnode.net.pdu import Fragment, Pdu, PduType, StoppedError, Wire
from dicomnode.net.tls_wire import TlsError, TlsWire
from dicomnode.testing.processes import wait_until
from tests.certificates import Authority, Identity


@pytest.fixture(scope="module", name="ends")
def _ends(tmp_path_factory: pytest.TempPathFactory) -> tuple[Identity, Identity]:
    """Whom the server is, and whom the client."""
    authority = Authority(tmp_path_factory.mktemp("ca"))
    return authority.issue("node"), authority.issue("scanner")


Pair = tuple[TlsWire, TlsWire]


@contextmanager
def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        called = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with called, accepted:
        yield accepted, called


@contextmanager
def joined(ends: tuple[Identity, Identity], version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Iterator[Pair]:
    """Both ends after the handshake, the server first."""
    with tcp() as (accepted, called), ThreadPoolExecutor() as pool:
        client_context = ends[1].credentials().client_context()
        client_context.maximum_version = version
        server = TlsWire(accepted, "client", ends[0].credentials().server_context())
        client = TlsWire(called, "server", client_context, "localhost")
        for wire in (server, client):
            wire.set_timeout(20)
        for done in [pool.submit(wire.secure) for wire in (server, client)]:
            done.result()
        yield server, client
        server.close()
        client.close()


@pytest.fixture(name="pair", params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def _pair(request: pytest.FixtureRequest, ends: tuple[Identity, Identity]) -> Iterator[Pair]:
    with joined(ends, request.param) as pair:
        yield pair


def test_both_ends_know_each_other(pair: Pair, ends: tuple[Identity, Identity]) -> None:
    server, client = pair
    assert server.is_secured
    assert client.is_secured
    assert server.certificate is not None
    assert server.certificate.is_one_of([ends[1].fingerprint])
    assert client.certificate is not None
    assert client.certificate.is_one_of(["NODE"])


def test_pdus_of_any_size_pass(pair: Pair) -> None:
    server, client = pair
    for size in (0, 2, 16_000, 131_066):
        content = bytes(size) if size < 9 else bytes(range(256)) * (size // 256)
        client.send(pdu.data_header(1, False, True, len(content)), content)
        fragment = server.read()
        assert isinstance(fragment, Fragment)
        assert fragment.payload == content
    client.send(pdu.RELEASE_RQ)
    assert server.read() == Pdu(PduType.RELEASE_RQ, bytes(4))


def test_nothing_readable_goes_over_the_socket(ends: tuple[Identity, Identity]) -> None:
    with tcp() as (accepted, called), tcp() as (inner_accepted, inner_called):
        seen = bytearray()

        def tap(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):  # an end may be reset by what it did not read
                while chunk := source.recv(1 << 16):
                    seen.extend(chunk)
                    sink.sendall(chunk)
                sink.shutdown(socket.SHUT_WR)

        server = TlsWire(inner_accepted, "client", ends[0].credentials().server_context())
        client = TlsWire(called, "server", ends[1].credentials().client_context(), "localhost")
        with ThreadPoolExecutor() as pool:
            taps = [pool.submit(tap, accepted, inner_called), pool.submit(tap, inner_called, accepted)]
            for wire in (server, client):
                wire.set_timeout(20)
            for done in [pool.submit(wire.secure) for wire in (server, client)]:
                done.result()
            client.send(pdu.data_header(1, False, True, 7), b"DOE^JOE")
            assert isinstance(server.read(), Fragment)
            server.stop()
            server.send(b"DOE^JANE")
            server.close()
            client.close()
            for done in taps:
                done.result()
        assert len(seen) > 1000
        assert b"DOE" not in seen


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=12))
def test_what_is_sent_in_many_parts_arrives_in_order(ends: tuple[Identity, Identity], sizes: list[int]) -> None:
    with joined(ends) as (server, client):
        contents = [bytes([number % 251]) * (size & ~1) for number, size in enumerate(sizes)]
        parts = [part for each in contents for part in (pdu.data_header(1, False, True, len(each)), each)]
        with ThreadPoolExecutor() as pool:
            sending = pool.submit(client.send, *parts)
            for content in contents:
                fragment = server.read()
                assert isinstance(fragment, Fragment)
                assert fragment.payload == content
            sending.result()


def test_both_ends_may_send_at_once(pair: Pair) -> None:
    content = bytes(131_066)
    parts = [pdu.data_header(1, False, True, len(content)), content] * 64

    def receive(wire: TlsWire) -> int:
        return sum(len(wire.read().payload) for _ in range(64))  # type: ignore[union-attr]

    with ThreadPoolExecutor() as pool:
        sending = [pool.submit(wire.send, *parts) for wire in pair]
        receiving = [pool.submit(receive, wire) for wire in pair]
        assert [done.result() for done in receiving] == [64 * len(content)] * 2
        for done in sending:
            done.result()


def test_silence_is_told_from_an_abort_and_an_end(pair: Pair) -> None:
    server, client = pair
    assert server.is_silent()
    assert client.is_silent()
    server.send(pdu.ABORT_BY_USER)
    wait_until(lambda: not client.is_silent(), 20, "the client had something to read")
    with pytest.raises(pdu.AbortedError):
        client.read()
    client.close()
    wait_until(lambda: not server.is_silent(), 20, "the server had noticed")


def test_what_came_before_it_was_asked_for_is_not_lost(pair: Pair) -> None:
    server, client = pair
    server.send(pdu.RELEASE_RQ)
    wait_until(lambda: not client.is_silent(), 20, "the client had something to read")
    assert not client.is_silent()
    assert client.read() == Pdu(PduType.RELEASE_RQ, bytes(4))


@pytest.mark.parametrize("end", [Wire.stop, Wire.cut])
def test_a_reader_is_woken_from_another_thread(end: Callable[[Wire], None], pair: Pair) -> None:
    server, _ = pair
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(server.read)
        end(server)
        with pytest.raises(StoppedError):
            reading.result(20)


def test_one_that_is_stopped_still_says_good_bye_encrypted(pair: Pair) -> None:
    server, client = pair
    server.stop()
    with pytest.raises(StoppedError):
        server.read()
    server.send(pdu.ABORT_BY_USER)
    server.close()
    with pytest.raises(pdu.AbortedError):
        client.read()


@pytest.mark.parametrize("politely", [True, False])
def test_an_end_with_and_without_close_notify_is_an_end(politely: bool, pair: Pair) -> None:
    server, client = pair
    if politely:
        client.close()
    else:
        Wire.close(client)
    with pytest.raises(AssociationLostError, match="closed the connection") as lost:
        server.read()
    assert not isinstance(lost.value, TlsError)


def test_closing_waits_for_nobody(pair: Pair) -> None:
    server, client = pair
    server.close()  # the client neither reads nor answers
    server.close()
    with pytest.raises(AssociationLostError):
        client.read()


def test_a_damaged_record_ends_the_connection(ends: tuple[Identity, Identity]) -> None:
    with tcp() as (accepted, called):
        server = TlsWire(accepted, "client", ends[0].credentials().server_context())
        client = TlsWire(called, "server", ends[1].credentials().client_context(), "localhost")
        with ThreadPoolExecutor() as pool:
            for wire in (server, client):
                wire.set_timeout(20)
            for done in [pool.submit(wire.secure) for wire in (server, client)]:
                done.result()
        called.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(TlsError):
            server.read()


@pytest.mark.parametrize(
    "said", [b"\x01\x00\x00\x00\x00\x44" + bytes(68), b"GET / HTTP/1.1\r\n\r\n", bytes(100)], ids=["dicom", "http", "0"]
)
def test_who_does_not_speak_tls_is_told_so(said: bytes, ends: tuple[Identity, Identity]) -> None:
    with tcp() as (accepted, called):
        server = TlsWire(accepted, "client", ends[0].credentials().server_context())
        server.set_timeout(20)
        called.sendall(said)
        with pytest.raises(TlsError, match="the other side does not speak TLS here") as refused:
            server.secure()
        assert "TLS port" in refused.value.hint


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.one_of(st.binary(max_size=600), st.binary(max_size=600).map(lambda body: b"\x16\x03\x01" + body)))
def test_whatever_a_stranger_says_instead_of_a_handshake_ends_it(ends: tuple[Identity, Identity], said: bytes) -> None:
    with tcp() as (accepted, called):
        server = TlsWire(accepted, "client", ends[0].credentials().server_context())
        server.set_timeout(20)
        called.sendall(said)
        called.shutdown(socket.SHUT_WR)
        with pytest.raises(AssociationLostError):
            server.secure()
        server.close()


@pytest.mark.parametrize("trickle", [False, True])
def test_a_handshake_has_one_time_limit(trickle: bool, ends: tuple[Identity, Identity]) -> None:
    with tcp() as (accepted, called):
        server = TlsWire(accepted, "client", ends[0].credentials().server_context())
        server.set_timeout(0.3)
        ended = threading.Event()

        def drip() -> None:
            called.sendall(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03")
            while trickle and not ended.wait(0.05):
                called.sendall(b"\0")

        with ThreadPoolExecutor() as pool:
            pool.submit(drip)
            try:
                with pytest.raises(AssociationLostError, match="the TLS handshake took too long"):
                    server.secure()
            finally:
                ended.set()


def test_a_handshake_can_be_stopped(ends: tuple[Identity, Identity]) -> None:
    with tcp() as (accepted, _), ThreadPoolExecutor() as pool:
        server = TlsWire(accepted, "client", ends[0].credentials().server_context())
        server.set_timeout(20)
        securing = pool.submit(server.secure)
        server.stop()
        with pytest.raises(AssociationLostError):
            securing.result(20)


def test_a_refused_certificate_is_explained_on_both_sides(ends: tuple[Identity, Identity], tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Other CA").issue("stranger")
    with tcp() as (accepted, called), ThreadPoolExecutor() as pool:
        server = TlsWire(accepted, "client", ends[0].credentials().server_context())
        client = TlsWire(called, "server", stranger.credentials().client_context(), "localhost")
        for wire in (server, client):
            wire.set_timeout(20)
        securing = [pool.submit(wire.secure) for wire in (server, client)]
        with pytest.raises(TlsError, match="its certificate is not accepted"):
            securing[1].result()
        with pytest.raises(TlsError, match="the other side does not believe the CA of our certificate"):
            securing[0].result()
