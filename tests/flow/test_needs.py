"""A rule that needs several series of a study: its job begins with the last of them, once, and has all inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select, update

from dicomnode.core.rules import RuleSpec
from dicomnode.core.types import Completeness, CompletenessPolicy, OnDeadline, Verdict
from dicomnode.errors import ConfigError
from dicomnode.flow.closing import Closer
from dicomnode.flow.port import Call
from dicomnode.operations.close import close
from dicomnode.operations.status import status
from dicomnode.operations.why import why
from dicomnode.store.index import series as series_index
from dicomnode.store.index.needs import needs_of
from dicomnode.store.schema import Plan, Series, Study, StudyNeed
from tests.flow.rooms import Flow, flowing, phantom
from tests.operations.sites import index_of, site
from tests.store.receiving import routing

RULE = RuleSpec(
    "both",
    {"Modality": "CT"},
    needs={"axial": {"SeriesDescription": "axial"}, "second": {"SeriesDescription": "second"}},
    engines=("ct-nlm",),
    send_results=("pacs",),
)
COMPLETE = Verdict(Completeness.COMPLETE, None, ("all are here",), 1.0)


@pytest.fixture(name="flow")
def _flow(tmp_path: Path) -> Iterator[Flow]:
    with flowing(tmp_path, routing(RULE)) as flow:
        yield flow


def series_of(description: str, number: int) -> list[Dataset]:
    """A phantom as the series of that description; all are of one study."""
    study = phantom()
    for dataset in study:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", f"1.2.3.{number}"
        dataset.SOPInstanceUID = f"1.2.3.{number}.{dataset.InstanceNumber}"
        dataset.SeriesDescription = description
    return study


def arrived(flow: Flow, description: str, number: int, now: float = 5000.0) -> list[list[int]]:
    """Receive a series, close it and plan it; what is to be enhanced then."""
    flow.receive(series_of(description, number))
    with flow.reception.database.write() as session:
        series = session.scalars(select(Series).where(Series.series_instance_uid == f"1.2.3.{number}")).one()
        generation = series_index.close(session, series, COMPLETE, now)
        assert generation is not None
        row = series.id
    return flow.pipeline.plan(row, generation)


def need(flow: Flow) -> StudyNeed:
    (row,) = flow.reception.rows(StudyNeed)
    return row


def test_the_last_series_begins_the_job_which_has_all_inputs(flow: Flow) -> None:
    assert arrived(flow, "axial", 1) == []
    assert (need(flow).state, list(need(flow).met)) == ("waiting", ["axial"])
    ((job_row, _),) = arrived(flow, "second", 2)
    (job,) = flow.jobs
    assert (job.id, job.series_row, job.ordinal) == (job_row, 1, 0)
    assert {name: one["series_instance_uid"] for name, one in job.content["inputs"].items()} == {
        "axial": "1.2.3.1",
        "second": "1.2.3.2",
    }
    assert job.instance_rows == job.content["inputs"]["axial"]["instance_rows"]
    assert len(job.content["inputs"]["second"]["instance_rows"]) == 4
    assert need(flow).state == "fired"
    assert flow.pipeline.enhance(job_row)
    flow.pipeline.derive(job_row)
    assert len(flow.derived()) == 1


def test_the_order_does_not_matter_and_a_repeated_routing_changes_nothing(flow: Flow) -> None:
    assert arrived(flow, "second", 2) == []
    first = arrived(flow, "axial", 1)
    assert len(first) == 1
    assert flow.pipeline.plan(2, 1) == first
    assert flow.pipeline.plan(1, 1) == first, "what was made for another closing has not begun: it is handed on again"
    assert len(flow.jobs) == 1
    flow.pipeline.enhance(first[0][0])
    assert flow.pipeline.plan(1, 1) == []


def test_the_plan_records_what_fulfils_what(flow: Flow) -> None:
    arrived(flow, "axial", 1)
    arrived(flow, "second", 2)
    told = [plan.content["needs"] for plan in flow.reception.rows(Plan)]
    assert told == [
        [{"rule": "both", "met": {"axial": "1.2.3.1"}, "missing": ["second"]}],
        [{"rule": "both", "met": {"axial": "1.2.3.1", "second": "1.2.3.2"}, "missing": []}],
    ]


def test_other_series_of_the_study_do_nothing_for_it(flow: Flow) -> None:
    arrived(flow, "other", 3)
    assert flow.reception.rows(StudyNeed) == []


def test_a_further_closing_of_a_series_fulfils_it_anew(flow: Flow) -> None:
    arrived(flow, "axial", 1)
    arrived(flow, "second", 2)
    late = series_of("axial", 1)[0]
    late.SOPInstanceUID, late.ImagePositionPatient = "1.2.3.1.99", [0, 0, 500]
    flow.receive([late])
    with flow.reception.database.write() as session:
        session.execute(update(Series).where(Series.id == 1).values(state="closed", generation=2, due_at=None))
    assert len(flow.pipeline.plan(1, 2)) == 1
    assert [job.generation for job in flow.jobs] == [1, 2]


class Enqueued(list[Call]):
    def __call__(self, session: Any, call: Call) -> None:
        self.append(call)


@pytest.mark.parametrize(
    ("on_deadline", "first", "state"),
    [("flag", "axial", "due"), ("proceed", "axial", "due"), ("hold", "axial", "held"), ("flag", "second", "ended")],
)
def test_at_its_deadline_it_goes_on_or_waits_for_a_person(
    tmp_path: Path, on_deadline: str, first: str, state: str
) -> None:
    waits = CompletenessPolicy(on_deadline=OnDeadline(on_deadline))
    with flowing(tmp_path, routing(RULE, waits=waits)) as flow:
        arrived(flow, first, 1)
        enqueued = Enqueued()
        closer = Closer(flow.reception.database, enqueued)
        due_at = need(flow).due_at
        assert due_at is not None
        closer.judge_due(due_at - 1)
        assert need(flow).state == "waiting"
        closer.judge_due(due_at)
        assert need(flow).state == state
        assert [call.arguments for call in enqueued] == ([(1, 1)] if state == "due" else [])
        if state == "due":
            assert len(flow.pipeline.plan(1, 1)) == 1
            assert flow.jobs[0].content["source_incomplete"] == ["no series fulfils 'second'"]


@pytest.mark.parametrize("named", ["1.2.3", "A-17"])
def test_a_person_lets_it_go_on_and_all_of_it_is_told(tmp_path: Path, named: str) -> None:
    rule = {
        "name": "both", "match": {"Modality": "CT"}, "needs": ["first one", "second"],
        "engines": ["ct-nlm"], "send_results": ["pacs"],
    }  # fmt: skip
    needs = {"first one": {"match": {"SeriesDescription": "axial"}}, "second": {"match": {"SeriesDescription": "x"}}}
    config = site(tmp_path, need=needs, rule=[rule], completeness={"on_deadline": "hold"})
    with index_of(config) as flow:
        arrived(flow, "axial", 1)
        told = "\n".join(why(config, "1.2.3.1").lines())
        assert "rule 'both', for which several series of the study are needed, waits for the others until" in told
        assert "first one: series 1.2.3.1" in told
        assert "second: missing" in told
        enqueued = Enqueued()
        closer = Closer(flow.reception.database, enqueued)
        closer.judge_due(9e9)
        (held,) = [problem for problem in status(config).problems if problem.kind == "held"]
        assert held.about == "1.2.3"
        assert "rule 'both' needs 'second', which did not come" in held.reason
        with flow.reception.database.write() as session:
            session.get_one(Study, 1).accession_number = "A-17"
        assert close(config, named).rules == ("both",)
        closer.judge_due(9e9)
        assert len(enqueued) == 1
        assert len(flow.pipeline.plan(1, 1)) == 1
        with flow.reception.database.read() as session:
            assert [row.state for row in needs_of(session, 1)] == ["fired"]


def test_a_need_that_is_not_there_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    rule = {"name": "both", "match": {"Modality": "CT"}, "needs": ["thinn"], "engines": ["ct-nlm"], "send": ["pacs"]}
    with pytest.raises(ConfigError, match=r"there is no \[need\.thinn\]"):
        site(tmp_path, need={"thin": {"match": {"Modality": "CT"}}}, rule=[rule]).rules()
