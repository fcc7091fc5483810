"""The first process of a node: it restarts what dies, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from dicomnode.serve.places import places
from dicomnode.store.locks import exclusive
from dicomnode.testing.node import Node, settings
from dicomnode.testing.processes import wait_until
from dicomnode.testing.sender import echo

TIMEOUT_S = 60.0


def processes(node: Node) -> dict[str, int]:
    """Process ids by role, as they last gave a sign of life."""
    with closing(sqlite3.connect(f"{(node.data / 'node.sqlite').as_uri()}?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT role, pid FROM process").fetchall())


def names(receivers: int) -> set[str]:
    """The processes of a node."""
    return {place.name for place in places(None, receivers, apart=False)}


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def session_of(session: int) -> list[int]:
    """Every process of a session that runs (proc(5): stat fields 3 and 6)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_what_dies_is_restarted_and_nothing_outlives_the_first_process(tmp_path: Path) -> None:
    with Node(tmp_path, settings({}, [])) as node:
        node.wait_for_log("node_started")
        wait_until(lambda: processes(node).keys() == names(1), TIMEOUT_S, "each has given a sign of life")
        before = processes(node)
        os.kill(before["receive-1"], signal.SIGKILL)
        node.wait_for_log("process_ended")
        wait_until(lambda: processes(node)["receive-1"] != before["receive-1"], TIMEOUT_S, "the receiver is another")
        wait_until(lambda: echo(node.call()), TIMEOUT_S, "it answers again")
        assert {role: pid for role, pid in processes(node).items() if role != "receive-1"} == {
            role: pid for role, pid in before.items() if role != "receive-1"
        }, "the others were left alone"
        os.kill(node.pid, signal.SIGKILL)
        node.exit_code(TIMEOUT_S)
        wait_until(lambda: session_of(node.pid) == [], TIMEOUT_S, "all have ended with it")
        node.start()
        assert echo(node.call())
        assert node.stop() == 0
        assert session_of(node.pid) == []


def test_a_receiver_that_is_restarted_refuses_nobody(tmp_path: Path) -> None:
    with Node(tmp_path, settings({}, [])) as node:
        node.wait_for_log("node_started")
        os.kill(processes(node)["receive-1"], signal.SIGKILL)
        with socket.create_connection(("127.0.0.1", node.port)):
            assert echo(node.call()), "it waits for the next receiver, and is answered"
        assert node.stop() == 0


def test_several_receivers_share_the_port_and_one_that_dies_takes_nobody_with_it(tmp_path: Path) -> None:
    with Node(tmp_path, settings({}, [], node={"receivers": 2})) as node:
        node.wait_for_log("node_started")
        wait_until(lambda: processes(node).keys() == names(2), TIMEOUT_S, "each has given a sign of life")
        before = processes(node)
        os.kill(before["receive-2"], signal.SIGKILL)
        assert all(echo(node.call()) for _ in range(4))
        wait_until(lambda: processes(node)["receive-2"] != before["receive-2"], TIMEOUT_S, "it is started again")
        assert processes(node)["receive-1"] == before["receive-1"]
        assert node.stop() == 0
        assert session_of(node.pid) == []


def ended(arguments: list[str]) -> tuple[int, list[str], list[int]]:
    """Exit code of `dicomnode serve`, the lines that are no log events, and what still runs of its session."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dicomnode", "serve", "--log-format", "json", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, [line for line in err.splitlines() if not line.startswith("{")], session_of(process.pid)


def test_a_port_in_use_ends_it_with_two_lines_and_leaves_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path, settings({}, []))
    with socket.create_server(("127.0.0.1", node.port)):
        code, lines, left = ended(["--config", str(node.configuration)])
    assert code == 1
    assert len(lines) == 2
    assert f"port {node.port}" in lines[0]
    assert "node.port" in lines[1]
    assert left == []


def test_a_second_node_on_the_same_data_is_refused(tmp_path: Path) -> None:
    node = Node(tmp_path, settings({}, []))
    node.data.mkdir()
    with exclusive(node.data, "node.lock"):
        code, lines, left = ended(["--config", str(node.configuration)])
    assert (code, len(lines), left) == (1, 2, [])
    assert "another dicomnode is running" in lines[0]


def test_a_role_that_there_is_not_is_a_mistake_in_the_command(tmp_path: Path) -> None:
    node = Node(tmp_path, settings({}, []))
    code, lines, left = ended(["--config", str(node.configuration), "--only", "recieve"])
    assert (code, left) == (2, [])
    assert "recieve" in lines[0]
    assert not node.data.exists()


def test_only_the_roles_asked_for_run(tmp_path: Path) -> None:
    with Node(tmp_path, settings({}, []), only="receive") as node:
        wait_until(lambda: processes(node) != {}, TIMEOUT_S, "it has given a sign of life")
        assert set(processes(node)) == {"receive-1"}
        assert len(session_of(node.pid)) == 2
        assert node.stop() == 0


def test_a_process_that_is_killed_in_its_start_is_started_again(tmp_path: Path) -> None:
    node = Node(tmp_path, settings({}, []))
    node.launch({"DICOMNODE_STRICT_EVENTS": "1"})
    try:
        node.wait_for_log("process_started", times=len(names(1)))
        flow = next(line for line in node.log().splitlines() if '"role": "flow"' in line and line.endswith("}"))
        os.kill(json.loads(flow)["pid"], signal.SIGKILL)
        node.wait_for_log("node_started", timeout_s=TIMEOUT_S)
        wait_until(lambda: processes(node).keys() == names(1), TIMEOUT_S, "each has given a sign of life")
        assert node.stop() == 0
    finally:
        node.kill()
