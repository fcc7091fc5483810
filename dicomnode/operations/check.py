"""check: everything that can be known to be wrong before the node is started."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dicomnode.config import DEFAULT_FILE, Config, examine
from dicomnode.core.types import Peer
from dicomnode.errors import ConfigError, StoreError
from dicomnode.net.certificates import check_validity, expiry_warning
from dicomnode.operations.wording import counted
from dicomnode.store.database import index_url
from dicomnode.store.inspection import inspect, inspect_server
from dicomnode.store.locks import NODE_LOCK, Holder, holder

_EVERYWHERE: Final = {"0.0.0.0", "::"}  # noqa: S104


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and what to do next."""

    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All that `check` found out about one file. No problem means that `serve` will start.

    warnings  what is allowed but hardly meant      running  the node on the data folder, if one runs
    """

    path: Path
    problems: tuple[Problem, ...]
    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    running: Holder | None = None

    def to_json(self) -> dict[str, Any]:
        problems = [{"what": problem.what, "next": problem.hint} for problem in self.problems]
        return {
            "config": str(self.path),
            "ok": not self.problems,
            "problems": problems,
            "warnings": list(self.warnings),
            "facts": list(self.facts),
            "running": self.running is not None,
        }

    def lines(self) -> Sequence[str]:
        found = [line for problem in self.problems for line in (f"error: {problem.what}", f" next: {problem.hint}")]
        warnings = [f"warning: {warning}" for warning in self.warnings]
        verdict = f"{len(self.problems)} to mend" if self.problems else self._next()
        return [*self.facts, *warnings, *found, f"{self.path}: {verdict}"]

    def _next(self) -> str:
        if self.running is not None:
            pid = "PID" if self.running.pid is None else self.running.pid
            return f"ok. A node runs here: reload it with kill -HUP {pid}"
        option = "" if self.path == DEFAULT_FILE else f" --config {shlex.quote(str(self.path))}"
        return f"ok: dicomnode serve{option}"


def check(path: Path) -> CheckReport:
    """Validate the file, its names, ports, paths and peers. Starts nothing and changes nothing."""
    config, errors = examine(path)
    problems = [Problem(str(error), error.hint) for error in errors]
    if config is None:
        return CheckReport(path, tuple(problems))
    running = running_node(config.node.data)
    ports = zip(config.addresses, config.ports, strict=True)
    in_use = {
        address: tuple(_listening("tls" if is_tls else "node", config.node.host, port))
        for address, (port, is_tls) in ports
    }
    problems += [*_data_folder(config), *_index(config), *_unresolved(config.peers()), *_certificates(config)]
    if running is None:
        problems += [problem for found in in_use.values() for problem in found]
        problems += _metrics(config)
    unheard = [] if running is None else [address for address, found in in_use.items() if not found]
    told = {problem.what for problem in problems}
    warnings = tuple(warning for warning in _warnings(config, unheard) if warning not in told)
    return CheckReport(path, tuple(problems), _facts(config), warnings, running)


def running_node(data: Path) -> Holder | None:
    """The node that runs on this data folder: its supervisor holds the lock that allows only one, and wrote its pid."""
    return holder(data, NODE_LOCK)


def _warnings(config: Config, unheard: Sequence[str]) -> Iterator[str]:
    for address in unheard:
        yield (
            f"a node runs on this data folder, but nobody listens on {address}: "
            "the port differs from the running node's, restart it"
        )
    if not config.peer and not config.node.accept_unknown:
        yield "no peer: every caller is refused"
    certificate = config.tls.certificate
    ending = None if certificate is None else expiry_warning(certificate, time.time())
    if ending is not None:
        yield str(ending)
    called = {destination.peer for destination in config.destination.values()}
    for name, peer in config.peer.items():
        if peer.tls and certificate is None and name not in called:
            yield f"[peer.{name}] has to call by TLS, and there is no TLS port without tls.certificate: it is refused"
        if peer.certificate and not peer.tls:
            yield f"[peer.{name}] has a certificate, and may call without TLS all the same: set tls = true"
    if not config.rule:
        yield "no rule: everything stays unrouted"
    for one in config.unusable_engines():
        yield f"engine {one.engine} cannot be used, its jobs will fail: {one.reason}; {one.hint}"


def _data_folder(config: Config) -> Iterator[Problem]:
    folder = config.node.data
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir():
        yield Problem(f"[node] data: {existing} is a file", "name a folder")
        return
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Problem(f"[node] data: {existing} cannot be written to", "change its owner, or run as another user")
    disk = shutil.disk_usage(existing)
    reserve = config.limits.disk_reserve_bytes(disk.total)
    if disk.free < reserve:
        yield Problem(
            f"[limits] disk_reserve: {_gb(disk.free)} are free on the disk of {folder}, {_gb(reserve)} is the reserve",
            "free space, or lower disk_reserve: the node would refuse every instance",
        )


def _index(config: Config) -> Iterator[Problem]:
    file = config.node.data / "node.sqlite"
    try:
        if config.database is not None:
            inspect_server(index_url(config.database, config.node.data))
        elif file.exists():
            inspect(file)
    except StoreError as error:
        yield Problem(f"[node] {'data' if config.database is None else 'database'}: {error}", error.hint)


def _certificates(config: Config) -> Iterator[Problem]:
    """Read the certificates as the node would."""
    try:
        if config.tls.certificate is not None:
            check_validity(config.tls.certificate, time.time())
        if config.server_security is not None:
            config.server_security.context()
        elif any(peer.tls for peer in config.peer.values()):
            config.credentials.client_context()
    except ConfigError as error:
        yield Problem(str(error), error.hint)


def _metrics(config: Config) -> Iterator[Problem]:
    host, port = config.metrics.host, config.metrics.port
    if port is not None and not any(port == other for other, _ in config.ports):
        yield from _listening("metrics", host, port)
    elif port is not None and (host == config.node.host or _EVERYWHERE & {host, config.node.host}):
        yield Problem(f"[metrics] port: {port} is one that we receive on", "choose another, as a rule 9464")


def _listening(section: str, host: str, port: int) -> Iterator[Problem]:
    """Bind the port for a moment; nothing listens on it and nobody can connect."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except PermissionError:
        yield Problem(f"[{section}] port: {port} needs a privilege", "choose a port above 1023, or use deploy/systemd")
    except OSError as error:
        yield Problem(
            f"[{section}] port: {host}:{port} cannot be listened on: {error.strerror}",
            "choose another port or host; `ss -ltnp` tells who has this one",
        )


def _unresolved(peers: Sequence[Peer]) -> Sequence[Problem]:
    """Peers whose host name nobody knows. Names are looked up side by side: each may take seconds to fail."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        return [problem for problem in pool.map(_resolve, peers) if problem is not None]


def _resolve(peer: Peer) -> Problem | None:
    if peer.host is None:
        return None
    try:
        socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return Problem(
            f"[peer.{peer.name}] host: {peer.host} cannot be resolved", "correct it, or ask who runs your DNS"
        )
    return None


def _facts(config: Config) -> tuple[str, ...]:
    titles = ", ".join(config.local_ae_titles)
    return (
        f"{titles} on {', '.join(config.addresses)}",
        f"data in {config.node.data}, durability {config.node.durability}",
        f"{counted(len(config.peer), 'peer')}, {counted(len(config.destination), 'destination')}, "
        f"{counted(len(config.rule), 'rule')}",
    )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
