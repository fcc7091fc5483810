"""Enhancing: what becomes of a job by the result of its engines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dicomnode.core.review import DISMISSED, RELEASED, is_flagged
from dicomnode.flow.computing import ChainRunner, Result
from dicomnode.flow.measuring import Measurer, is_constancy, tell_drifts, tell_phantom
from dicomnode.flow.reusing import Former, FormerJobs
from dicomnode.flow.rooms import Rooms
from dicomnode.store.index import jobs as job_index
from dicomnode.store.index import replacing
from dicomnode.store.schema import Instance, Job, JobState
from dicomnode.telemetry import event

_STATES: Final = {"done": JobState.ENHANCED, "refused": JobState.REFUSED, "withheld": JobState.WITHHELD}
"""The state of a job by that of its engines' report."""


class Enhancer:
    """Gets the results of jobs, and records how they end where nothing is to be derived from them."""

    def __init__(self, rooms: Rooms, former_jobs: FormerJobs) -> None:
        self._rooms = rooms
        self._former_jobs = former_jobs
        self._chains = ChainRunner(rooms, former_jobs)
        self._measurer = Measurer(rooms)

    def enhance(self, job_row: int) -> bool:
        """Run a job's engines; whether there is a result to derive from."""
        with self._rooms.database.read() as session:
            job = job_index.job(session, job_row)
            instances = job_index.job_instances(session, job)
        if job.state not in replacing.UNFINISHED:
            return False
        started = time.monotonic()
        if is_constancy(job):
            return self._measure(job, instances, started)
        made = self._chains.result(job, instances)
        return self._record(job, made, time.monotonic() - started)

    def _measure(self, job: Job, instances: Sequence[Instance], started: float) -> bool:
        """Measure a phantom; whether there is a report to derive."""
        seen = self._measurer.of_phantom(job, instances)
        state = JobState.REFUSED if seen.measured is None else JobState.ENHANCED
        with self._rooms.database.write() as session:
            current = job_index.job(session, job.id)
            if current.state not in replacing.UNFINISHED:
                return False
            drifts = [] if seen.measured is None else self._measurer.record(session, current, [seen.measured])
            job_index.end_job(session, job.id, state, seen.refused, time.time())
        told = {"state": "refused" if seen.measured is None else "done", "reasons": list(seen.refused)}
        _tell(job, told, time.monotonic() - started)
        tell_phantom(job, seen)
        tell_drifts(job, drifts)
        return seen.measured is not None

    def result_to_derive(self, job: Job, instances: Sequence[Instance]) -> Result | None:
        """The result of an enhanced job; None where it had been lost, and nothing is to be derived from the new one."""
        started = time.monotonic()
        made = self._chains.result(job, instances)
        if isinstance(made, Former) or not made.may_leave(job):  # computed anew by an engine that changed
            self._record(job, made, time.monotonic() - started)
            return None
        if made.key == job.result or made.report["state"] != "done":
            return made
        # made by another version, as machines of a cluster may have it
        return made if self._record(job, made, time.monotonic() - started) else None

    def fail(self, job_row: int, reason: str, hint: str) -> None:
        """End a job that cannot be done. What a person decided of its result is void: somebody is to look again."""
        with self._rooms.database.write() as session:
            job = job_index.job(session, job_row)
            if job.state in replacing.UNFINISHED:
                job_index.end_job(session, job_row, JobState.FAILED, [reason, hint] if hint else [reason], time.time())
                job.review = ""
        self.forget_result(job)

    def forget_result(self, job: Job) -> None:
        """Remove what lies there of a job that has come to an end."""
        if job.result is not None:
            self._rooms.results.forget(job.result)

    def _record(self, job: Job, made: Result | Former, seconds: float) -> bool:
        """Store how a job's engines ended; whether there is a result to derive from."""
        if isinstance(made, Former):
            self._former_jobs.repeat(job, made.id)
            return False
        state = _STATES[made.report["state"]]
        measured = self._measurer.of_engines(job, made.report)
        with self._rooms.database.write() as session:
            current = job_index.job(session, job.id)
            if current.state not in replacing.UNFINISHED:  # superseded or cancelled meanwhile
                self._rooms.results.forget(made.key)
                return False
            job_index.record_result(session, job.id, state, made.report, made.key, time.time())
            if state != JobState.ENHANCED and job.content.get("kind") == "shadow":
                current.review = DISMISSED  # nothing of it was to leave: nobody has to decide
            drifts = self._measurer.record(session, current, measured)
        _tell(job, made.report, seconds)
        tell_drifts(job, drifts)
        return state == JobState.ENHANCED


def _tell(job: Job, report: Mapping[str, Any], seconds: float) -> None:
    told: dict[str, str | int] = {
        "job_id": job.id, "series_id": job.series_row, "engine": ", ".join(job.content["engines"]),
    }  # fmt: skip
    if report["state"] == "done":
        event("job_finished", **told, instances=len(job.instance_rows), seconds=seconds)
        if is_flagged(report, job.content, is_released=job.review == RELEASED) and job.content["outputs"]:
            event("job_flagged", **told, reason="; ".join(report["reasons"]))
    else:
        event(f"job_{report['state']}", **told, reason="; ".join(report["reasons"]))
