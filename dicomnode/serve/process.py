"""What every process of the node does: it starts its role, says that it is ready, gives signs of life, follows signals.

The channel to the supervisor is also the lifeline: where it closes, the supervisor is gone and the process ends.
"""

from __future__ import annotations

import importlib
import select
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dicomnode import metrics, telemetry
from dicomnode.bell import Bell
from dicomnode.config import Config, load_config
from dicomnode.errors import ConfigError, DicomNodeError
from dicomnode.net.scp.listener import Listener
from dicomnode.net.scp.slots import Slots
from dicomnode.serve import wiring
from dicomnode.serve.heart import Heart
from dicomnode.serve.places import Place
from dicomnode.serve.wiring import Store, open_store
from dicomnode.store.claims import Claim
from dicomnode.store.database import Database
from dicomnode.store.locks import exclusive_after_others
from dicomnode.store.reach import is_out_of_reach

FORMER_S: Final = 45.0
"""How long a former process of this kind, whose supervisor was killed, may take to end."""
CANNOT_START: Final = 78
"""Exit status of a process that will not start however often it is tried (EX_CONFIG of sysexits.h)."""

HELD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that are held back while a process is forked."""

TRY_AGAIN: Final = 75
"""Exit status of a process that shall be started again: the database went away in its start, or another has its place
or its work by now (EX_TEMPFAIL of sysexits.h)."""

_ALIKE: Final = ("receive", "deliver", "retrieve")
"""Processes that import nearly the same: DICOM on the wire, and the index."""

_LOOK_S: Final = 5.0
_RETRY_S: Final = 2.0

THREAD_DIED: Final = 70
"""Exit status of a process one of whose threads ended by an error; the log says where (EX_SOFTWARE of sysexits.h)."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the supervisor has opened before it forks.

    listeners  where receivers accept; each inherits the same sockets
    slots      where they count open associations
    bell       rung by who makes deliveries, heard by who makes them happen
    """

    listeners: tuple[Listener, ...] = ()
    slots: Slots = field(default_factory=Slots)
    bell: Bell = field(default_factory=Bell)

    def close(self) -> None:
        """Let go of it: what is not ours, and what we no longer want."""
        for listener in self.listeners:
            listener.close()


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


def import_before_fork(names: Iterable[str]) -> None:
    """Import what the processes of those names run, once for all that are forked afterwards; it lies in memory once.

    Not the flow's: its workflow engine and all that computes would lie in receivers too, and no other needs them.
    """
    for name in names:
        room = "receive" if is_receiver(name) else name
        if room in _ALIKE:
            importlib.import_module(f"dicomnode.serve.{room}")


def run(place: Place, config: Config, channel: socket.socket, inherited: Inherited) -> int:
    """Run one process until it is asked to stop. It is the only one of its name on the data folder, and on a machine of
    this name."""
    signals = Signals(channel)
    store = open_store(config, place.name)
    with ExitStack() as stack:
        stack.callback(store.database.close)
        try:
            stack.enter_context(exclusive_after_others(config.node.data, f"{place.name}.lock", FORMER_S))
            if not _await_database(store.database, signals):
                return 0
            heart = stack.enter_context(_beating(place, config, store.database, stack))
            _measure(place.name, config)
            role = _role(place, config, store, inherited, heart)
            role.start()
        except ConfigError as error:
            with suppress(OSError):  # another process could not start either, and the supervisor is gone
                channel.sendall(f"{error}\n{error.hint}\n".encode())
            return CANNOT_START
        except SQLAlchemyError as error:
            if not is_out_of_reach(error):
                raise
            return TRY_AGAIN
        try:
            return _live(place, role, signals, heart, config)
        finally:  # threads that went on without us could neither be stopped nor restarted
            role.stop()


def _live(place: Place, role: Role, signals: Signals, heart: Heart, config: Config) -> int:
    """Do what is asked, until the process is to end; its exit status."""
    signals.say_ready()
    while not signals.stop:
        signals.wait(_LOOK_S)
        if not (role.is_alive and heart.is_alive):
            return THREAD_DIED
        if heart.is_lost:
            telemetry.event("place_lost", role=place.name)
            return TRY_AGAIN
        if signals.reload:
            signals.reload = False
            _reload(place.name, role, config.source)
    return 0


def _await_database(database: Database, signals: Signals) -> bool:
    """Wait for a server that is away: a process that died for want of it would only be started again. False where it
    was asked to stop."""
    while not signals.stop:
        if _answers(database):
            return True
        signals.wait(_RETRY_S)
    return False


def _answers(database: Database) -> bool:
    try:
        with database.read() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        if not is_out_of_reach(error):
            raise
        return False
    return True


@contextmanager
def _beating(place: Place, config: Config, database: Database, stack: ExitStack) -> Iterator[Heart]:
    """Take the process's place among all machines, and give signs of life meanwhile."""
    claim = stack.enter_context(_claimed(place.name, config, database))
    heart = Heart(database, wiring.sign(place, config), claim, wiring.cadence(config))
    heart.start()
    try:
        yield heart
    finally:
        heart.stop()


@contextmanager
def _claimed(name: str, config: Config, database: Database) -> Iterator[Claim]:
    """Claim the name of a process. One that a server still holds dear may have died with its machine: that one had our
    data folder, and is waited for; any other is another machine."""
    give_up_at = time.monotonic() + FORMER_S
    is_told = False
    while True:
        try:
            claim = Claim(database, f"{name} of {config.node.name}", wiring.NAMESAKE_HINT)
            break
        except ConfigError as error:
            wiring.require_own_name(config, database)
            if time.monotonic() > give_up_at:
                raise
            if not is_told:
                telemetry.event("process_waiting", role=name, reason=str(error))
            is_told = True
        time.sleep(_RETRY_S)
    with closing(claim):
        yield claim


def _measure(name: str, config: Config) -> None:
    if config.metrics.port is None:
        return
    try:
        metrics.measure(wiring.metrics_folder(config), name)
    except OSError as error:
        telemetry.event("metrics_unavailable", role=name, reason=error.strerror or type(error).__name__)


def _role(place: Place, config: Config, store: Store, inherited: Inherited, heart: Heart) -> Role:
    """What a process runs; only its own rooms are imported."""
    name = place.name
    if is_receiver(name):
        from dicomnode.serve.receive import ReceiveRole

        return ReceiveRole(config, store, name, inherited)
    if name == "deliver":
        from dicomnode.serve.deliver import DeliverRole

        return DeliverRole(config, store, inherited.bell)
    if name == "retrieve":
        from dicomnode.serve.retrieve import RetrieveRole

        return RetrieveRole(config, store)
    if name == "metrics":
        from dicomnode.serve.metrics import MetricsRole

        return MetricsRole(config, inherited.slots)
    from dicomnode.serve.flow import FlowRole

    return FlowRole(config, store, place.roles, heart)


def _reload(name: str, role: Role, source: Path) -> None:
    try:
        role.reload(load_config(source))
        telemetry.event("config_applied", role=name)
    except DicomNodeError as error:  # the supervisor has checked it: it changed in between
        telemetry.event("config_rejected", path=str(source), error=type(error).__name__, reason=str(error))
