"""From the configuration to what more than one process takes."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dicomnode import __version__
from dicomnode.config import Config
from dicomnode.core.routing import DestinationPolicy, PeerPolicy, Routing
from dicomnode.core.withholding import CheckPatient
from dicomnode.errors import ConfigError
from dicomnode.flow.takeover import Cadence
from dicomnode.serve.places import RECEIVE, Place, receiver
from dicomnode.store.bucket import Bucket, BucketAddress, BucketResults, BucketStore
from dicomnode.store.database import Database, index_url
from dicomnode.store.files import FileStore
from dicomnode.store.folders import make_folder
from dicomnode.store.index import processes
from dicomnode.store.index.processes import Sign
from dicomnode.store.locks import holder
from dicomnode.store.results import ResultStore

NAMESAKE_HINT: Final = "give each machine a node.name of its own"

_HOME: Final = "node.id"
_MOST_RECEIVERS: Final = 4
"""What `node.receivers = "auto"` makes at most: more wait for the index's one writer, or for the disk."""


@dataclass(frozen=True)
class Store:
    """The file store and the index of a data folder, opened."""

    database: Database
    files: FileStore


def machine(config: Config) -> str:
    """What this machine calls itself; stable wherever it matters, as several machines share a database."""
    return config.node.name or socket.gethostname()


def owner(config: Config, process: str) -> str:
    """The name of one of our processes among all, on any machine, that share a store.

    Alone it needs no machine's name: that changes when a data folder moves, or with every start of a container.
    """
    return f"{config.node.name or ''}/{process}"


def sign(place: Place, config: Config) -> Sign:
    """What a process that starts now will tell of itself."""
    host = machine(config)
    executor_id = f"{host}:{place.name}:{uuid.uuid4().hex}"
    return Sign(place.name, host, home(config), os.getpid(), executor_id, place.roles, __version__)


def home(config: Config) -> str:
    """What tells this machine's data folder from any other, for ever; drawn when it is first asked for, which is
    before any process but the supervisor runs."""
    path = config.node.data / _HOME
    try:
        return path.read_text()
    except FileNotFoundError:
        drawn = path.with_suffix(".new")
        drawn.write_text(uuid.uuid4().hex)
        drawn.replace(path)
        return path.read_text()


def cadence(config: Config) -> Cadence:
    """How often signs of life come, and what silence means."""
    return Cadence.of(config.cluster.dead_after_s)


def require_own_name(config: Config, database: Database) -> None:
    """Raise ConfigError where another machine has this one's name."""
    if not database.is_shared:
        return
    with database.read() as session:
        if processes.has_namesake(session, machine(config), home(config), config.cluster.dead_after_s):
            raise ConfigError(f"another machine that shares the database is {machine(config)!r} already", NAMESAKE_HINT)


def database_url(config: Config) -> str:
    """The index: a server's, or the file in the data folder."""
    return index_url(config.database, config.node.data)


def open_store(config: Config, process: str) -> Store:
    """The store as one process has it."""
    make_folder(config.node.data)
    make_folder(config.files)
    return Store(Database(database_url(config), config.node.durability), file_store(config, process))


def file_store(config: Config, process: str) -> FileStore:
    """The stored files as one process writes them."""
    reserve, ours = reserve_bytes(config), owner(config, process)
    if config.bucket.url is not None:
        made: FileStore = BucketStore(config.files, reserve, _bucket(config), config.bucket.cache, ours)
    else:
        made = FileStore(config.files, reserve, config.node.durability == "power", ours)
    made.also = other_disks(config)
    return made


def result_store(config: Config) -> ResultStore:
    """The results of engines."""
    if config.bucket.url is not None:
        return BucketResults(config.files, _bucket(config), config.node.name or "")
    return ResultStore(config.files, config.node.name or "")


def _bucket(config: Config) -> Bucket:
    settings = config.bucket
    assert settings.url is not None  # the caller has looked
    secret = None if settings.secret_key is None else settings.secret_key.get_secret_value()
    return Bucket(BucketAddress(settings.url, settings.endpoint, settings.region, settings.access_key, secret))


def reserve_bytes(config: Config) -> int:
    """Free space below which nothing is taken in."""
    return config.limits.disk_reserve_bytes(shutil.disk_usage(config.files).total)


def other_disks(config: Config) -> tuple[tuple[Path, int], ...]:
    """Disks that new input needs besides that of the stored files, each with its reserve: where the index is a file on
    another one, that. It grows slowly: of a reserve in bytes a tenth of its disk is enough."""
    data, files = config.node.data, config.files
    if config.database is not None or data.stat().st_dev == files.stat().st_dev:
        return ()
    total = shutil.disk_usage(data).total
    return ((data, min(config.limits.disk_reserve_bytes(total), total // 10)),)


def metrics_folder(config: Config) -> Path:
    """Where the processes of this machine count."""
    return config.node.data / "metrics"


def receivers(config: Config) -> int:
    """How many processes receive."""
    wanted = config.node.receivers
    return max(1, min(_MOST_RECEIVERS, len(os.sched_getaffinity(0)) // 2)) if wanted == "auto" else wanted


def former_receivers(config: Config) -> tuple[str, ...]:
    """Receivers that this machine had, and has no more since there were to be fewer; none of them runs."""
    data, now = config.node.data, {receiver(index) for index in range(receivers(config))}
    known = sorted(lock.stem for lock in data.glob(f"{RECEIVE}*.lock"))
    return tuple(name for name in known if name not in now and holder(data, f"{name}.lock") is None)


def routing(config: Config) -> Routing:
    """What decides about arrivals."""
    return Routing(
        rules=config.rules(),
        destinations={
            name: DestinationPolicy(
                when_complete=destination.forward == "when-complete",
                calling_ae=_calling_ae(destination.calling_ae, config.node.ae_title),
                withdraw=destination.withdraw,
                check_patient=_check_patient(destination.check_patient),
            )
            for name, destination in config.destination.items()
        },
        completeness=config.completeness_of(""),
        completeness_of_peer={name: config.completeness_of(name) for name in config.peer},
        peers={name: PeerPolicy(peer.same_uid, peer.rejects) for name, peer in config.peer.items()},
        commissioning=config.node.commissioning,
    )


def _check_patient(setting: bool | Literal["if-possible"]) -> CheckPatient:
    return setting if setting == "if-possible" else "yes" if setting else "no"


def _calling_ae(setting: str, ours: str) -> str:
    return {"node": ours, "sender": ""}.get(setting, setting)
