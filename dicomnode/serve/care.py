"""What runs beside the workflows: reviews, retention, the disks, and strays that are taken in after all."""

from __future__ import annotations

import time

from dicomnode.config import Config
from dicomnode.core.disk import Marks
from dicomnode.core.retention import RetentionPolicy
from dicomnode.flow.closing import Enqueue
from dicomnode.flow.disk import DiskWatch, Watched
from dicomnode.flow.repeating import Repeating
from dicomnode.flow.retention import Keeping, Retention
from dicomnode.flow.reviewing import Reviewer, keep_back, let_go
from dicomnode.flow.strays import StrayIntake
from dicomnode.serve import wiring
from dicomnode.serve.wiring import Store
from dicomnode.settings import share_of
from dicomnode.store.files import free_bytes
from dicomnode.store.index import disk as disk_index
from dicomnode.store.intake import StoreIntake
from dicomnode.store.results import ResultStore
from dicomnode.store.strays import Strays


class Care:
    """The loops, and what of them follows a changed configuration. Every machine that routes runs all of them."""

    def __init__(self, config: Config, store: Store, results: ResultStore, enqueue: Enqueue) -> None:
        self._config = config
        self._database = store.database
        self._retention = Retention(store.database, (store.files, results), keeping(config), self._is_scarce)
        self._disks = DiskWatch(store.database, wiring.machine(config), watched(config))
        self._intake = StoreIntake(store.database, store.files, wiring.routing(config), wiring.owner(config, "strays"))
        strays = StrayIntake(Strays(config.files), self._intake, config.node.ae_title)
        self.loops: tuple[Repeating, ...] = (
            Reviewer(store.database, enqueue),
            self._retention,
            self._disks,
            strays,
        )

    def start(self) -> None:
        self._follow()
        for loop in self.loops:
            loop.start()

    def reload(self, config: Config) -> None:
        self._config = config
        self._retention.keeping = keeping(config)
        self._disks.watched = watched(config)
        self._intake.routing = wiring.routing(config)
        self._follow()

    def _follow(self) -> None:
        """What waits, waits by the configuration as it is: commissioning may have begun, or a check have ended."""
        asked = [name for name, destination in self._config.destination.items() if destination.check_patient]
        let_go(self._database, asked, time.time())
        keep_back(self._database, self._intake.routing)

    def _is_scarce(self) -> bool:
        """Whether less space is free than retention is to keep free."""
        wanted = self._config.retention.min_free
        free, total = free_bytes(self._config.files)
        return wanted is not None and free < share_of(total, wanted)


def keeping(config: Config) -> Keeping:
    """What is kept, and how long."""
    settings = config.retention
    policy = RetentionPolicy(
        originals_days=settings.originals_days,
        derived_days=settings.derived_days,
        unconfirmed_days=settings.delete_unconfirmed_after_days,
        unrouted_days=settings.delete_unrouted_after_days,
        quarantined_days=settings.delete_quarantined_after_days,
        is_by_space=settings.min_free is not None,
    )
    return Keeping(policy, settings.withheld_results_days)


def watched(config: Config) -> tuple[Watched, ...]:
    """The disks that are watched."""
    _, total = free_bytes(config.files)
    marks = Marks(config.limits.disk_warning_bytes(total), config.limits.disk_reserve_bytes(total))
    files = Watched(disk_index.FILES, config.files, marks)
    others = tuple(
        Watched(disk_index.INDEX, folder, Marks(2 * reserve, reserve)) for folder, reserve in wiring.other_disks(config)
    )
    return (files, *others)
