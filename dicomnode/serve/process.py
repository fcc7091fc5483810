"""What every process of the node does: it starts its role, says that it is ready, gives signs of life, follows signals.

The channel to the supervisor is also the lifeline: where it closes, the supervisor is gone and the process ends.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError

from dicomnode import metrics, telemetry
from dicomnode.config import Config, load_config
from dicomnode.errors import ConfigError, DicomNodeError
from dicomnode.net.scp.listener import Listener
from dicomnode.net.scp.slots import Slots
from dicomnode.serve import wiring
from dicomnode.serve.places import Place
from dicomnode.serve.wiring import Store, open_store
from dicomnode.store.claims import Claim
from dicomnode.store.database import Database
from dicomnode.store.locks import exclusive_after_others
from dicomnode.store.schema import Process

BEAT_S: Final = 5.0
FORMER_S: Final = 45.0
"""How long a former process of this kind, whose supervisor was killed, may take to end."""
CANNOT_START: Final = 78
"""Exit status of a process that will not start however often it is tried (EX_CONFIG of sysexits.h)."""

HELD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that are held back while a process is forked."""

CLAIM_LOST: Final = 75
"""Exit status of a process whose part another machine has taken (EX_TEMPFAIL of sysexits.h)."""

_CLAIM_RETRY_S: Final = 2.0

ONE_OF_ALL: Final = ("deliver", "flow")
"""Processes of which there is one among all machines that share a database."""

THREAD_DIED: Final = 70
"""Exit status of a process one of whose threads ended by an error; the log says where (EX_SOFTWARE of sysexits.h)."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the supervisor has opened before it forks.

    listeners  where receivers accept; each inherits the same sockets
    slots      where they count open associations
    """

    listeners: tuple[Listener, ...] = ()
    slots: Slots = field(default_factory=Slots)

    def close(self) -> None:
        """Let go of it: what is not ours, and what we no longer want."""
        for listener in self.listeners:
            listener.close()


@dataclass(frozen=True, slots=True)
class _Post:
    """The place that a process fills: its name, its machine's, and the claim that keeps other machines from it."""

    name: str
    machine: str
    claim: Claim


class Role(Protocol):
    """What a process runs."""

    @property
    def is_alive(self) -> bool:
        """Whether every thread that must run does. One that ended by an error takes the process with it."""
        ...

    def start(self) -> None: ...

    def reload(self, config: Config) -> None: ...

    def stop(self) -> None: ...


class Signals:
    """SIGTERM and the supervisor's end ask to stop, SIGHUP asks to reload. SIGINT is the supervisor's alone.

    Handlers only note what was asked: they may run anywhere in this thread, so they must take no lock.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.stop = False
        self.reload = False
        self._channel = channel
        self._awake, awaken = socket.socketpair()
        self._keep = awaken
        awaken.setblocking(False)
        signal.set_wakeup_fd(awaken.fileno())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._ask_stop)
        signal.signal(signal.SIGHUP, self._ask_reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)  # the supervisor held them back while it forked us

    def say_ready(self) -> None:
        """Tell the supervisor that the process does its work; if nobody listens any more, stop."""
        try:
            self._channel.sendall(b"ready\n")
        except OSError:
            self.stop = True

    def wait(self, timeout_s: float) -> None:
        """Wait for a signal or for the supervisor's end."""
        readable, _, _ = select.select([self._awake, self._channel], [], [], timeout_s)
        if self._awake in readable:
            self._awake.recv(64)
        if self._channel in readable and self._has_ended():
            self.stop = True

    def _has_ended(self) -> bool:
        try:
            return not self._channel.recv(64)
        except ConnectionResetError:  # it was killed before it had read all that we said
            return True

    def _ask_stop(self, _number: int, _frame: object) -> None:
        self.stop = True

    def _ask_reload(self, _number: int, _frame: object) -> None:
        self.reload = True


def is_receiver(name: str) -> bool:
    """Whether the process of that name receives: `receive-1` and so on."""
    return name.startswith("receive-")


def receiver_index(name: str) -> int:
    """Which of the receivers one is, counted from 0."""
    return int(name.rpartition("-")[2]) - 1


def run(place: Place, config: Config, channel: socket.socket, inherited: Inherited) -> int:
    """Run one process until it is asked to stop. Embedded, each is the only one of its name on the data folder."""
    name = place.name
    signals = Signals(channel)
    store = open_store(config, name)
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_after_others(config.node.data, f"{name}.lock", FORMER_S))
            post = _Post(name, wiring.machine(config), stack.enter_context(_claimed(name, config, store.database)))
            _measure(name, config)
            role = _role(place, config, store, inherited)
            role.start()
        except ConfigError as error:
            with suppress(OSError):  # another process could not start either, and the supervisor is gone
                channel.sendall(f"{error}\n{error.hint}\n".encode())
            return CANNOT_START
        try:
            return _live(post, role, signals, store, config)
        finally:  # threads that went on without us could neither be stopped nor restarted
            role.stop()
            _leave(store.database, post)
            store.database.close()


def _live(post: _Post, role: Role, signals: Signals, store: Store, config: Config) -> int:
    """Give signs of life and do what is asked, until the process is to end; its exit status."""
    started_at = time.time()
    _beat(store.database, post, started_at)
    signals.say_ready()
    while not signals.stop:
        signals.wait(BEAT_S)
        if not role.is_alive:
            return THREAD_DIED
        if not post.claim.holds():
            return CLAIM_LOST
        _beat(store.database, post, started_at)
        if signals.reload:
            signals.reload = False
            _reload(post.name, role, config.source)
    return 0


@contextmanager
def _claimed(name: str, config: Config, database: Database) -> Iterator[Claim]:
    """Claim a process's part among all machines. One that a server still holds dear may have died with its machine."""
    what, hint = f"{name} of {config.node.name}", "give each machine a node.name of its own"
    if name in ONE_OF_ALL:
        what, hint = name, "run only receivers here: dicomnode serve --only receive"
    give_up_at = time.monotonic() + FORMER_S
    while True:
        try:
            claim = Claim(database, what, hint)
            break
        except ConfigError as error:
            if time.monotonic() > give_up_at:
                raise
            telemetry.event("process_waiting", role=name, reason=str(error))
        time.sleep(_CLAIM_RETRY_S)
    with closing(claim):
        yield claim


def _measure(name: str, config: Config) -> None:
    if config.metrics.port is None:
        return
    try:
        metrics.measure(wiring.metrics_folder(config), name)
    except OSError as error:
        telemetry.event("metrics_unavailable", role=name, reason=error.strerror or type(error).__name__)


def _role(place: Place, config: Config, store: Store, inherited: Inherited) -> Role:
    """What a process runs; only its own rooms are imported."""
    name = place.name
    if is_receiver(name):
        from dicomnode.serve.receive import ReceiveRole

        return ReceiveRole(config, store, name, inherited)
    if name == "deliver":
        from dicomnode.serve.deliver import DeliverRole

        return DeliverRole(config, store)
    if name == "metrics":
        from dicomnode.serve.metrics import MetricsRole

        return MetricsRole(config, inherited.slots)
    from dicomnode.serve.flow import FlowRole

    return FlowRole(config, store, place.roles)


def _reload(name: str, role: Role, source: Path) -> None:
    try:
        role.reload(load_config(source))
        telemetry.event("config_applied", role=name)
    except DicomNodeError as error:  # the supervisor has checked it: it changed in between
        telemetry.event("config_rejected", path=str(source), error=type(error).__name__, reason=str(error))


def _leave(database: Database, post: _Post) -> None:
    """A process that ended in good order is not a dead one."""
    mine = delete(Process).where(Process.role == post.name, Process.host == post.machine, Process.pid == os.getpid())
    with suppress(SQLAlchemyError), database.write() as session:
        session.execute(mine)


def _beat(database: Database, post: _Post, started_at: float) -> None:
    """Give a sign of life. On a full disk none can be given, and the work goes on: a receiver has to answer 0xA700."""
    now = time.time()
    sign = Process(role=post.name, host=post.machine, pid=os.getpid(), started_at=started_at, beat_at=now)
    try:
        with database.write() as session:
            session.merge(sign)
    except SQLAlchemyError as error:
        telemetry.event("sign_of_life_failed", role=post.name, error=type(error).__name__)
