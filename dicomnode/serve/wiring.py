"""From the configuration to what rooms take."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from dicomnode import __version__
from dicomnode.config import Config
from dicomnode.core.identity import DEVICE_UID
from dicomnode.core.routing import DestinationPolicy, Routing
from dicomnode.flow.pipeline import Deriving
from dicomnode.net.scp.settings import Caller, ScpLimits, ScpSettings
from dicomnode.store.database import Database, sqlite_url
from dicomnode.store.files import FileStore
from dicomnode.store.index.outbox import RetryPolicy


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


def scp_settings(config: Config) -> ScpSettings:
    """What the receiver listens to, and whom."""
    return ScpSettings(
        ae_titles=config.local_ae_titles,
        host=config.node.host,
        port=config.node.port,
        callers=tuple(Caller(peer.ae_title, peer.name, peer.host) for peer in config.peers()),
        accept_unknown=config.node.accept_unknown,
        limits=ScpLimits(
            associations=config.limits.associations,
            per_address=config.limits.per_address,
            idle_s=config.limits.idle_s,
            max_dataset_bytes=config.limits.max_dataset_bytes,
        ),
    )


def deriving(config: Config) -> Deriving:
    """What derived objects say of us."""
    derived = config.derived
    return Deriving(
        ae_title=config.node.ae_title,
        series={"description_prefix": derived.description_prefix, "number_offset": derived.series_number_offset},
        equipment={
            "manufacturer": derived.manufacturer,
            "institution": derived.institution,
            "device_uid": DEVICE_UID,
            "software_version": __version__,
        },
        content_qualification=derived.content_qualification,
    )


def retry_policy(config: Config, destination: str) -> RetryPolicy:
    retry = config.destination[destination].retry
    return RetryPolicy(retry.initial_s, retry.maximum_s, retry.patience_h * 3600.0)


def _calling_ae(setting: str, ours: str) -> str:
    return {"node": ours, "sender": ""}.get(setting, setting)
