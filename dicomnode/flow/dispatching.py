"""Dispatching derived objects: into the outbox of each destination that the rules name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy.orm import Session

from dicomnode.core.routing import PRIORITIES, Routing
from dicomnode.store.index import jobs as job_index
from dicomnode.store.index import outbox, replacing
from dicomnode.store.schema import Instance, Job

SOURCES_FIRST_S: Final = 3600.0
"""How long a derived object waits for its sources to arrive at a destination before it goes without them."""


class Dispatcher:
    """Enqueues what jobs derived. `routing` gives the configuration as it is now.

    It is asked within the transaction: a reload that begins commissioning keeps back what is in the outbox
    (`dicomnode.flow.reviewing.keep_back`), and what is committed after that knows of it.
    """

    def __init__(self, routing: Callable[[], Routing]) -> None:
        self._routing = routing

    def dispatch(self, session: Session, job: Job, output: Mapping[str, Any], derived: Sequence[Instance]) -> None:
        """Send an output of a job where it is to go; what was rejected stays where it is."""
        now = time.time()
        source = job_index.job_instances(session, job)[0]
        revived = replacing.revive(session, derived)
        for target in output["targets"]:
            to = self._address(job, target, source, now)
            outbox.enqueue_derived(session, revived.instances, to, now)
            replacing.resume(session, revived, to.destination, to.withheld, now)

    def _address(self, job: Job, target: Mapping[str, Any], source: Instance, now: float) -> outbox.DerivedOutgoing:
        routing, destination = self._routing(), target["destination"]
        return outbox.DerivedOutgoing(
            destination=destination,
            rules=tuple(target["rules"]),
            calling_ae=routing.calling_ae(destination, source.calling_ae),
            priority=PRIORITIES[target["priority"]],
            after_series=job.series_row,
            hold_until=now + SOURCES_FIRST_S,
            withheld=routing.withholds(destination, target["rules"], job.content["commissioning"]),
        )
