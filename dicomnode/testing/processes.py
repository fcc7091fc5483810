"""Child processes of tests: each in a session of its own, its output in a file, ended with all its children."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_POLL_S: Final = 0.05
_reserved: Final[list[socket.socket]] = []  # kept open as long as this process lives


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody uses, and that no other process of a test run is given while this one lives.

    It lies below the ports that the kernel deals to outgoing connections: one of those may take a port between our
    look and the server's bind. Two test processes are kept apart by the name of a socket, which ends with its process.
    """
    lowest_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = range(10_000, lowest_ephemeral)
    for port in random.sample(ports, len(ports)):
        if _reserve(port):
            return port
    raise RuntimeError(f"no port of {ports.start} to {ports.stop - 1} is free")


def _reserve(port: int) -> bool:
    ours = socket.socket(socket.AF_UNIX)
    try:
        ours.bind(f"\0dicomnode-test-port-{port}")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
    except OSError:
        ours.close()
        return False
    _reserved.append(ours)
    return True


def listens(port: int) -> bool:
    """Whether somebody accepts TCP connections at a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(predicate: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll until `predicate()` holds; raises TimeoutError naming `what` where it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain until {what}")
        time.sleep(_POLL_S)


class ServerProcess:
    """A server that a test starts, stops, kills and starts again; a context manager that leaves nothing running.

    Its process group is its own, so that a signal to the group reaches all of the server and nothing else.
    """

    def __init__(self, arguments: Sequence[str], output: Path, cwd: Path) -> None:
        self._arguments = list(arguments)
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._launched_at_byte = 0  # of the output
        self.output = output

    @property
    def pid(self) -> int:
        """Process id, process group id and session id of the server."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the process; `environment` is added to ours."""
        assert not self.running, "already running"
        with self.output.open("ab") as output:
            self._launched_at_byte = output.tell()
            self._process = subprocess.Popen(
                self._arguments,
                cwd=self._cwd,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def await_ready(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `ready()`, and leave nothing running if it never is.

        Raises RuntimeError with the end of the output where the process ends before, TimeoutError where it lives on.
        """

        def ready_or_ended() -> bool:
            return not self.running or ready()

        try:
            wait_until(ready_or_ended, timeout_s, f"{self._arguments[0]} was ready; {self.output} has what it said")
        except BaseException:
            self.kill()
            raise
        if not self.running:
            raise RuntimeError(f"{self._arguments[0]} ended with exit code {self.exit_code(0)}:\n{self.tail()}")

    def await_said(self, text: str, timeout_s: float) -> None:
        """Wait as `await_ready` until it has said `text` since it was launched; it may have when it was before."""
        self.await_ready(lambda: text.encode() in self._said(), timeout_s)

    def _said(self) -> bytes:
        with self.output.open("rb") as output:
            output.seek(self._launched_at_byte)
            return output.read()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's first process only."""
        os.kill(self.pid, number)

    def exit_code(self, timeout_s: float) -> int:
        """Wait for the first process to end and give its exit code (negative: the signal that ended it)."""
        assert self._process is not None, "not started"
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL to the whole process group, as a power cut would."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # all of it has ended already
            os.killpg(self.pid, signal.SIGKILL)
        self.exit_code(10)

    def tail(self, length: int = 3000) -> str:
        """The end of what the server has printed."""
        return self.output.read_text(errors="replace")[-length:] if self.output.exists() else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def resident_bytes(session: int) -> int:
    """Resident memory of all processes of a session, from Linux's /proc (proc(5): stat fields 6 and 24)."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if int(fields[3]) == session:
            total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return total
