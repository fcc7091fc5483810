"""Doing what a person decided on: a loop beside the workflows, on any number of machines."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from dicomnode.core.review import RELEASED
from dicomnode.core.routing import PRIORITIES, Routing
from dicomnode.flow.closing import Enqueue
from dicomnode.flow.repeating import Repeating
from dicomnode.flow.workflows import derive_call
from dicomnode.store.database import Database
from dicomnode.store.index import reviews
from dicomnode.store.schema import Job
from dicomnode.telemetry import event

_POLL_S: Final = 1.0


class Reviewer(Repeating):
    """Takes up the results that were released."""

    def __init__(self, database: Database, enqueue: Enqueue) -> None:
        super().__init__("review", _POLL_S, self.review)
        self._database = database
        self._enqueue = enqueue

    def review(self, now: float) -> int:
        """Take up every job that was released; how many."""
        with self._database.read() as session:
            released = reviews.released_jobs(session, RELEASED)
        return sum(self._take_up(job, now) for job in released)

    def _take_up(self, job: Job, now: float) -> bool:
        with self._database.write() as session:
            if not reviews.take_up(session, job.id, now):
                return False
            self._enqueue(session, derive_call(job.id, PRIORITIES[job.content["priority"]], now))
        event("job_released", job_id=job.id, series_id=job.series_row, engine=", ".join(job.content["engines"]))
        return True


def let_go(database: Database, asked: Collection[str], now: float) -> int:
    """Let leave what waited for destinations to be asked about the patient that are not asked any more; how many."""
    with database.write() as session:
        return reviews.skip_checks(session, asked, now)


def keep_back(database: Database, routing: Routing) -> int:
    """Let nothing derived leave that has not left yet, where commissioning has begun; how many deliveries wait now."""
    tried_out = None if routing.commissioning else {rule.name for rule in routing.rules.rules if rule.commissioning}
    if tried_out is not None and not tried_out:
        return 0
    with database.write() as session:
        kept = reviews.withhold_derived(session, tried_out)
    if kept:
        event("commissioning_keeps", instances=kept)
    return kept
