"""Starts the processes of the node, watches them, and ends them."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final, Literal, TextIO

from sqlalchemy.exc import OperationalError

from dicomnode import __version__, metrics, telemetry
from dicomnode.config import Config, load_config
from dicomnode.errors import ConfigError
from dicomnode.net.certificates import check_validity, expiry_warning, validity
from dicomnode.net.scp.listener import Listener, listen
from dicomnode.serve import wiring
from dicomnode.serve.places import METRICS, Place, places
from dicomnode.serve.process import (
    CANNOT_START,
    FORMER_S,
    HELD,
    TRY_AGAIN,
    Inherited,
    import_before_fork,
    is_receiver,
    receiver_index,
    run,
)
from dicomnode.store.database import Database, migrate
from dicomnode.store.folders import make_folder
from dicomnode.store.index.processes import forget_former
from dicomnode.store.inspection import require_durable
from dicomnode.store.locks import NODE_LOCK, exclusive_after_others, holder

_STOP_S: Final = 60.0
_LOOK_S: Final = 0.5
"""Patience with who holds the node's lock: `status` and `check` take it for an instant to see whether a node runs."""
_END_S: Final = 5.0
"""A process that has closed its channel ends within this."""
_POLL_S: Final = 0.2
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_STEADY_S: Final = 60.0


@dataclass
class _Child:
    """A process and how it has fared. `pause_s` is the wait before its next restart, if it dies soon."""

    place: Place
    process: ForkProcess
    channel: socket.socket
    started: float = field(default_factory=time.monotonic)
    pause_s: float = _FIRST_PAUSE_S

    @property
    def name(self) -> str:
        return self.place.name


class Supervisor:
    """The node's first process. It holds no association, no database and no lock of work: only the others.

    It has one thread, so it may fork: what all processes import is imported once, and shared.
    """

    def __init__(
        self, config: Config, log_format: Literal["console", "json"] | None, only: Collection[str] | None
    ) -> None:
        self._config = config
        self._valid_until = 0.0  # our certificate in use
        self._log_format = log_format or config.log.format
        self._places = places(only, wiring.receivers(config), apart=config.database is not None)
        if config.metrics.port is not None:
            self._places += (METRICS,)
        self._children: list[_Child] = []
        self._restarts: list[tuple[float, _Child]] = []
        self._lock: TextIO | None = None
        self._inherited = Inherited()
        self._stopping = ""
        self._reloading = False
        self._ended_all = True

    def run(self) -> int:
        """Run until a signal; 0 after a clean stop, 1 where a process had to be killed.

        Raises ConfigError where a process cannot start.
        """
        telemetry.configure(self._log_format, self._config.log.level)
        make_folder(self._config.node.data)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._ask_stop)
        signal.signal(signal.SIGHUP, self._ask_reload)
        with exclusive_after_others(self._config.node.data, NODE_LOCK, _LOOK_S) as self._lock:
            wiring.home(self._config)  # drawn once: all processes will ask for it at the same time
            self._prepare_index()
            metrics.clear(wiring.metrics_folder(self._config))
            try:
                self._inherited = self._open_what_is_inherited()
                self._start_all()
                self._watch()
            finally:
                self._end_all()
        return 0 if self._ended_all else 1

    def _prepare_index(self) -> None:
        url = wiring.database_url(self._config)
        try:
            if self._config.database is not None:
                require_durable(url, self._config.node.durability)
            migrate(url)
            self._forget_former_processes(url)
        except OperationalError as error:
            if self._config.database is None:
                raise
            raise ConfigError(
                f"[node] database: the server cannot be used ({type(error).__name__})",
                "is it up, and may we in? psql URL says more",
            ) from None

    def _forget_former_processes(self, url: str) -> None:
        """Drop the signs of life of a node that was killed; we hold its lock. Those that we start give new ones."""
        with closing(Database(url)) as database:
            wiring.require_own_name(self._config, database)
            with database.write() as session:
                names = [place.name for place in self._places]
                forget_former(session, wiring.machine(self._config), names, alone=not database.is_shared)

    def _open_what_is_inherited(self) -> Inherited:
        """Bind the ports once, before any process starts: a receiver that is restarted refuses nobody meanwhile."""
        if not any(is_receiver(place.name) for place in self._places):
            return Inherited()
        self._check_certificate(self._config)
        give_up_at = time.monotonic() + FORMER_S
        while True:
            try:
                return Inherited(_listen(self._config))
            except ConfigError:  # a receiver whose supervisor was killed lets go of the port when it notices
                if not _has_receiver(self._config.node.data) or time.monotonic() > give_up_at:
                    raise
            time.sleep(_POLL_S)

    def _start_all(self) -> None:
        import_before_fork(place.name for place in self._places)
        self._children = [self._start(place) for place in self._places]
        for child in self._children:
            self._await_ready(child)
        if not self._stopping:
            _notify_service_manager(b"READY=1")
            telemetry.event(
                "node_started",
                version=__version__,
                address=", ".join(self._config.addresses),
                pid=os.getpid(),
                rules=len(self._config.rule),
                path=str(self._config.source),
            )
            self._tell_of_certificate()
            self._tell_of_engines()

    def _check_certificate(self, changed: Config) -> None:
        """Raise ConfigError where another certificate cannot be used, here, so that not only some processes reject it.
        One that is not valid now never replaces one that is; at a start the plain port matters more."""
        if changed.server_security is None or changed.tls.certificate is None:
            return
        changed.server_security.context()
        if self._valid_until > time.time():
            check_validity(changed.tls.certificate, time.time())
        self._valid_until = validity(changed.tls.certificate)[1]

    def _tell_of_certificate(self) -> None:
        certificate = self._config.tls.certificate
        warning = None if certificate is None else expiry_warning(certificate, time.time())
        if warning is not None:
            telemetry.event("certificate_ends", reason=str(warning), hint=warning.hint)

    def _tell_of_engines(self) -> None:
        """Those that are damaged: they keep nothing from being received."""
        for one in self._config.unusable_engines():
            telemetry.event(
                "engine_unusable", engine=one.engine, rule=", ".join(one.rules), reason=one.reason, hint=one.hint
            )

    def _start(self, place: Place, pause_s: float = _FIRST_PAUSE_S) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs, _signals_held():  # until the child has handlers of its own: ours mean nothing there
            process = ForkProcess(name=place.name, target=self._become, args=(place, ours, theirs))
            process.start()
        telemetry.event("process_started", role=place.name, pid=process.pid)
        return _Child(place, process, ours, pause_s=pause_s)

    def _become(self, place: Place, ours: socket.socket, theirs: socket.socket) -> None:
        """What a new process does first: let go of what is the supervisor's. A channel ends when nobody holds it."""
        for channel in (ours, *(child.channel for child in self._children)):
            channel.close()
        if self._lock is not None:
            self._lock.close()
        if not is_receiver(place.name):
            self._inherited.close()
        telemetry.configure_child()
        try:
            code = run(place, self._config, theirs, self._inherited)
        except Exception:  # noqa: BLE001  the text of an error may quote a data set: our hook keeps it back
            sys.excepthook(*sys.exc_info())
            code = 1
        sys.stderr.flush()
        os._exit(code)  # a thread that an error left behind must not keep a process alive that does nothing

    def _await_ready(self, child: _Child) -> None:
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(child.channel, selectors.EVENT_READ)
            while not self._stopping:
                if not selector.select(_POLL_S):
                    continue
                chunk = child.channel.recv(4096)
                said += chunk
                if said == b"ready\n":
                    return
                if not chunk:
                    break
        child.process.join(_END_S)
        if not self._stopping and not _may_pass(child.process.exitcode):
            what, _, hint = said.decode(errors="replace").strip().partition("\n")
            raise ConfigError(what or f"the {child.name} process ended while it started", hint or "see the log above")

    def _watch(self) -> None:
        while not self._stopping:
            time.sleep(_POLL_S)
            for child in [child for child in self._children if not child.process.is_alive()]:
                self._plan_restart(child)
            due = [child for at, child in self._restarts if at <= time.monotonic()]
            self._restarts = [(at, child) for at, child in self._restarts if child not in due]
            self._children += [self._start(child.place, child.pause_s) for child in due]
            if self._reloading:
                self._reloading = False
                self._reload()

    def _plan_restart(self, child: _Child) -> None:
        child.channel.close()
        self._children.remove(child)
        if is_receiver(child.name):
            self._inherited.slots.free(receiver_index(child.name))
        code = child.process.exitcode
        telemetry.event("process_ended", role=child.name, pid=child.process.pid, exit_status=code)
        steady = time.monotonic() - child.started > _STEADY_S and code != CANNOT_START
        pause_s = _FIRST_PAUSE_S if steady else child.pause_s
        child.pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        self._restarts.append((time.monotonic() + pause_s, child))

    def _reload(self) -> None:
        try:
            changed = load_config(self._config.source)
            self._check_certificate(changed)
        except ConfigError as error:
            telemetry.event(
                "config_rejected",
                path=str(self._config.source),
                error=type(error).__name__,
                reason=str(error),
                hint=error.hint,
            )
            return
        for name in _changed_until_restart(self._config, changed):
            telemetry.event("config_needs_restart", reason=f"{name} changed; it takes effect at a restart")
        self._config = changed
        telemetry.event("config_loaded", path=str(changed.source), rules=len(changed.rule))
        self._tell_of_certificate()
        self._tell_of_engines()
        for child in self._children:
            os.kill(child.process.pid or 0, signal.SIGHUP)

    def _end_all(self) -> None:
        started = time.monotonic()
        telemetry.event("node_stopping", reason=self._stopping or "a process could not start")
        _notify_service_manager(b"STOPPING=1")
        self._inherited.close()
        for child in self._children:
            child.process.terminate()
            child.channel.close()
        for child in self._children:
            child.process.join(max(0.1, _STOP_S - (time.monotonic() - started)))
            if child.process.is_alive():
                self._ended_all = False
                telemetry.event("process_killed", role=child.name, pid=child.process.pid, seconds=_STOP_S)
                child.process.kill()
                child.process.join()
        telemetry.event("node_stopped", seconds=time.monotonic() - started)

    def _ask_stop(self, number: int, _frame: object) -> None:
        self._stopping = signal.Signals(number).name

    def _ask_reload(self, _number: int, _frame: object) -> None:
        self._reloading = True


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back the signals that ask for something; they come when the block ends. A child inherits the hold."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


def _may_pass(exit_status: int | None) -> bool:
    """Whether a process that ended in its start may come through at the next try: it says so, or a signal ended it."""
    return exit_status is not None and (exit_status == TRY_AGAIN or exit_status < 0)


def _listen(config: Config) -> tuple[Listener, ...]:
    """Bind the ports of the configuration, or none of them."""
    listeners: list[Listener] = []
    try:
        for port, is_tls in config.ports:
            listeners.append(listen(config.node.host, port, tls=is_tls))
    except ConfigError:
        for listener in listeners:
            listener.close()
        raise
    return tuple(listeners)


def _changed_until_restart(old: Config, new: Config) -> list[str]:
    """What differs and cannot be changed while the node runs."""
    keys = {
        "node": ("port", "host", "receivers", "data", "name", "database", "files", "durability"),
        "bucket": ("url", "endpoint", "region", "access_key", "secret_key", "cache"),
        "tls": ("port", "only"),
        "cluster": ("dead_after_s",),
        "limits": ("worker_memory_mb", "workers"),
        "engines": (
            "runtime",
            "precision",
            "devices",
            "processes",
            "memory_mb",
            "idle_unload_s",
            "deadline_s",
            "shared_mb",
        ),
        "retrieve": ("at_once",),
        "log": ("format", "level"),
        "metrics": ("host", "port"),
    }
    return [
        f"{section}.{key}"
        for section, names in keys.items()
        for key in names
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    ]


def _has_receiver(data: Path) -> bool:
    """Whether a receiver of a former node still runs on the data folder."""
    return any(holder(data, lock.name) is not None for lock in data.glob("receive*.lock"))


def _notify_service_manager(state: bytes) -> None:
    """Tell systemd (sd_notify(3)), where it asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            notify.sendall(state)
