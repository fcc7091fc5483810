"""From the configuration to what more than one process takes."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Final

from dicomnode.config import Config
from dicomnode.core.routing import DestinationPolicy, Routing
from dicomnode.store.database import Database, sqlite_url
from dicomnode.store.files import FileStore

_MOST_RECEIVERS: Final = 4
"""What `node.receivers = "auto"` makes at most: more wait for the index's one writer, or for the disk."""


@dataclass(frozen=True)
class Store:
    """The file store and the index of a data folder, opened."""

    database: Database
    files: FileStore


def open_store(config: Config) -> Store:
    node = config.node
    node.data.mkdir(parents=True, exist_ok=True)
    disk_bytes = shutil.disk_usage(node.data).total
    return Store(
        Database(sqlite_url(node.data), node.durability),
        FileStore(node.data, config.limits.disk_reserve_bytes(disk_bytes), sync=node.durability == "power"),
    )


def receivers(config: Config) -> int:
    """How many processes receive."""
    wanted = config.node.receivers
    return min(_MOST_RECEIVERS, len(os.sched_getaffinity(0))) if wanted == "auto" else wanted


def routing(config: Config) -> Routing:
    """What decides about arrivals."""
    return Routing(
        rules=config.rules(),
        destinations={
            name: DestinationPolicy(
                when_complete=destination.forward == "when-complete",
                calling_ae=_calling_ae(destination.calling_ae, config.node.ae_title),
            )
            for name, destination in config.destination.items()
        },
        completeness=config.completeness_of(""),
        completeness_of_peer={name: config.completeness_of(name) for name in config.peer},
    )


def _calling_ae(setting: str, ours: str) -> str:
    return {"node": ours, "sender": ""}.get(setting, setting)
