"""The receive process: Storage and Verification SCP, the file store, and the rows of what arrives."""

from __future__ import annotations

from typing import Final

from dicomnode.config import Config
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scp.settings import Caller, ScpLimits, ScpSettings
from dicomnode.net.trace import TRACES
from dicomnode.serve import wiring
from dicomnode.serve.places import receiver
from dicomnode.serve.process import Inherited, receiver_index
from dicomnode.serve.wiring import Store
from dicomnode.store.intake import StoreIntake
from dicomnode.store.notifications import StoreNotifications

ASSOCIATION_GRACE_S: Final = 20.0
"""How long open associations may go on after a stop was asked for."""


class ReceiveRole:
    """Storage and Verification SCP, the file store, and the rows of what arrives."""

    def __init__(self, config: Config, store: Store, process: str, inherited: Inherited) -> None:
        self._files = store.files
        self._intake = StoreIntake(
            store.database, store.files, wiring.routing(config), wiring.owner(config, process), inherited.bell.ring
        )
        self._former = _former(config, store) if process == receiver(0) else ()
        slots = inherited.slots.of(receiver_index(process))
        self._server = StorageServer(
            scp_settings(config),
            self._intake,
            inherited.listeners,
            slots=slots,
            notifications=StoreNotifications(store.database),
        )

    @property
    def is_alive(self) -> bool:
        return self._server.is_accepting

    def start(self) -> None:
        self._intake.recover()
        for intake in self._former:
            intake.recover()
        self._server.start()

    def reload(self, config: Config) -> None:
        self._server.reconfigure(scp_settings(config))  # first: new certificates may be unusable
        self._intake.routing = wiring.routing(config)
        self._files.reserve_bytes = wiring.reserve_bytes(config)
        self._files.also = wiring.other_disks(config)

    def stop(self) -> None:
        self._server.stop(ASSOCIATION_GRACE_S)


def _former(config: Config, store: Store) -> tuple[StoreIntake, ...]:
    """Those of receivers that there are no more: nobody else will clear away what they left."""
    return tuple(
        StoreIntake(store.database, wiring.file_store(config, name), wiring.routing(config), wiring.owner(config, name))
        for name in wiring.former_receivers(config)
    )


def scp_settings(config: Config) -> ScpSettings:
    """What the receiver listens to, and whom."""
    return ScpSettings(
        ae_titles=config.local_ae_titles,
        host=config.node.host,
        port=config.node.port,
        callers=tuple(
            Caller(peer.ae_title, name, peer.host, peer.tls, peer.certificate, peer.associations)
            for name, peer in config.peer.items()
        ),
        private_sop_classes=config.node.private_sop_classes,
        accept_unknown_sop_classes=config.node.accept_unknown_sop_classes,
        accept_unknown=config.node.accept_unknown,
        answer_strangers=config.node.answer_strangers,
        traces=config.node.data / TRACES,
        limits=ScpLimits(
            associations=config.limits.associations,
            per_address=config.limits.per_address,
            idle_s=config.limits.idle_s,
            max_dataset_bytes=config.limits.max_dataset_bytes,
        ),
        security=config.server_security,
    )
