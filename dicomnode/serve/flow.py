"""The flow process: completeness, the workflows, and the workers that decode, enhance and encode for them."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from typing import Final

from dicomnode import __version__
from dicomnode.config import Config
from dicomnode.core.identity import DEVICE_UID
from dicomnode.flow import port
from dicomnode.flow.closing import Closer
from dicomnode.flow.deriving import Deriving
from dicomnode.flow.pipeline import Pipeline
from dicomnode.flow.rejecting import Rejector
from dicomnode.flow.repeating import Repeating
from dicomnode.flow.rooms import Rooms
from dicomnode.flow.takeover import Successor
from dicomnode.flow.withdrawing import Withdrawer
from dicomnode.flow.workflows import Reconciler, SeriesWorkflows
from dicomnode.serve import wiring
from dicomnode.serve.care import Care
from dicomnode.serve.engines import engine_service, shared_folders
from dicomnode.serve.heart import Heart
from dicomnode.serve.wiring import Store
from dicomnode.store.intake import set_strays_aside
from dicomnode.workers import WorkerPool

WORKFLOW_GRACE_S: Final = 20
"""How long running steps may go on; what they lose is done again, here after the next start or by another machine."""

_ROUTED_AT_ONCE: Final = 4


class FlowRole:
    """Those of the roles route, enhance and derive that this process has: its queues, its loops, and its workers.

    A role is the queue of its name and a list of loops; every machine that has it runs all of them, so that a loop
    must bear others of its kind beside it.
    """

    def __init__(self, config: Config, store: Store, roles: Collection[str], heart: Heart) -> None:
        workers = config.limits.workers
        cores = (os.cpu_count() or 1) if workers == "auto" else workers
        memory_bytes = config.limits.worker_memory_mb << 20
        self._pixels = WorkerPool("dicomnode.pixels.service", cores, memory_bytes)
        results = wiring.result_store(config)
        self._engines = engine_service(config, cores)
        self._shared = shared_folders(config)
        self._rooms = Rooms(
            store.database,
            store.files,
            results,
            self._pixels,
            self._engines,
            self._shared,
            config.engines.deadline_s,
        )
        self._pipeline = Pipeline(self._rooms, wiring.routing(config), deriving(config))
        slots = {"route": _ROUTED_AT_ONCE, "enhance": cores, "derive": cores}
        self._workflows = port.Workflows(
            store.database.url,
            SeriesWorkflows(self._pipeline, heart.await_sign).table(),
            {role: slots[role] for role in roles},
            heart.executor_id,
        )
        cadence = wiring.cadence(config)
        self._successor = Successor(store.database, self._workflows, heart, wiring.machine(config), cadence)
        self._loops = (self._successor, *(self._loops_of_route(store) if "route" in roles else ()))
        self._care = Care(config, store, self._rooms.results, self._workflows.enqueue) if "route" in roles else None
        self._store = store

    def _loops_of_route(self, store: Store) -> tuple[Repeating, ...]:
        return (
            Closer(store.database, self._workflows.enqueue),
            Reconciler(store.database, self._workflows, self._pipeline),
            Rejector(self._rooms, lambda: self._pipeline.routing),
            Withdrawer(self._rooms, self._pipeline),
        )

    @property
    def is_alive(self) -> bool:
        loops = (*self._loops, *(self._care.loops if self._care is not None else ()))
        return all(loop.is_alive for loop in loops)

    def start(self) -> None:
        set_strays_aside(self._store.database, self._store.files)
        self._workflows.start()
        self._successor.take_over(time.time())  # what our own former life had begun need not wait for a beat
        for loop in self._loops:
            loop.start()
        if self._care is not None:
            self._care.start()

    def reload(self, config: Config) -> None:
        self._pipeline.routing = wiring.routing(config)
        self._pipeline.deriving = deriving(config)
        if self._care is not None:
            self._care.reload(config)

    def stop(self) -> None:
        for loop in (*self._loops, *(self._care.loops if self._care is not None else ())):
            loop.stop()
        self._workflows.stop(WORKFLOW_GRACE_S)
        self._pixels.close()
        self._engines.close()
        self._shared.close()


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
