"""The plan of a closed series: the first one holds, and it says what could not be read."""

from __future__ import annotations

from dicomnode.core.rules import RuleSpec
from dicomnode.store.schema import Instance, Plan
from tests.flow.rooms import DENOISE, Flow, phantom
from tests.store.receiving import ct_header, routing


def test_the_first_plan_holds_whatever_changed_since(flow: Flow) -> None:
    """A kill came after its commit; rules were edited, or a slice came, before the step ran again."""
    flow.receive(phantom())
    closed = flow.close()
    assert flow.pipeline.plan(*closed) == [[1, 100]]
    both = RuleSpec(
        "both", {"Modality": "CT"}, engines=("ct-nlm",), settings={"ct-nlm": {"strength": 0.9}}, send=("pacs",)
    )
    flow.pipeline.routing = routing(DENOISE, both)
    assert flow.pipeline.plan(*closed) == [[1, 100]]
    flow.pipeline.routing = routing(RuleSpec("none", {"Modality": "MR"}, send=("pacs",)))
    assert flow.pipeline.plan(*closed) == [[1, 100]]


def test_a_series_of_which_every_instance_moved_away_has_an_empty_plan(flow: Flow) -> None:
    flow.receive([ct_header(1)])
    flow.reception.receive(ct_header(1, SeriesInstanceUID="1.2.3.9"), at=1100.0)
    assert flow.pipeline.plan(*flow.close()) == []
    (plan,) = flow.reception.rows(Plan)
    assert (plan.content["jobs"], plan.content["stacks"]) == ([], [])


def test_what_cannot_be_read_is_told_and_the_others_are_planned(flow: Flow) -> None:
    flow.receive(phantom())
    damaged = flow.reception.rows(Instance)[2]
    flow.reception.files.path(damaged.file).write_bytes(b"no DICOM")
    flow.pipeline.plan(*flow.close())
    (plan,) = flow.reception.rows(Plan)
    assert [one["instance_id"] for one in plan.content["unreadable"]] == [damaged.id]
    assert flow.jobs[0].instance_rows == [1, 2, 4]


def test_a_localizer_is_never_enhanced(flow: Flow) -> None:
    study = phantom()
    for dataset in study:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    flow.receive(study)
    flow.run()
    assert flow.jobs == []
    (plan,) = flow.reception.rows(Plan)
    assert plan.content["stacks"][0]["reason"] == "never enhanced: localizer"


def test_a_failed_plan_is_recorded_once(flow: Flow) -> None:
    flow.receive(phantom())
    row, generation = flow.close()
    flow.pipeline.fail_plan(row, generation, "the reader died")
    flow.pipeline.fail_plan(row, generation, "another reason")
    assert [plan.content["failed"] for plan in flow.reception.rows(Plan)] == ["the reader died"]
