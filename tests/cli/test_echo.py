"""echo: who answers, and what is said where nobody does."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.testing.peers import StoreScp
from tests.cli.conftest import Command


@pytest.mark.peer("dcmtk")
def test_a_peer_that_answers(command: Command, tmp_path: Path) -> None:
    with StoreScp(tmp_path / "scp") as scp:
        command("init", "--yes", "--pacs", f"{scp.ae_title},127.0.0.1,{scp.port}")
        ran = command("echo", "pacs", "--json")
        assert (ran.code, ran.json["status"], ran.json["answered"]) == (0, 0, True)
        assert "answers DICOMNODE" in command("echo", "pacs").out


def test_a_peer_that_is_not_there(command: Command, port: int) -> None:
    command("init", "--yes", "--pacs", f"PACS,127.0.0.1,{port}")
    ran = command("echo", "pacs")
    assert (ran.code, ran.out) == (1, "")
    assert "Connection refused" in ran.err


def test_a_peer_that_only_calls_us(command: Command) -> None:
    command("init", "--yes", "--scanner", "ct1,CT1,127.0.0.1")
    ran = command("echo", "ct1")
    assert ran.code == 1
    assert "only calls us" in ran.err


def test_a_name_that_is_nearly_right(command: Command) -> None:
    command("init", "--yes", "--pacs", "PACS,127.0.0.1,104")
    assert "did you mean 'pacs'?" in command("echo", "pasc").err
