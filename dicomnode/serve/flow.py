"""The flow process: completeness, the workflows, and the workers that decode, enhance and encode for them."""

from __future__ import annotations

import os
from typing import Final

from dicomnode import __version__
from dicomnode.config import Config
from dicomnode.core.identity import DEVICE_UID
from dicomnode.flow import port
from dicomnode.flow.closing import Closer
from dicomnode.flow.pipeline import Deriving, Pipeline, Rooms
from dicomnode.flow.workflows import Reconciler, SeriesWorkflows
from dicomnode.serve import wiring
from dicomnode.serve.wiring import Store
from dicomnode.store.intake import set_strays_aside
from dicomnode.store.results import ResultStore
from dicomnode.workers import WorkerPool

WORKFLOW_GRACE_S: Final = 20
"""How long running steps may go on; what they lose is done again after the next start."""


class FlowRole:
    """The roles route, enhance and derive: completeness, the workflows, and their workers."""

    def __init__(self, config: Config, store: Store) -> None:
        cores = os.cpu_count() or 1
        memory_bytes = config.limits.worker_memory_mb << 20
        self._pixels = WorkerPool("dicomnode.pixels.service", cores, memory_bytes)
        self._engines = WorkerPool("dicomnode.inference.service", cores, memory_bytes)
        rooms = Rooms(store.database, store.files, ResultStore(config.files), self._pixels, self._engines)
        self._pipeline = Pipeline(rooms, wiring.routing(config), deriving(config))
        self._workflows = port.Workflows(
            store.database.url,
            SeriesWorkflows(self._pipeline).table(),
            {"route": 4, "enhance": cores, "derive": cores},
        )
        self._closer = Closer(store.database, self._workflows.enqueue)
        self._reconciler = Reconciler(store.database, self._workflows, self._pipeline)
        self._store = store

    @property
    def is_alive(self) -> bool:
        return self._closer.is_alive and self._reconciler.is_alive

    def start(self) -> None:
        set_strays_aside(self._store.database, self._store.files)
        self._workflows.start()
        self._closer.start()
        self._reconciler.start()

    def reload(self, config: Config) -> None:
        self._pipeline.routing = wiring.routing(config)
        self._pipeline.deriving = deriving(config)

    def stop(self) -> None:
        self._closer.stop()
        self._reconciler.stop()
        self._workflows.stop(WORKFLOW_GRACE_S)
        self._pixels.close()
        self._engines.close()


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
