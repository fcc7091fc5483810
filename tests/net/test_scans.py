"""What somebody who scans the network for DICOM nodes learns of ours, by nmap's own scripts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicomnode.net.contexts import VERIFICATION, ProposedContext
from dicomnode.net.negotiation import reject
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import Caller, ScpSettings
from tests.net.clients import MemoryIntake, calling

ECHO = ProposedContext(VERIFICATION, ("1.2.840.10008.1.2",))
CALLERS = (Caller("CT1", "ct1", "127.0.0.1"), Caller("MR1", "mr1", "192.0.2.1"))


@contextmanager
def serving(**settings: bool) -> Iterator[StorageServer]:
    server = StorageServer(ScpSettings(("NODE",), "127.0.0.1", 0, CALLERS, **settings), MemoryIntake())
    server.start()
    yield server
    server.stop(0)


def scan(server: StorageServer, script: str, *options: str) -> str:
    """Run one of nmap's scripts against a port on which it would not look for DICOM by itself ("+")."""
    command = ["nmap", "--unprivileged", "-Pn", "-n", "-p", str(server.port), "--script", f"+{script}", *options]
    ran = subprocess.run([*command, "127.0.0.1"], capture_output=True, text=True, timeout=120, check=True)
    assert f"{server.port}/tcp open" in ran.stdout
    return ran.stdout


@pytest.fixture
def guesses(tmp_path: Path) -> list[str]:
    """Options of dicom-brute: a list of called AE titles to try, ours among them."""
    titles = tmp_path / "titles"
    titles.write_text("".join(f"{title}\n" for title in ("ANY-SCP", "ORTHANC", "NODE", "PACS", "STORESCP")))
    return ["--script-args", f"passdb={titles}"]


@pytest.mark.peer("nmap")
def test_nobody_finds_out_our_ae_title(guesses: list[str]) -> None:
    with serving(accept_unknown=True) as server:  # a node that takes anybody: the script does find what can be found
        assert "NODE - Valid credentials" in scan(server, "dicom-brute", *guesses)
    with serving() as server:
        found = scan(server, "dicom-brute", *guesses)
        assert "Valid credentials" not in found
        assert "allows any AET" not in found
        assert "Any AET is accepted" not in scan(server, "dicom-ping")


@pytest.mark.peer("nmap")
def test_who_is_not_answered_finds_no_node() -> None:
    with serving() as server:
        assert "DICOM Service Provider discovered" in scan(server, "dicom-ping")
    with serving(answer_strangers=False) as server:
        found = scan(server, "dicom-ping")
        assert "DICOM Service Provider" not in found
        assert "config:" not in found


TITLES = [(called_ae, calling_ae) for called_ae in ("NODE", "ANY-SCP", "") for calling_ae in ("ECHOSCU", "", "MR1")]


@pytest.mark.parametrize(("answer_strangers", "answer"), [(True, reject(1, 1, 3)), (False, b"")])
def test_a_stranger_is_told_the_same_whatever_it_asks(answer_strangers: bool, answer: bytes) -> None:
    """Unknown callers, and one whose AE title we know from another address; and nothing that they propose is read."""
    with serving(answer_strangers=answer_strangers) as server:
        for called_ae, calling_ae in TITLES:
            with calling(server) as client:
                assert client.associate(ECHO, called_ae=called_ae, calling_ae=calling_ae) == answer
        with calling(server) as client:
            client.send(bytes([1, 0, 0, 0, 0, 100, 0, 1, 0, 0]) + bytes(64) + b"\x20\0\xff\xff" + bytes(28))
            assert client.read_pdu() == answer
        with calling(server) as client:
            assert client.associate(ECHO, calling_ae="CT1", called_ae="PACS") == reject(1, 1, 7)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\1\0\0\0\0\x04\0\1\0\0", b"\5\0\0\0\0\x04\0\0\0\0"])
def test_a_node_that_does_not_answer_strangers_does_not_answer_what_is_no_dicom(said: bytes) -> None:
    with serving(answer_strangers=False) as server, calling(server) as client:
        client.send(said)
        assert client.read_pdu() == b""
