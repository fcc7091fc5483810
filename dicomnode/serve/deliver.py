"""The deliver process: one drainer for each destination, on any number of machines."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from functools import partial
from typing import Final

from dicomnode.bell import Bell
from dicomnode.config import Config
from dicomnode.core.ports import Deliverer, Transcoder
from dicomnode.core.proof import Method
from dicomnode.deliver.decoding import WorkerTranscoder
from dicomnode.deliver.dicom import DeliverySettings, DicomDeliverer
from dicomnode.deliver.forms import Allowed
from dicomnode.flow.checking import Checker
from dicomnode.flow.delivering import Opening, Route
from dicomnode.flow.drainers import Drainers
from dicomnode.flow.following import Following
from dicomnode.flow.proving import Prover
from dicomnode.net.scu import PeerAddress, Timeouts
from dicomnode.net.trace import TRACES, PeerTrace
from dicomnode.serve import wiring
from dicomnode.serve.checks import check_routes
from dicomnode.serve.prove import asking_first, proof_route, proof_routes
from dicomnode.serve.wiring import Store
from dicomnode.store.index import leases
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.notifications import StoreNotifications
from dicomnode.workers import WorkerPool

_DECODERS: Final = 2
"""Processes that decode for destinations which take no compressed objects; none is started before it is needed."""


class DeliverRole:
    """One drainer for each destination."""

    def __init__(self, config: Config, store: Store, bell: Bell) -> None:
        self._config = config
        self._database = store.database
        owner = leases.owner_on(wiring.machine(config), uuid.uuid4().hex)
        self._drainers = Drainers(store.database, store.files, owner, bell)
        self._provers = Following(partial(Prover, store.database, StoreNotifications(store.database)))
        self._checkers = Following(partial(Checker, store.database, store.files))
        self._decoded = config.node.data / "decoded"
        self._pixels = WorkerPool(
            "dicomnode.pixels.service", min(_DECODERS, os.cpu_count() or 1), config.limits.worker_memory_mb << 20
        )

    @property
    def is_alive(self) -> bool:
        return self._drainers.are_alive and self._provers.are_alive and self._checkers.are_alive

    def start(self) -> None:
        with self._database.write() as session:
            if self._database.is_shared:
                leases.release_of_machine(session, wiring.machine(self._config))
            else:
                leases.break_all(session)  # a killed process could not give them up
        shutil.rmtree(self._decoded, ignore_errors=True)  # nor remove what it had decoded
        self._decoded.mkdir()
        self._drainers.follow(self._routes(self._config))
        self._drainers.start()
        self._provers.follow(proof_routes(self._config))
        self._checkers.follow(check_routes(self._config))

    def reload(self, config: Config) -> None:
        self._drainers.follow(self._routes(config))
        self._provers.follow(proof_routes(config))
        self._checkers.follow(check_routes(config))

    def stop(self) -> None:
        self._checkers.stop()
        self._provers.stop()
        self._drainers.stop()
        self._pixels.close()

    def _routes(self, config: Config) -> list[Route]:
        """One for each destination."""
        transcoder = WorkerTranscoder(self._pixels, self._decoded)
        return [_route(config, name, transcoder) for name in config.destination]


def _route(config: Config, name: str, transcoder: Transcoder) -> Route:
    peer = config.peer_of(name)
    assert peer.host is not None  # checked when the configuration was read
    assert peer.port is not None
    security = config.security_of(peer.name)
    address = PeerAddress(peer.host, peer.port, peer.ae_title, security)
    settings = delivery_settings(config, name)
    make: Callable[[], Deliverer]
    make = partial(DicomDeliverer, address, settings, transcoder if config.destination[name].decompress else None)
    asked = proof_route(config, name)
    asks = asked.policy.wants(Method.FIND)
    make = partial(asking_first, make, asked) if asks else make
    compared = (settings, config.destination[name].decompress, asked.address if asks else None)
    retry, opens = retry_policy(config, name), opening(config, name)
    return Route(name, str(address), retry, make, security, compared, opens, _own_ae(config, name))


def _own_ae(config: Config, name: str) -> str:
    """The AE title that is ours at a destination, where the sender's is passed through too."""
    setting = config.destination[name].calling_ae
    return config.node.ae_title if setting in ("node", "sender") else setting


def delivery_settings(config: Config, name: str) -> DeliverySettings:
    """How a destination is dealt with."""
    destination = config.destination[name]
    return DeliverySettings(
        timeouts=Timeouts(destination.connect_s, destination.associate_s, destination.response_s),
        associations=destination.associations,
        maximum_bytes=destination.max_pdu,
        allowed=Allowed(
            frozenset(destination.sop_classes) if destination.sop_classes else None,
            frozenset(destination.transfer_syntaxes) if destination.transfer_syntaxes else None,
        ),
        trace=PeerTrace(config.node.data / TRACES, destination.peer),
    )


def retry_policy(config: Config, destination: str) -> RetryPolicy:
    retry = config.destination[destination].retry
    return RetryPolicy(retry.initial_s, retry.maximum_s, retry.patience_h * 3600.0, retry.probe_s)


def opening(config: Config, name: str) -> Opening:
    """When a destination may be sent to."""
    destination = config.destination[name]
    return Opening(config.hours_of(name), destination.urgent_anytime)
