"""One process of the node: how it starts, follows signals, and ends with whatever it depends on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicomnode.serve.process import CANNOT_START, THREAD_DIED
from dicomnode.store.schema import Process
from dicomnode.testing.node import toml
from tests.store.receiving import open_database

TIMEOUT_S = 30.0


@dataclass
class Running:
    """A process, and the supervisor's end of its channel."""

    process: subprocess.Popen[str]
    channel: socket.socket
    configuration: Path

    def said(self) -> str:
        return self.channel.recv(4096).decode()

    def ended(self) -> tuple[int, str]:
        """Its exit status and what its role was asked to do."""
        out, _ = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, out


def configure(path: Path, ae_title: str = "NODE") -> Path:
    path.write_text(toml({"node": {"ae_title": ae_title, "durability": "none"}}))
    return path


@contextmanager
def running(folder: Path, mode: str) -> Iterator[Running]:
    configuration = configure(folder / "dicomnode.toml")
    with open_database(folder / "data"):
        pass
    ours, theirs = socket.socketpair()
    with theirs, ours:
        ours.settimeout(TIMEOUT_S)
        arguments = [sys.executable, "-m", "tests.serve.one_process", mode, str(configuration), str(theirs.fileno())]
        process = subprocess.Popen(
            arguments, pass_fds=(theirs.fileno(),), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        theirs.close()
        try:
            yield Running(process, ours, configuration)
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, None], ids=["SIGTERM", "end of the supervisor"])
def test_it_says_that_it_is_ready_and_stops_when_asked(tmp_path: Path, number: signal.Signals | None) -> None:
    with running(tmp_path, "calm") as one:
        assert one.said() == "ready\n"
        if number is None:
            one.channel.close()
        else:
            one.process.send_signal(number)
        assert one.ended() == (0, "stopped\n")


def test_it_stops_after_a_supervisor_that_never_listened(tmp_path: Path) -> None:
    """What a restarted process says is not read: then the channel does not end, it is reset."""
    with running(tmp_path, "calm") as one:
        one.channel.recv(1, socket.MSG_PEEK)
        one.channel.close()
        assert one.ended() == (0, "stopped\n")


def test_it_does_not_follow_the_keyboard(tmp_path: Path) -> None:
    with running(tmp_path, "calm") as one:
        one.said()
        one.process.send_signal(signal.SIGINT)
        one.process.send_signal(signal.SIGTERM)
        assert one.ended() == (0, "stopped\n")


def test_it_reads_the_configuration_again(tmp_path: Path) -> None:
    with running(tmp_path, "calm") as one:
        one.said()
        configure(one.configuration, "OTHER")
        one.process.send_signal(signal.SIGHUP)
        assert one.process.stdout is not None
        assert one.process.stdout.readline() == "reloaded OTHER\n"
        assert one.process.stderr is not None
        assert "config_applied" in one.process.stderr.readline()
        one.configuration.write_text("[nod]\n")
        one.process.send_signal(signal.SIGHUP)
        assert "config_rejected" in one.process.stderr.readline()
        one.process.send_signal(signal.SIGTERM)
        assert one.ended() == (0, "stopped\n")


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("cannot start", "cannot listen\nsee node.port\n"),
        ("cannot be built", "another dicomnode is running\nstop it first\n"),
    ],
)
def test_what_cannot_start_says_why(tmp_path: Path, mode: str, said: str) -> None:
    with running(tmp_path, mode) as one:
        assert one.said() == said
        assert one.ended()[0] == CANNOT_START


def test_it_ends_with_a_thread_that_died(tmp_path: Path) -> None:
    """Else a node would go on without closing series, or sending, and nobody would start it anew."""
    with running(tmp_path, "a thread died") as one:
        assert one.ended() == (THREAD_DIED, "stopped\n")


def test_it_works_on_where_it_can_give_no_sign_of_life(tmp_path: Path) -> None:
    """On a full disk a receiver has to answer 0xA700, not to die."""
    with running(tmp_path, "full disk") as one:
        assert one.said() == "ready\n"
        assert one.process.stderr is not None
        assert "sign_of_life_failed" in one.process.stderr.readline()
        one.process.send_signal(signal.SIGTERM)
        assert one.ended() == (0, "stopped\n")


def test_an_error_that_nothing_expected_ends_it_in_good_order(tmp_path: Path) -> None:
    with running(tmp_path, "an error") as one:
        code, out = one.ended()
        assert code not in (0, CANNOT_START)
        assert out == "stopped\n", "threads that nobody stops would keep the process"


def test_it_gives_a_sign_of_life(tmp_path: Path) -> None:
    with running(tmp_path, "calm") as one:
        one.said()
        with open_database(tmp_path / "data") as database, database.read() as session:
            (row,) = session.query(Process).all()
        assert (row.role, row.host, row.pid) == ("stub", socket.gethostname(), one.process.pid)
        assert row.pid != os.getpid()
        assert row.started_at <= row.beat_at
        one.process.send_signal(signal.SIGTERM)
        one.ended()
        with open_database(tmp_path / "data") as database, database.read() as session:
            assert session.query(Process).all() == [], "what ended in good order is not missed"
