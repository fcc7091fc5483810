"""The deliver process: one drainer for each destination."""

from __future__ import annotations

from functools import partial

from dicomnode.config import Config
from dicomnode.deliver.dicom import DicomDeliverer
from dicomnode.flow.delivering import Drainers, Route
from dicomnode.net.scu import PeerAddress
from dicomnode.serve.wiring import Store
from dicomnode.store.index import outbox
from dicomnode.store.index.outbox import RetryPolicy


class DeliverRole:
    """One drainer for each destination."""

    def __init__(self, config: Config, store: Store) -> None:
        self._config = config
        self._database = store.database
        self._drainers = Drainers(store.database, store.files.path)

    @property
    def is_alive(self) -> bool:
        return self._drainers.are_alive

    def start(self) -> None:
        with self._database.write() as session:
            outbox.break_leases(session)  # a killed process could not give them up, and we are the only one here
        self._drainers.follow(routes(self._config))

    def reload(self, config: Config) -> None:
        self._drainers.follow(routes(config))

    def stop(self) -> None:
        self._drainers.stop()


def routes(config: Config) -> list[Route]:
    """One for each destination."""
    return [_route(config, name) for name in config.destination]


def _route(config: Config, name: str) -> Route:
    peer = config.peer_of(name)
    assert peer.host is not None  # checked when the configuration was read
    assert peer.port is not None
    security = config.security_of(peer.name)
    address = PeerAddress(peer.host, peer.port, peer.ae_title, security)
    return Route(name, str(address), retry_policy(config, name), partial(DicomDeliverer, address), security)


def retry_policy(config: Config, destination: str) -> RetryPolicy:
    retry = config.destination[destination].retry
    return RetryPolicy(retry.initial_s, retry.maximum_s, retry.patience_h * 3600.0)
