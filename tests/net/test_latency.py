"""No small write waits for an ACK that the other side delays: Nagle off, and every receive acknowledged at once."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import pytest

from dicomnode.net import scu
from dicomnode.net.pdu import Wire
from dicomnode.net.scp import server as scp
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scu import PeerAddress, associate
from dicomnode.testing.processes import wait_until
from tests.net.clients import CT, CT_IMAGE, EXPLICIT, MemoryIntake

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="TCP_QUICKACK is Linux's")


class RecordingSocket(socket.socket):
    """A real connection that notes its receives and the TCP options that are set on it."""

    calls: list[str]

    def setsockopt(self, level: int, option: int, value: Any) -> None:  # type: ignore[override]
        super().setsockopt(level, option, value)
        names = {socket.TCP_NODELAY: "nodelay", socket.TCP_QUICKACK: "quickack"}
        if level == socket.IPPROTO_TCP and option in names and value:
            self.calls.append(names[option])

    def recv_into(self, *arguments: Any) -> int:
        received = super().recv_into(*arguments)
        if received:
            self.calls.append("receive")
        return received


class Recorder:
    """Stands in for `Wire` where connections are made."""

    def __init__(self) -> None:
        self.sockets: list[RecordingSocket] = []

    def __call__(self, connection: socket.socket, address: str) -> Wire:
        recording = RecordingSocket(fileno=connection.detach())
        recording.calls = []
        self.sockets.append(recording)
        return Wire(recording, address)


def acknowledged(calls: Sequence[str]) -> list[bool]:
    """For each receive, whether TCP_QUICKACK was set again right after it."""
    following = [*calls[1:], "end"]
    return [after == "quickack" for call, after in zip(calls, following, strict=True) if call == "receive"]


def test_both_sides_write_and_acknowledge_at_once(
    server: StorageServer, intake: MemoryIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending, receiving = Recorder(), Recorder()
    monkeypatch.setattr(scu, "Wire", sending)
    monkeypatch.setattr(scp, "Wire", receiving)
    with associate(PeerAddress("127.0.0.1", server.port, "NODE"), "CT1", [CT]) as association:
        for number in (1, 2):
            assert association.store_encoded(bytes(300_000), CT_IMAGE, f"1.2.{number}", EXPLICIT) == 0
    wait_until(lambda: bool(intake.ended), 10, "the association ended")
    for recorder in (sending, receiving):
        (recorded,) = recorder.sockets
        assert recorded.calls[0] == "nodelay"
        assert len(acknowledged(recorded.calls)) >= 3
        assert all(acknowledged(recorded.calls))
