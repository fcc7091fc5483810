"""The processes of the node: what each joins together, and how it starts, reloads and stops."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final

from dicomnode import telemetry
from dicomnode.config import Config
from dicomnode.deliver.dicom import DicomDeliverer
from dicomnode.errors import ConfigError
from dicomnode.flow import port
from dicomnode.flow.closing import Closer
from dicomnode.flow.delivering import Drainers, Route
from dicomnode.flow.pipeline import Pipeline, Rooms
from dicomnode.flow.workflows import Reconciler, SeriesWorkflows
from dicomnode.net.scp.server import StorageServer
from dicomnode.net.scu import PeerAddress
from dicomnode.serve import wiring
from dicomnode.serve.wiring import Store
from dicomnode.store.intake import StoreIntake
from dicomnode.store.results import ResultStore
from dicomnode.workers import WorkerPool

ASSOCIATION_GRACE_S: Final = 20.0
"""How long open associations may go on after a stop was asked for."""
WORKFLOW_GRACE_S: Final = 20
"""How long running steps may go on; what they lose is done again after the next start."""
_LOCK_PATIENCE_S: Final = 45.0


class ReceiveRole:
    """Storage and Verification SCP, the file store, and the rows of what arrives."""

    def __init__(self, config: Config, store: Store) -> None:
        self._intake = StoreIntake(store.database, store.files, wiring.routing(config))
        self._server = StorageServer(wiring.scp_settings(config), self._intake)

    def start(self) -> None:
        try:
            self._intake.recover()
            self._server.start()
        except BaseException:
            self._intake.close()
            raise

    def reload(self, config: Config) -> None:
        self._intake.routing = wiring.routing(config)
        self._server.reconfigure(wiring.scp_settings(config))

    def stop(self) -> None:
        self._server.stop(ASSOCIATION_GRACE_S)
        self._intake.close()


class DeliverRole:
    """One drainer for each destination."""

    def __init__(self, config: Config, store: Store) -> None:
        self._config = config
        self._drainers = Drainers(store.database, store.files.path)
        self._deliverers: list[DicomDeliverer] = []

    def start(self) -> None:
        self._drain(self._config)

    def reload(self, config: Config) -> None:
        self._drain(config)

    def stop(self) -> None:
        self._drainers.stop()
        for deliverer in self._deliverers:
            deliverer.close()

    def _drain(self, config: Config) -> None:
        self.stop()
        routes = {name: self._route(config, name) for name in config.destination}
        self._drainers.replace(routes)

    def _route(self, config: Config, name: str) -> Route:
        peer = config.peer_of(name)
        assert peer.host is not None  # checked when the configuration was read
        assert peer.port is not None
        deliverer = DicomDeliverer(PeerAddress(peer.host, peer.port, peer.ae_title))
        self._deliverers.append(deliverer)
        return Route(name, deliverer, wiring.retry_policy(config, name), f"{peer.host}:{peer.port}")


class FlowRole:
    """The roles route, enhance and derive: completeness, the workflows, and their workers."""

    def __init__(self, config: Config, store: Store) -> None:
        self._stack = ExitStack()
        self._enter_lock(config)
        cores = os.cpu_count() or 1
        memory_bytes = config.limits.worker_memory_mb << 20
        self._pixels = WorkerPool("dicomnode.pixels.service", cores, memory_bytes)
        self._engines = WorkerPool("dicomnode.inference.service", cores, memory_bytes)
        rooms = Rooms(store.database, store.files, ResultStore(config.node.data), self._pixels, self._engines)
        self._pipeline = Pipeline(rooms, wiring.routing(config), wiring.deriving(config))
        self._workflows = port.Workflows(
            store.database.url,
            SeriesWorkflows(self._pipeline).table(),
            {"route": 4, "enhance": cores, "derive": cores},
        )
        self._closer = Closer(store.database, self._workflows.enqueue)
        self._reconciler = Reconciler(store.database, self._workflows.unfinished, self._pipeline)

    def start(self) -> None:
        self._workflows.start()
        self._closer.start()
        self._reconciler.start()

    def reload(self, config: Config) -> None:
        self._pipeline.routing = wiring.routing(config)
        self._pipeline.deriving = wiring.deriving(config)

    def stop(self) -> None:
        self._closer.stop()
        self._reconciler.stop()
        self._workflows.stop(WORKFLOW_GRACE_S)
        self._pixels.close()
        self._engines.close()
        self._stack.close()

    def _enter_lock(self, config: Config) -> None:
        """A former process may still be on its way out."""
        give_up_at = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                self._stack.enter_context(port.exclusive(config.node.data))
            except ConfigError as error:
                if time.monotonic() > give_up_at:
                    raise
                telemetry.event("process_waiting", role="flow", reason=str(error))
                time.sleep(1.0)
            else:
                return


ROLES: Final[Mapping[str, Callable[[Config, Store], ReceiveRole | DeliverRole | FlowRole]]] = {
    "receive": ReceiveRole,
    "deliver": DeliverRole,
    "flow": FlowRole,
}
