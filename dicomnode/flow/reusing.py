"""Reusing what former jobs made: where nothing that an engine reads has changed since, nothing is computed."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from dicomnode.core.rules import Leaving, leaving_of
from dicomnode.flow.dispatching import Dispatcher
from dicomnode.flow.rooms import Rooms
from dicomnode.store.index import jobs as job_index
from dicomnode.store.index import purges, replacing
from dicomnode.store.schema import Job
from dicomnode.telemetry import event


class Former(NamedTuple):
    """An earlier job that derived from the same stack by the same engines, and the rows of all its slices."""

    id: int
    result: str
    sources: dict[str, list[int]]


class FormerJobs:
    """Finds what former jobs made, and lets other jobs end with it."""

    def __init__(self, rooms: Rooms, dispatcher: Dispatcher) -> None:
        self._rooms = rooms
        self._dispatcher = dispatcher

    def of(self, job: Job) -> list[Former]:
        """Earlier jobs that made what this one is to make, if what an engine reads has not changed since: same stack,
        chain, outputs, and engines as they are now."""
        with self._rooms.database.read() as session:
            # what retention has deleted of a former one has to be made again
            found = [
                one for one in replacing.formers(session, job) if not purges.are_purged(session, one.derived_series)
            ]
        if not found:
            return []
        cards = self._rooms.cards(job.content["engines"])
        return [
            Former(one.id, one.result, sources_of(one))
            for one in found
            if one.result is not None and _makes(one) == _makes(job) and _was_run_by(one, cards)
        ]

    def repeat(self, job: Job, former_row: int) -> None:
        """End a job for which nothing is to be computed: what a former one derived is sent where this one's goes."""
        with self._rooms.database.write() as session:
            current, former = job_index.job(session, job.id), job_index.job(session, former_row)
            if current.state not in replacing.UNFINISHED:
                return
            made = replacing.repeat(session, current, former, time.time())
            for output, instances in zip(current.content["outputs"], made, strict=True):
                self._dispatcher.dispatch(session, current, output, instances)
        event("job_repeated", job_id=job.id, series_id=job.series_row, engine=", ".join(job.content["engines"]))


def sources_of(job: Job) -> dict[str, list[int]]:
    """The rows of a job's slices, and of those of the other series that its rule needs, by the need's name."""
    needed = {name: one["instance_rows"] for name, one in job.content.get("inputs", {}).items()}
    return {"": job.instance_rows, **needed}


def _makes(job: Job) -> tuple[str, list[Leaving]]:
    """Of which stack a job makes what."""
    return job.content["stack_key"], [leaving_of(output) for output in job.content["outputs"]]


def _was_run_by(job: Job, cards: list[dict[str, Any]]) -> bool:
    """Whether a job was done by engines with these cards."""
    return [(stage["card_digest"], stage["runtime"]) for stage in job.stages] == [
        (card["digest"], card["runtime"]) for card in cards
    ]
