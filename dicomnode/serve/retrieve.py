"""The retrieve process: fetches what was asked for, by C-GET into its own intake, or by C-MOVE to the receivers."""

from __future__ import annotations

from dicomnode.config import Config
from dicomnode.core.retrieving import RetrieveMethod
from dicomnode.flow.fetching import Source
from dicomnode.flow.retrieving import RetrieveTerms, Retrieving
from dicomnode.net.scu import Opening, PeerAddress, Timeouts
from dicomnode.net.trace import TRACES, PeerTrace
from dicomnode.serve import wiring
from dicomnode.serve.wiring import Store
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.intake import StoreIntake

PROCESS = "retrieve"


class RetrieveRole:
    """The role retrieve."""

    def __init__(self, config: Config, store: Store) -> None:
        owner = wiring.owner(config, PROCESS)
        self._files = store.files
        self._intake = StoreIntake(store.database, store.files, wiring.routing(config), owner)
        self._retrieving = Retrieving(store.database, self._intake, owner, terms(config))

    @property
    def is_alive(self) -> bool:
        return self._retrieving.is_alive

    def start(self) -> None:
        self._intake.recover()
        self._retrieving.start()

    def reload(self, config: Config) -> None:
        self._intake.routing = wiring.routing(config)
        self._files.reserve_bytes = wiring.reserve_bytes(config)
        self._retrieving.terms = terms(config)

    def stop(self) -> None:
        self._retrieving.stop()


def terms(config: Config) -> RetrieveTerms:
    """Whom we fetch from: every peer that can be called."""
    settings = config.retrieve
    sources = (_source(config, peer.name) for peer in config.peers() if peer.host is not None and peer.port is not None)
    retry = RetryPolicy(settings.initial_s, settings.maximum_s, settings.patience_h * 3600.0)
    return RetrieveTerms({source.name: source for source in sources}, retry, settings.at_once)


def _source(config: Config, name: str) -> Source:
    peer = config.peer[name]
    assert peer.host is not None
    assert peer.port is not None
    trace = PeerTrace(config.node.data / TRACES, name)
    return Source(
        name=name,
        address=PeerAddress(peer.host, peer.port, peer.ae_title, config.security_of(name)),
        method=RetrieveMethod(peer.retrieve),
        calling_ae=config.node.ae_title,
        opening=Opening(Timeouts(response_s=config.retrieve.response_s), trace=trace),
        max_dataset_bytes=config.limits.max_dataset_bytes,
    )
