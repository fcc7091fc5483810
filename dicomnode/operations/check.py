"""check: everything that can be known to be wrong before the node is started."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode.config import Config, examine
from dicomnode.core.types import Peer
from dicomnode.errors import StoreError
from dicomnode.store.inspection import inspect


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and what to do next."""

    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All that `check` found out about one file. No problem means that `serve` will start."""

    path: Path
    problems: tuple[Problem, ...]
    facts: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        problems = [{"what": problem.what, "next": problem.hint} for problem in self.problems]
        return {"config": str(self.path), "ok": not self.problems, "problems": problems, "facts": list(self.facts)}

    def lines(self) -> Sequence[str]:
        found = [line for problem in self.problems for line in (f"error: {problem.what}", f" next: {problem.hint}")]
        verdict = f"{len(self.problems)} to mend" if self.problems else "ok: dicomnode serve"
        return [*self.facts, *found, f"{self.path}: {verdict}"]


def check(path: Path) -> CheckReport:
    """Validate the file, its names, ports, paths and peers. Starts nothing and changes nothing."""
    config, errors = examine(path)
    problems = [Problem(str(error), error.hint) for error in errors]
    if config is None:
        return CheckReport(path, tuple(problems), ())
    running = is_running(config.node.data)
    problems += [*_data_folder(config), *_index(config.node.data), *_unresolved(config.peers())]
    if not running:
        problems += _listening(config.node.host, config.node.port)
    return CheckReport(path, tuple(problems), _facts(config, running))


def is_running(data: Path) -> bool:
    """Whether a node runs on this data folder: its supervisor holds the lock that allows only one."""
    try:
        with (data / "node.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such folder, file or permission: nothing of ours runs there
        return False
    return False


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


def _index(data: Path) -> Iterator[Problem]:
    if (data / "node.sqlite").exists():
        try:
            inspect(data / "node.sqlite")
        except StoreError as error:
            yield Problem(f"[node] data: {error}", error.hint)


def _listening(host: str, port: int) -> Iterator[Problem]:
    """Bind the port for a moment; nothing listens on it and nobody can connect."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except PermissionError:
        yield Problem(f"[node] port: {port} needs a privilege", "choose a port above 1023, or use deploy/systemd")
    except OSError as error:
        yield Problem(
            f"[node] port: {host}:{port} cannot be listened on: {error.strerror}",
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


def _facts(config: Config, running: bool) -> tuple[str, ...]:
    titles = ", ".join(config.local_ae_titles)
    return (
        f"{titles} on {config.node.host}:{config.node.port}{', running' if running else ''}",
        f"data in {config.node.data}, durability {config.node.durability}",
        f"{len(config.peer)} peers, {len(config.destination)} destinations, {len(config.rule)} rules",
    )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
