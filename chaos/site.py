"""What one run works on: three machines of one node, their database, a balancer, two destinations, and a small disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import psycopg
from sqlalchemy.engine import make_url

from bench.measures import processes
from chaos.relay import Relay
from dicomnode.testing.node import UNFINISHED, Node, settings
from dicomnode.testing.peers import EXACT_AND_FORKING, Orthanc, PostgreSql, StoreScp
from dicomnode.testing.processes import wait_until

MACHINES: Final = ("one", "two", "three")
PACS: Final = "pacs"
ARCHIVE: Final = "archive"
_RULE: Final = {"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": [PACS, ARCHIVE]}
_DISK: Final = "192m"
_DISK_LEFT_BYTES: Final = 200_000
_START_TIMEOUT_S: Final = 60.0
_RESTART_S: Final = 1.0


class Machine(Node):
    """One machine, kept running by a thread as systemd would: what ends is started again after a second."""

    def __init__(self, folder: Path, tree: dict[str, Any]) -> None:
        super().__init__(folder, tree)
        self._wanted = threading.Event()
        self._over = threading.Event()
        self._turn = threading.Lock()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        self.start()
        self._wanted.set()
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.power_off()
        self._keeper.join()

    def power_off(self) -> None:
        """SIGKILL to all of it, until `power_on`."""
        with self._turn:
            self._wanted.clear()
            self.kill()

    def power_on(self) -> None:
        self._wanted.set()

    @property
    def is_wanted(self) -> bool:
        return self._wanted.is_set()

    def kill_one(self, draw: float) -> str:
        """SIGKILL to one of its processes below the supervisor; the name of it, "" where there is none."""
        found = sorted((each for each in processes(self.pid) if each.pid != self.pid), key=lambda each: each.pid)
        if not found:
            return ""
        killed = found[int(draw * len(found))]
        with contextlib.suppress(ProcessLookupError):  # it ended while we looked
            os.kill(killed.pid, signal.SIGKILL)
        return killed.name

    def _keep(self) -> None:
        while not self._over.wait(_RESTART_S):
            with self._turn:
                if self._wanted.is_set() and not self.running and not self._over.is_set():
                    self.kill()  # what of its group outlived its first process
                    self.launch(self._surroundings())


class Database(PostgreSql):
    """The PostgreSQL of all machines."""

    def restart(self, after_s: float) -> None:
        """Immediate shutdown, as a crash, and a start after a while."""
        self.kill()
        time.sleep(after_s)
        self.launch()
        self.await_ready(self._answers, _START_TIMEOUT_S)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


class Site:
    """All of it, running while its `with` block does.

    why_no_disk  why there is no small disk that can be filled; "" where there is one
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.why_no_disk = ""
        self.pacs = Orthanc(folder / PACS, "PACS")
        # a file for each copy that comes, with a name that no other has: what is sent twice is seen twice
        self.archive = StoreScp(folder / ARCHIVE, "ARCHIVE", (*EXACT_AND_FORKING, "--unique-filenames"))
        self.files = folder / "files"
        self.files.mkdir()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self.why_no_disk = stack.enter_context(small_disk(self.files))
            server = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dicomnode-")))
            self.database = stack.enter_context(Database(server))
            stack.callback(shutil.copy, self.database.output, self._folder)
            stack.enter_context(self.pacs)
            stack.enter_context(self.archive)
            self.lines = {name: stack.enter_context(Relay([self.database.port])) for name in MACHINES}
            self.machines = {name: stack.enter_context(self._machine(name)) for name in MACHINES}
            self.balancer = stack.enter_context(Relay([machine.port for machine in self.machines.values()]))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def unfinished(self) -> int:
        """How much is still to be done, by the index itself; -1 while it does not answer."""
        try:
            with psycopg.connect(self.database.url(), connect_timeout=2) as connection:
                row = connection.execute(UNFINISHED).fetchone()
        except psycopg.OperationalError:
            return -1
        assert row is not None
        return int(row[0])

    def rows(self, query: str) -> Sequence[tuple[Any, ...]]:
        """What the index answers."""
        with psycopg.connect(self.database.url()) as connection:
            return connection.execute(query.encode()).fetchall()

    def destination(self, name: str) -> Orthanc | StoreScp:
        return self.pacs if name == PACS else self.archive

    def _machine(self, name: str) -> Machine:
        url = make_url(self.database.url()).set(port=self.lines[name].port)
        node = {
            "name": name,
            "database": url.render_as_string(hide_password=False),
            "files": self.files,
            "receivers": 1,
            "durability": "process",
        }
        tree = settings({PACS: self.pacs, ARCHIVE: self.archive}, [_RULE], node=node)
        return Machine(self._folder / name, tree)


def fill(folder: Path) -> Path:
    """Leave too little for a few instances on the disk of a folder; the file to remove."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        while (spare := _free_bytes(folder) - _DISK_LEFT_BYTES) > 0:
            with contextlib.suppress(OSError):  # machines write to it meanwhile: then it is fuller than we saw
                os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END) + spare)
    return ballast


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[str]:
    """A tmpfs mounted there; gives why not, where that is not allowed."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK},mode=0700", "tmpfs", str(folder)]
    try:
        answer = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        yield "no small disk: there is no mount(8) here"
        return
    if answer.returncode:
        yield f"no small disk: mounting is not allowed here ({answer.stderr.strip()})"
        return
    try:
        yield ""
    finally:
        wait_until(lambda: _unmounted(folder), _START_TIMEOUT_S, f"{folder} could be unmounted")


def _unmounted(folder: Path) -> bool:
    return subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0
