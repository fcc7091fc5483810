"""Writers of several threads and processes take turns."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select

from dicomnode.store.database import Database
from dicomnode.store.schema import Patient
from dicomnode.store.turns import WriteTurns
from dicomnode.testing.processes import wait_until
from tests.store.receiving import open_database

TIMEOUT_S = 60.0
WRITES = 100

WRITER = f"""
import sys
from contextlib import closing
from dicomnode.store.database import Database
from dicomnode.store.schema import Patient
with closing(Database(sys.argv[1], "none")) as database:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range({WRITES}):
        with database.write() as session:
            session.add(Patient(patient_id=f"{{sys.argv[2]}}-{{number}}", issuer=""))
"""


def waits_for(path: Path) -> bool:
    """Whether a lock of a file is waited for (proc(5): lines with an arrow in /proc/locks)."""
    inode = f":{path.stat().st_ino} "
    return any(inode in line and "->" in line for line in Path("/proc/locks").read_text().splitlines())


def test_processes_and_threads_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    with open_database(tmp_path) as database:
        command = [sys.executable, "-c", WRITER, database.url]
        writers = [
            subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for name in "ab"
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        threads = [threading.Thread(target=write, args=(database, name)) for name in "cd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
        for writer in writers:
            writer.communicate(timeout=TIMEOUT_S)
        with database.read() as session:
            assert session.scalar(select(func.count()).select_from(Patient)) == 4 * WRITES


def write(database: Database, name: str) -> None:
    for number in range(WRITES):
        with database.write() as session:
            session.add(Patient(patient_id=f"{name}-{number}", issuer=""))


def test_who_has_just_written_lets_the_one_that_waits_go_first(tmp_path: Path) -> None:
    path, order = tmp_path / "node.sqlite", list[str]()
    with closing(WriteTurns(path)) as ours, closing(WriteTurns(path)) as theirs:

        def wait_and_write() -> None:
            with theirs.turn():
                order.append("theirs")

        with ours.turn():
            waiting = threading.Thread(target=wait_and_write)
            waiting.start()
            wait_until(lambda: waits_for(tmp_path / "node.sqlite-turn.lock"), TIMEOUT_S, "the other waits")
        with ours.turn():
            order.append("ours")
        waiting.join(TIMEOUT_S)
    assert order == ["theirs", "ours"]


def test_the_turn_of_a_process_that_dies_ends(tmp_path: Path) -> None:
    path = tmp_path / "node.sqlite"
    with closing(WriteTurns(path)) as ours:
        if (child := os.fork()) == 0:
            ours.turn().__enter__()
            os._exit(0)
        os.waitpid(child, 0)
        with ours.turn(), (tmp_path / "node.sqlite-turn.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_who_only_reads_leaves_no_file(tmp_path: Path) -> None:
    with open_database(tmp_path) as database:
        with database.read() as session:
            session.scalar(select(func.count()).select_from(Patient))
        assert not list(tmp_path.glob("*.lock"))
