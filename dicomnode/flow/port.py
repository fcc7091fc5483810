"""The workflow engine, DBOS, behind a narrow port: no other file knows it.

A workflow is a plain function of JSON arguments that runs named steps. A step runs at least once: killed half way, it
runs again after the restart; once its result is recorded it never runs again. So steps are idempotent, and a workflow's
body holds nothing but steps and enqueueing, under ids that are computed from rows.

On SQLite exactly one process runs workflows (`dicomnode.store.locks`), on PostgreSQL any number on any machines, each
serving the queues of its roles. The engine itself leaves alone what a process that died had begun; who is dead we find
out ourselves (`dicomnode.flow.takeover`). Its own tables share our database, so that both commit together; it creates
and updates them at its start.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import dbos
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from dicomnode.errors import DicomNodeError, EngineError

APPLICATION_VERSION: Final = "wf-1"
"""Raised only when a recorded workflow could not go on in the new code; it must have drained before."""

_NAME: Final = "dicomnode"
_POLL_S: Final = 0.25
_FORGOTTEN_AT_ONCE: Final = 500
_MAX_RECOVERIES: Final = 50
"""A workflow that was interrupted so often is taken to kill its process. Engines and decoders run in processes of their
own, so nearly always it is the node that was restarted."""

_PRIORITY: Final = 100
"""Always given: the engine takes an absent priority for the most urgent."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Call:
    """One workflow to be run: `id` is its identity for ever, a second one of the same id does nothing."""

    workflow: str
    queue: str
    id: str
    arguments: tuple[int | str, ...]
    priority: int = _PRIORITY
    delay_s: float = 0.0


class Workflows:
    """The engine of this process.

    workflows    by name, the functions that may be run
    queues       by name, how many of its workflows run at once in a process that serves it; of processes that ask for
                 different numbers, the one that started last is followed by all
    executor_id  this process's in this life: never used again
    """

    def __init__(
        self, url: str, workflows: Mapping[str, Callable[..., None]], queues: Mapping[str, int], executor_id: str
    ) -> None:
        self._url = url
        self._queues = queues
        self._executor_id = executor_id
        self._client: dbos.DBOSClient | None = None
        _quiet_logger()
        self._engine = dbos.DBOS(
            config={
                "name": _NAME,
                "system_database_url": url,
                "executor_id": executor_id,
                "application_version": APPLICATION_VERSION,
                "serializer": _JsonSerializer(),
                "sys_db_pool_size": 8,
                "log_level": "CRITICAL",
            }
        )
        for name, function in workflows.items():
            dbos.DBOS.workflow(name=name, max_recovery_attempts=_MAX_RECOVERIES)(function)

    def start(self) -> None:
        """Begin to serve the queues."""
        dbos.DBOS.listen_queues(list(self._queues))
        dbos.DBOS.launch()
        for name, concurrency in self._queues.items():
            dbos.DBOS.register_queue(
                name, worker_concurrency=concurrency, polling_interval_sec=_POLL_S, on_conflict="always_update"
            )

    def stop(self, grace_s: int) -> None:
        """Take no more work and wait for what runs; what is left goes on at the next start."""
        if self._client is not None:
            self._client.destroy()
        dbos.DBOS.destroy(workflow_completion_timeout_sec=grace_s)

    def enqueue(self, transaction: Session | Connection, call: Call) -> None:
        """Add a workflow in an open transaction of ours: both are committed, or neither."""
        if self._client is None:
            self._client = dbos.DBOSClient(
                system_database_url=self._url,
                serializer=_JsonSerializer(),
                application_name=_NAME,
                retry_connection_errors=False,
            )
        self._client.enqueue_in_transaction(transaction, _options(call), *call.arguments)

    def unfinished(self) -> frozenset[str]:
        """The ids of all workflows that are waiting or running."""
        found = dbos.DBOS.list_workflows(status=["PENDING", "ENQUEUED", "DELAYED"], load_input=False, load_output=False)
        return frozenset(workflow.workflow_id for workflow in found)

    def known(self, ids: Collection[str]) -> frozenset[str]:
        """Those of the ids that any workflow has or had, as far as it is remembered."""
        found = dbos.DBOS.list_workflows(workflow_ids=list(ids), load_input=False, load_output=False)
        return frozenset(workflow.workflow_id for workflow in found)

    def forget(self, finished_before: float) -> int:
        """Drop the record of workflows that ended before a time, a few hundred at once; how many.

        Their ids are never used again: what they did stands in our own tables.
        """
        ended = dbos.DBOS.list_workflows(
            status=["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"],
            completed_before=datetime.fromtimestamp(finished_before, UTC).isoformat(),
            limit=_FORGOTTEN_AT_ONCE,
            load_input=False,
            load_output=False,
        )
        if ended:
            dbos.DBOS.delete_workflows([workflow.workflow_id for workflow in ended])
        return len(ended)

    def owners(self) -> frozenset[str]:
        """The executor ids of all workflows that were begun and have not ended."""
        begun = dbos.DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        return frozenset(workflow.executor_id for workflow in begun if workflow.executor_id is not None)

    def recover(self, executor_ids: Collection[str]) -> int:
        """Put what these executors had begun back into its queues; how many workflows. Again, it does nothing.

        Only one process may do so at a time: the caller sees to that.
        """
        return RECOVERIES["private"](sorted(executor_ids))

    def dropped(self) -> frozenset[str]:
        """The ids of workflows that are recorded as begun by this process and do not run in it.

        Some are between their queue and their thread, or the other way. The others were lost there: the engine claims a
        workflow first and looks at it then, and where the database fails in between it goes on to the next.
        """
        begun = dbos.DBOS.list_workflows(
            status="PENDING", executor_id=self._executor_id, load_input=False, load_output=False
        )
        running = self._engine._active_workflows_set.activeList()
        return frozenset(workflow.workflow_id for workflow in begun) - frozenset(running)

    def give_back(self, ids: Collection[str]) -> None:
        """Put these back into their queues; what has ended meanwhile stays as it is."""
        _requeue(dbos.DBOS.list_workflows(workflow_ids=list(ids), load_input=False, load_output=False))


def _recover_privately(executor_ids: list[str]) -> int:
    """Not part of the engine's public interface. It keeps count of attempts, which ends a workflow that kills its
    process every time, and moves only what still belongs to these executors."""
    return len(dbos.DBOS._recover_pending_workflows(executor_ids))


def _recover_publicly(executor_ids: list[str]) -> int:
    """For an engine that has no such call any more. It forgets the count of attempts."""
    found = dbos.DBOS.list_workflows(status="PENDING", executor_id=executor_ids, load_input=False, load_output=False)
    _requeue(found)
    return len(found)


def _requeue(workflows: Iterable[dbos.WorkflowStatus]) -> None:
    by_queue: dict[str | None, list[str]] = defaultdict(list)
    for workflow in workflows:
        by_queue[workflow.queue_name].append(workflow.workflow_id)
    for queue, ids in by_queue.items():  # without a name it would go to a queue that every process serves
        dbos.DBOS.resume_workflows(ids, queue_name=queue)


RECOVERIES: Final = {"private": _recover_privately, "public": _recover_publicly}
"""Two ways to the same end, so that the loss of the first is one changed word; the same tests run on both."""


def step(name: str, function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Run a step inside a workflow: its result, a JSON value, is recorded."""
    result: _Result = dbos.DBOS.run_step({"name": name}, function, *arguments)
    return result


def follow_up(call: Call) -> None:
    """Enqueue a workflow from inside another."""
    dbos.DBOS.enqueue_workflow_with_options(_options(call), *call.arguments)


def _options(call: Call) -> dbos.EnqueueOptions:
    options: dbos.EnqueueOptions = {
        "workflow_name": call.workflow,
        "queue_name": call.queue,
        "workflow_id": call.id,
        "app_version": APPLICATION_VERSION,
        "priority": call.priority,
    }
    if call.delay_s:
        options["delay_seconds"] = call.delay_s
    return options


class _JsonSerializer(dbos.Serializer):
    """JSON in place of the engine's pickle: who can write to the database must not be able to run code here."""

    def name(self) -> str:
        return "dicomnode_json"

    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=_describe_error)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data, object_hook=_revive_error)


def _describe_error(value: object) -> dict[str, str]:
    if not isinstance(value, BaseException):
        raise TypeError(f"{type(value).__name__} is not a JSON value")
    # the text of a foreign error may quote a data set
    ours = isinstance(value, DicomNodeError | EngineError)
    return {"__error__": type(value).__name__, "message": str(value) if ours else ""}


def _revive_error(value: dict[str, Any]) -> Any:
    return DicomNodeError(f"{value['__error__']}: {value['message']}") if "__error__" in value else value


def _quiet_logger() -> None:
    """The engine's log lines would quote errors, and it logs thousands of them while a database is away."""
    logging.getLogger("dbos").setLevel(logging.CRITICAL)
