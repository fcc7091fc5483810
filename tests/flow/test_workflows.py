"""What follows from a step's end: the next workflow, another attempt later, or a failed job with the reason."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from dicomnode.core.rules import RuleSpec
from dicomnode.errors import EngineError, EngineNotFoundError, InputError, StoreError, WorkerError
from dicomnode.flow import workflows
from dicomnode.flow.port import Call
from dicomnode.flow.workflows import ATTEMPTS, Reconciler, SeriesWorkflows
from dicomnode.store.schema import Job, Plan, Series
from tests.flow.rooms import Flow, flowing, phantom
from tests.store.receiving import routing

DENOISE = RuleSpec("denoise", {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",), priority="urgent")


@pytest.fixture(name="flow")
def _flow(tmp_path: Path) -> Iterator[Flow]:
    with flowing(tmp_path, routing(DENOISE)) as flow:
        yield flow


@pytest.fixture(name="queue")
def _queue(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Stands in for the workflow engine: steps run at once, what is enqueued is noted."""
    queue: list[Call] = []
    monkeypatch.setattr(workflows, "step", lambda name, function, *arguments: function(*arguments))
    monkeypatch.setattr(workflows, "follow_up", queue.append)
    return queue


def run(flow: Flow, call: Call) -> None:
    SeriesWorkflows(flow.pipeline, lambda: None).table()[call.workflow](*call.arguments)


def run_all(flow: Flow, queue: list[Call]) -> list[Call]:
    """Run what is enqueued until nothing is; what was run."""
    done = []
    while queue:
        done.append(queue.pop(0))
        run(flow, done[-1])
    return done


def failing(monkeypatch: pytest.MonkeyPatch, flow: Flow, step: str, error: Exception, times: int = 999) -> None:
    real: Callable[..., Any] = getattr(flow.pipeline, step)
    left = [times]

    def fail(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return real(*arguments)

    monkeypatch.setattr(flow.pipeline, step, fail)


def routed(flow: Flow) -> Call:
    flow.receive(phantom())
    row, generation = flow.close()
    return workflows.route_call(row, generation)


def test_one_workflow_follows_another_under_computed_names(flow: Flow, queue: list[Call]) -> None:
    queue.append(routed(flow))
    assert run_all(flow, queue) == [
        Call("route", "route", "route:1:1", (1, 1)),
        Call("enhance", "enhance", "enhance:1:1", (1, 1, 10), 10),
        Call("derive", "derive", "derive:1:1", (1, 1, 10), 10),
    ]
    assert [job.state for job in flow.jobs] == ["derived"]


def test_what_is_refused_has_nothing_following(flow: Flow, queue: list[Call]) -> None:
    study = phantom()
    for dataset in study:
        dataset.PixelSpacing = [9, 9]
    flow.receive(study)
    queue.append(workflows.route_call(*flow.close()))
    assert [call.workflow for call in run_all(flow, queue)] == ["route", "enhance"]
    assert [job.state for job in flow.jobs] == ["refused"]


@pytest.mark.parametrize("what", ["enhance", "derive"])
def test_a_passing_error_is_tried_again_ever_later_then_fails(
    flow: Flow, queue: list[Call], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    failing(monkeypatch, flow, what, WorkerError("it died", "give it memory"))
    queue.append(routed(flow))
    calls = [call for call in run_all(flow, queue) if call.workflow == what]
    assert [call.id for call in calls] == [f"{what}:1:{attempt}" for attempt in range(1, ATTEMPTS + 1)]
    delays = [call.delay_s for call in calls]
    assert delays[0] == 0.0
    assert all(one < other for one, other in pairwise(delays))
    assert [(job.state, job.reasons) for job in flow.jobs] == [("failed", ["it died", "give it memory"])]


@pytest.mark.parametrize("what", ["plan", "enhance", "derive"])
@pytest.mark.parametrize(
    "error",
    [
        WorkerError("died"),
        OSError(28, "No space", "/data/Doe^Jane"),
        OperationalError("insert Doe^Jane", {}, Exception()),
        EngineNotFoundError("there is no engine 'ct-nlm'"),  # on this machine
        StoreError("the bucket failed"),
    ],
    ids=["worker", "disk", "database", "engine", "bucket"],
)
def test_what_passes_is_done_in_the_end(
    flow: Flow, queue: list[Call], monkeypatch: pytest.MonkeyPatch, what: str, error: Exception
) -> None:
    failing(monkeypatch, flow, what, error, times=2)
    queue.append(routed(flow))
    calls = run_all(flow, queue)
    assert [job.state for job in flow.jobs] == ["derived"]
    attempts = [call for call in calls if call.workflow == ("route" if what == "plan" else what)]
    assert [call.delay_s for call in attempts] == [0.0, 5.0, 20.0]


def test_no_text_of_a_foreign_error_is_recorded(flow: Flow, queue: list[Call], monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, flow, "enhance", OSError(5, "I/O error", "/data/Doe^Jane"))
    queue.append(routed(flow))
    run_all(flow, queue)
    (job,) = flow.jobs
    assert job.state == "failed"
    assert "Doe" not in str(job.reasons)
    assert "OSError" in job.reasons[0]


@pytest.mark.parametrize("error", [InputError("cannot be decoded", "ask again"), EngineError("no", "ask again")])
def test_a_lasting_error_fails_at_once(
    flow: Flow, queue: list[Call], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failing(monkeypatch, flow, "enhance", error)
    queue.append(routed(flow))
    assert len(run_all(flow, queue)) == 2
    assert [(job.state, job.reasons) for job in flow.jobs] == [("failed", [str(error), "ask again"])]


def test_a_plan_that_fails_is_tried_again_then_recorded(
    flow: Flow, queue: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, flow, "plan", WorkerError("the reader died"))
    queue.append(routed(flow))
    calls = run_all(flow, queue)
    assert [call.id for call in calls] == ["route:1:1", *(f"route:1:1:{attempt}" for attempt in range(2, ATTEMPTS + 1))]
    assert [plan.content["failed"] for plan in flow.reception.rows(Plan)] == ["the reader died"]
    assert flow.jobs == []


def test_an_error_of_the_node_is_not_taken_for_one_of_the_input(
    flow: Flow, queue: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, flow, "enhance", KeyError("Doe^Jane"))
    queue.append(routed(flow))
    with pytest.raises(KeyError):
        run_all(flow, queue)


@dataclass(frozen=True)
class Remembered:
    """An engine's record in which these workflows have not ended."""

    working: frozenset[str]
    resumed: list[str] = field(default_factory=list)
    rescues: int = 0

    def unfinished(self) -> frozenset[str]:
        return self.working

    def known(self, ids: Collection[str]) -> frozenset[str]:
        return frozenset(list(ids)[: 5 - self.rescues])

    def enqueue(self, transaction: Session, call: Call) -> None:
        self.resumed.append(call.id)

    def forget(self, finished_before: float) -> int:
        return 0


def reconciled(flow: Flow, *working: str, now: float) -> int:
    return Reconciler(flow.reception.database, Remembered(frozenset(working)), flow.pipeline).reconcile(now)


def test_what_nothing_works_on_is_begun_anew_a_few_times(flow: Flow) -> None:
    at = planned(flow)
    record = Remembered(frozenset(), rescues=2)
    assert Reconciler(flow.reception.database, record, flow.pipeline).reconcile(at + 61.0) == 1
    assert record.resumed == ["enhance:1:1:again-4"]
    assert [job.state for job in flow.jobs] == ["planned"]


def test_a_closing_that_nothing_plans_is_planned_anew(flow: Flow) -> None:
    closed_at(flow, 1000.0)
    record = Remembered(frozenset(), rescues=5)
    assert Reconciler(flow.reception.database, record, flow.pipeline).reconcile(2000.0) == 1
    assert record.resumed == ["route:1:1:again-1"]
    assert flow.reception.rows(Plan) == []


def planned(flow: Flow) -> float:
    """A series with one planned job; when it was planned."""
    flow.receive(phantom())
    flow.pipeline.plan(*flow.close())
    return flow.jobs[0].updated_at


def test_a_job_that_nothing_works_on_is_ended(flow: Flow) -> None:
    at = planned(flow)
    assert reconciled(flow, "enhance:11:1", "derive:2:1", "route:11:1", now=at + 61.0) == 1
    (job,) = flow.jobs
    assert job.state == "failed"
    assert job.reasons == ["its workflow ended by an error of the node", "report it with the node's log"]
    assert reconciled(flow, now=at + 200.0) == 0


@pytest.mark.parametrize("identity", ["enhance:1:1", "enhance:1:4", "derive:1:1", "route:1:1", "route:1:1:3"])
def test_a_job_that_something_works_on_is_left(flow: Flow, identity: str) -> None:
    at = planned(flow)
    assert reconciled(flow, identity, now=at + 1e6) == 0
    assert [job.state for job in flow.jobs] == ["planned"]


def test_a_job_that_just_changed_may_be_between_two_workflows(flow: Flow) -> None:
    at = planned(flow)
    assert reconciled(flow, now=at + 59.0) == 0


def test_another_closing_of_the_series_is_no_reason_to_wait(flow: Flow) -> None:
    at = planned(flow)
    assert reconciled(flow, "route:1:2", now=at + 61.0) == 1


def closed_at(flow: Flow, at: float) -> None:
    flow.receive(phantom())
    flow.close()
    with flow.reception.database.write() as session:
        session.execute(update(Series).values(closed_at=at))


def test_a_closed_series_that_nothing_plans_is_told(flow: Flow) -> None:
    closed_at(flow, 1000.0)
    assert reconciled(flow, "route:1:1", now=2000.0) == 0
    assert reconciled(flow, "route:1:1:2", now=2000.0) == 0
    assert reconciled(flow, now=1059.0) == 0
    assert reconciled(flow, "route:1:11", now=2000.0) == 1
    assert [plan.content["failed"] for plan in flow.reception.rows(Plan)] == [
        "its workflow ended by an error of the node"
    ]
    assert reconciled(flow, now=3000.0) == 0


def test_a_series_with_a_plan_is_left(flow: Flow) -> None:
    planned(flow)
    with flow.reception.database.write() as session:
        session.execute(update(Job).values(state="derived"))
        session.execute(update(Series).values(closed_at=1000.0))
    assert reconciled(flow, now=2000.0) == 0
