"""Servers that tests start, kill and start again."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.testing.processes import ServerProcess


def test_what_a_server_said_when_it_was_started_before_does_not_count(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    script = f"[ -e '{silent}' ] || echo ready; sleep 60"
    with ServerProcess(["sh", "-c", script], tmp_path / "output", tmp_path) as server:
        server.launch()
        server.await_said("ready", 10)
        server.kill()
        silent.touch()
        server.launch()
        with pytest.raises(TimeoutError):
            server.await_said("ready", 0.2)
        assert not server.running and server.tail() == "ready\n", "the log of both is kept"
        silent.unlink()
        server.launch()
        server.await_said("ready", 10)
