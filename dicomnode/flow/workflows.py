"""The three workflows, route, enhance and derive, as the engine runs them: steps, retries and what follows.

A step that fails for a passing reason is tried again by a new workflow with a delay, which holds no worker meanwhile;
after the last attempt, or for a lasting reason, the job ends as failed, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dicomnode.core.routing import PRIORITIES
from dicomnode.errors import DicomNodeError, EngineError, EngineNotFoundError, StoreError
from dicomnode.flow.closing import route_call
from dicomnode.flow.pipeline import Pipeline
from dicomnode.flow.port import Call, follow_up, step
from dicomnode.flow.repeating import Repeating
from dicomnode.store.database import Database
from dicomnode.store.index import jobs as job_index
from dicomnode.store.schema import Job
from dicomnode.telemetry import event

ATTEMPTS: Final = 5
_FIRST_RETRY_S: Final = 5.0
_RECONCILE_S: Final = 60.0
_REMEMBERED_S: Final = 7 * 86400.0
_LOST: Final = "its workflow ended by an error of the node"
_MOST_RESCUES: Final = 5


@dataclass(frozen=True, slots=True)
class _JobCall:
    """One attempt at one half of a job. `what` is "enhance" or "derive": workflow and queue have that name."""

    what: str
    row: int
    attempt: int
    priority: int

    def call(self, delay_s: float = 0.0) -> Call:
        identity = f"{self.what}:{self.row}:{self.attempt}"
        return Call(self.what, self.what, identity, (self.row, self.attempt, self.priority), self.priority, delay_s)


def derive_call(job_row: int, priority: int, released_at: float) -> Call:
    """The workflow that derives from a result which a person released: once more, where that was done before."""
    return Call("derive", "derive", f"derive:{job_row}:released:{released_at:.0f}", (job_row, 1, priority), priority)


class SeriesWorkflows:
    """The workflows over one pipeline.

    admit  called before any work is begun; waits while this process may be taken for dead
    """

    def __init__(self, pipeline: Pipeline, admit: Callable[[], None]) -> None:
        self._pipeline = pipeline
        self._admit = admit

    def table(self) -> Mapping[str, Callable[..., None]]:
        """The workflows by the names that `Call.workflow` uses."""

        # plain functions: the engine records a workflow by its name, and these hold no state of their own
        def route(series_row: int, generation: int, attempt: int = 1) -> None:
            self._route(series_row, generation, attempt)

        def enhance(job_row: int, attempt: int, priority: int) -> None:
            self._on_job(_JobCall("enhance", job_row, attempt, priority))

        def derive(job_row: int, attempt: int, priority: int) -> None:
            self._on_job(_JobCall("derive", job_row, attempt, priority))

        return {"route": route, "enhance": enhance, "derive": derive}

    def _route(self, series_row: int, generation: int, attempt: int) -> None:
        answer = step("plan", self._attempt, lambda: self._pipeline.plan(series_row, generation))
        if "error" in answer and answer["transient"] and attempt < ATTEMPTS:
            follow_up(
                Call(
                    "route", "route", f"route:{series_row}:{generation}:{attempt + 1}",
                    (series_row, generation, attempt + 1), delay_s=_delay_s(attempt),
                )
            )  # fmt: skip
        elif "error" in answer:
            step("fail plan", self._pipeline.fail_plan, series_row, generation, answer["error"])
            step("tell", _tell_failed_plan, series_row, answer)
        else:
            for job_row, priority in answer["result"]:
                follow_up(_JobCall("enhance", job_row, 1, priority).call())

    def _on_job(self, job: _JobCall) -> None:
        work = self._pipeline.enhance if job.what == "enhance" else self._pipeline.derive
        answer = step(job.what, self._attempt, lambda: work(job.row))
        if "error" in answer:
            self._failed(job, answer)
        elif job.what == "enhance" and answer["result"]:
            follow_up(_JobCall("derive", job.row, 1, job.priority).call())

    def _failed(self, job: _JobCall, answer: Mapping[str, Any]) -> None:
        again = answer["transient"] and job.attempt < ATTEMPTS
        step("tell", _tell_failed, job, answer, again)
        if again:
            follow_up(replace(job, attempt=job.attempt + 1).call(_delay_s(job.attempt)))
        else:
            step("fail", self._pipeline.fail, job.row, answer["error"], answer["hint"])

    def _attempt(self, work: Callable[[], Any]) -> dict[str, Any]:
        """Run a step's work; its failure is a result like any other, recorded and acted on."""
        self._admit()
        try:
            return {"result": work()}
        except (DicomNodeError, EngineError) as error:
            return {
                "error": str(error), "hint": error.hint, "transient": _may_pass(error), "kind": type(error).__name__,
            }  # fmt: skip
        except (OSError, SQLAlchemyError) as error:  # the texts of both may quote rows or paths
            what = f"the disk or the database failed ({type(error).__name__})"
            hint = "look at the disk under the data folder"
            return {"error": what, "hint": hint, "transient": True, "kind": type(error).__name__}


def _may_pass(error: DicomNodeError | EngineError) -> bool:
    """Whether another attempt may help. An engine that is not here may be on another machine, or come with an upgrade
    that is on its way; a disk or a bucket that fails may be back soon."""
    return error.transient or isinstance(error, EngineNotFoundError | StoreError)


class WorkflowRecord(Protocol):
    """What the engine remembers (`dicomnode.flow.port.Workflows`)."""

    def unfinished(self) -> frozenset[str]: ...

    def known(self, ids: Collection[str]) -> frozenset[str]: ...

    def enqueue(self, transaction: Session, call: Call) -> None: ...

    def forget(self, finished_before: float) -> int: ...


class Reconciler(Repeating):
    """The net under errors that nobody thought of: closed series and jobs that no workflow works on any more get
    another one, a few times, and are ended as failed then. It also keeps the engine's record from growing for ever."""

    def __init__(self, database: Database, record: WorkflowRecord, pipeline: Pipeline) -> None:
        super().__init__("reconcile", _RECONCILE_S, self._tidy)
        self._database = database
        self._record = record
        self._pipeline = pipeline

    def _tidy(self, now: float) -> None:
        self.reconcile(now)
        self._record.forget(now - _REMEMBERED_S)
        self._database.tend()

    def reconcile(self, now: float) -> int:
        """See to what is orphaned; how many. What changed within the last minute may be between two workflows."""
        with self._database.read() as session:
            jobs = [job for job in job_index.unfinished_jobs(session) if job.updated_at < now - _RECONCILE_S]
            closings = job_index.unplanned_series(session, now - _RECONCILE_S)
        if not jobs and not closings:
            return 0
        working = self._record.unfinished()
        orphans = [job for job in jobs if not _is_worked_on(job, working)]
        lost = [series for series in closings if not _is_routed(series.id, series.generation, working)]
        for job in orphans:
            if not self._rescue(_JobCall("enhance", job.id, 1, PRIORITIES[job.content["priority"]]).call()):
                self._pipeline.fail(job.id, _LOST, "report it with the node's log")
                event("job_failed", job_id=job.id, series_id=job.series_row, reason=_LOST)
        for series in lost:
            if not self._rescue(route_call(series.id, series.generation)):
                self._pipeline.fail_plan(series.id, series.generation, _LOST)
                event("plan_failed", series_id=series.id, series_instance_uid=series.series_instance_uid, reason=_LOST)
        return len(orphans) + len(lost)

    def _rescue(self, call: Call) -> bool:
        """Begin it anew under another id; False where that was done often enough. All machines come to the same id."""
        ids = [f"{call.id}:again-{number}" for number in range(1, _MOST_RESCUES + 1)]
        known = self._record.known(ids)
        unused = next((identity for identity in ids if identity not in known), None)
        if unused is None:
            return False
        with self._database.write() as session:
            self._record.enqueue(session, replace(call, id=unused))
        event("work_resumed", workflow=unused)
        return True


def _is_worked_on(job: Job, working: frozenset[str]) -> bool:
    own = any(identity.startswith((f"enhance:{job.id}:", f"derive:{job.id}:")) for identity in working)
    return own or _is_routed(job.series_row, job.generation, working)


def _is_routed(series_row: int, generation: int, working: frozenset[str]) -> bool:
    """Whether the first or a later attempt at routing waits or runs."""
    first = route_call(series_row, generation).id
    return any(identity == first or identity.startswith(f"{first}:") for identity in working)


def _delay_s(attempt: int) -> float:
    return _FIRST_RETRY_S * 4.0 ** (attempt - 1)


def _tell_failed(job: _JobCall, answer: Mapping[str, Any], again: bool) -> None:
    event(
        "job_failed",
        job_id=job.row,
        attempt=job.attempt,
        retry_s=_delay_s(job.attempt) if again else None,
        error=answer["kind"],
        reason=answer["error"],
        hint=answer["hint"],
    )


def _tell_failed_plan(series_row: int, answer: Mapping[str, Any]) -> None:
    event("plan_failed", series_id=series_row, error=answer["kind"], reason=answer["error"], hint=answer["hint"])
