"""The steps of a closed series, run as they are and again from every state that a kill can leave."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from sqlalchemy import update

from dicomnode.core.routing import Routing
from dicomnode.core.rules import RuleSpec
from dicomnode.errors import InputError
from dicomnode.store.index import reviews
from dicomnode.store.schema import Instance, Job, Plan, Series
from engines.base import Value
from engines.nlm import CtNlm
from engines.registry import Registry
from engines.volume import Volume
from tests.flow.rooms import Flow, Killed, flowing, kill_at, phantom
from tests.store.receiving import ct_header, routing

DENOISE = RuleSpec("denoise", {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",))
CONTRAST = RuleSpec("contrast", {"Modality": "CT"}, engines=("contrast-glcae",), send=("pacs",))
POINTS = (
    "route.before_plan", "route.after_plan", "enhance.before_engine", "enhance.after_engine", "enhance.after_result",
    "derive.before_build", "derive.after_build", "derive.before_commit", "derive.after_commit",
)  # fmt: skip


@pytest.fixture(name="flow")
def _flow(tmp_path: Path) -> Iterator[Flow]:
    with flowing(tmp_path, routing(DENOISE)) as flow:
        yield flow


def engine_that(state: str, reasons: list[str]) -> Mapping[str, Any]:
    """An engine worker whose gates always end a chain."""
    stage = {
        "engine": "ct-nlm",
        "folder": None,
        "before": {"passed": state == "withheld", "findings": []},
        "after": None,
    }
    return {"run_chain": lambda **_: {"state": state, "reasons": reasons, "stages": [stage]}}


def test_a_series_is_planned_enhanced_and_derived(flow: Flow) -> None:
    study = phantom()
    flow.receive(study)
    flow.run()
    (job,) = flow.jobs
    assert (job.state, job.reasons, job.instance_rows) == ("derived", [], [1, 2, 3, 4])
    assert job.stages[0]["quality"]["noise_after"] < job.stages[0]["quality"]["noise_before"]
    ((series_uid, uids),) = flow.derived().items()
    assert len(uids) == 4
    rows = flow.derived_outbox()
    assert [(row.destination, row.state, row.rules, row.after_series) for row in rows] == [
        ("pacs", "ready", ["denoise"], 1)
    ] * 4
    derived = [row for row in flow.reception.rows(Instance) if row.origin == "derived"]
    for source, instance in zip(study, derived, strict=True):
        image = dcmread(flow.reception.files.path(instance.file))
        assert (image.SOPInstanceUID, image.SeriesInstanceUID) == (instance.sop_instance_uid, series_uid)
        assert image.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert image.StudyInstanceUID == source.StudyInstanceUID
    assert list((flow.reception.folder / "results").iterdir()) == [], "it is needed no more"


def test_each_step_twice_does_it_once(flow: Flow) -> None:
    flow.receive(phantom())
    closed = flow.close()
    assert flow.pipeline.plan(*closed) == flow.pipeline.plan(*closed) == [[1, 100]]
    assert flow.pipeline.enhance(1)
    assert flow.pipeline.enhance(1)
    flow.pipeline.derive(1)
    before = flow.derived()
    flow.pipeline.derive(1)
    assert not flow.pipeline.enhance(1)
    assert flow.derived() == before
    assert len(flow.derived_outbox()) == 4
    assert flow.engines.counts["run_chain"] == 1


@pytest.mark.parametrize("point", POINTS)
def test_what_is_killed_anywhere_ends_as_if_it_were_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    with flowing(tmp_path / "calm", routing(DENOISE)) as calm:
        calm.receive(phantom())
        calm.run()
        expected = calm.derived()
    with flowing(tmp_path / "killed", routing(DENOISE)) as flow:
        flow.receive(phantom())
        closed = flow.close()
        kill_at(monkeypatch, point)
        with pytest.raises(Killed):
            steps(flow, closed)
        steps(flow, closed)
        assert flow.derived() == expected
        assert [job.state for job in flow.jobs] == ["derived"]
        assert len(flow.derived_outbox()) == 4
        assert flow.engines.counts["run_chain"] == (2 if point == "enhance.after_engine" else 1)
        assert list((flow.reception.folder / "results").iterdir()) == []


def steps(flow: Flow, closed: tuple[int, int]) -> None:
    for job_row, _ in flow.pipeline.plan(*closed):
        flow.pipeline.enhance(job_row)
        flow.pipeline.derive(job_row)


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


def test_a_destination_that_was_removed_meanwhile_stops_nothing(flow: Flow) -> None:
    flow.receive(phantom())
    closed = flow.close()
    flow.pipeline.plan(*closed)
    without = routing(RuleSpec("other", {"Modality": "CT"}, send=("archive",)))
    flow.pipeline.routing = Routing(
        without.rules, {"archive": without.destinations["archive"]}, without.completeness, {}
    )
    assert flow.pipeline.enhance(1)
    flow.pipeline.derive(1)
    assert [(row.destination, row.calling_ae) for row in flow.derived_outbox()] == [("pacs", "SCANNER")] * 4


def test_an_input_outside_the_envelope_is_refused_with_the_reason(flow: Flow) -> None:
    study = phantom()
    for dataset in study:
        dataset.PixelSpacing = [3, 3]
    flow.receive(study)
    flow.run()
    (job,) = flow.jobs
    assert job.state == "refused"
    assert any("spacing" in reason for reason in job.reasons)
    assert flow.derived() == {}


def test_another_modality_is_refused_by_the_engine_of_ct(tmp_path: Path) -> None:
    rule = replace(DENOISE, match={"Modality": "*"})
    with flowing(tmp_path, routing(rule)) as flow:
        study = phantom()
        for dataset in study:
            dataset.Modality, dataset.SOPClassUID = "MR", "1.2.840.10008.5.1.4.1.1.4"
        flow.receive(study)
        flow.run()
        (job,) = flow.jobs
        assert job.state == "refused"
        assert any("modality" in reason for reason in job.reasons)


def test_an_output_that_fails_its_gate_is_withheld_with_the_figures(tmp_path: Path) -> None:
    with flowing(tmp_path, routing(DENOISE), engine_that("withheld", ["fat changes by +9.00 HU"])) as flow:
        flow.receive(phantom())
        flow.run()
        (job,) = flow.jobs
        assert (job.state, job.reasons) == ("withheld", ["fat changes by +9.00 HU"])
        assert flow.derived() == {}
        assert flow.derived_outbox() == []
        assert list((tmp_path / "results").iterdir()) == []


def test_a_lost_result_that_does_not_pass_a_second_time_is_withheld(tmp_path: Path) -> None:
    """The result at rest is damaged, and the engine was replaced meanwhile."""
    with flowing(tmp_path, routing(DENOISE)) as flow:
        flow.receive(phantom())
        flow.pipeline.plan(*flow.close())
        assert flow.pipeline.enhance(1)
        (kept,) = (tmp_path / "results").iterdir()
        (kept / "manifest.json").unlink()
        flow.engines.operations = {**flow.engines.operations, **engine_that("withheld", ["too noisy"])}
        flow.pipeline.derive(1)
        (job,) = flow.jobs
        assert (job.state, job.reasons) == ("withheld", ["too noisy"])
        assert flow.derived() == {}


def test_a_lost_result_is_computed_again(flow: Flow) -> None:
    flow.receive(phantom())
    flow.pipeline.plan(*flow.close())
    flow.pipeline.enhance(1)
    (kept,) = (flow.reception.folder / "results").iterdir()
    (kept / "manifest.json").unlink()
    flow.pipeline.derive(1)
    assert [job.state for job in flow.jobs] == ["derived"]
    assert flow.engines.counts["run_chain"] == 2


def test_a_lost_result_that_another_machines_version_computes_is_told_as_that_ones(flow: Flow) -> None:
    """What is recorded of a job, and what its derived objects say, comes from one and the same run."""
    real = dict(flow.engines.operations)

    def describe(**arguments: Any) -> Mapping[str, Any]:
        return {**real["describe"](**arguments), "digest": "of another version"}

    def run_chain(**arguments: Any) -> Mapping[str, Any]:
        report = real["run_chain"](**arguments)
        return {**report, "stages": [{**stage, "version": "9.9"} for stage in report["stages"]]}

    flow.receive(phantom())
    flow.pipeline.plan(*flow.close())
    flow.pipeline.enhance(1)
    (kept,) = (flow.reception.folder / "results").iterdir()
    (kept / "manifest.json").unlink()
    flow.engines.operations = {**real, "describe": describe, "run_chain": run_chain}
    flow.pipeline.derive(1)
    (job,) = flow.jobs
    assert (job.state, job.stages[0]["version"]) == ("derived", "9.9")
    assert job.result != kept.name


def test_a_failed_job_leaves_no_result_behind(flow: Flow) -> None:
    flow.receive(phantom())
    flow.pipeline.plan(*flow.close())
    flow.pipeline.enhance(1)
    flow.pipeline.fail(1, "no more", "do this")
    assert [(job.state, job.reasons) for job in flow.jobs] == [("failed", ["no more", "do this"])]
    assert list((flow.reception.folder / "results").iterdir()) == []
    flow.pipeline.derive(1)
    assert flow.derived() == {}


def test_a_released_job_that_fails_is_to_be_looked_at_again(flow: Flow) -> None:
    flow.receive(phantom())
    flow.pipeline.plan(*flow.close())
    with flow.reception.database.write() as session:
        session.execute(update(Job).values(state="enhanced", review="released"))
    flow.pipeline.fail(1, "no more", "do this")
    with flow.reception.database.read() as session:
        assert reviews.quarantine_counts(session) == {"failed": 1}


def test_an_ended_job_does_not_fail_any_more(flow: Flow) -> None:
    flow.receive(phantom())
    flow.run()
    flow.pipeline.fail(1, "no more", "")
    assert [job.state for job in flow.jobs] == ["derived"]


def test_what_cannot_be_read_is_told_and_the_others_are_planned(flow: Flow) -> None:
    flow.receive(phantom())
    damaged = flow.reception.rows(Instance)[2]
    flow.reception.files.path(damaged.file).write_bytes(b"no DICOM")
    flow.pipeline.plan(*flow.close())
    (plan,) = flow.reception.rows(Plan)
    assert [one["instance_id"] for one in plan.content["unreadable"]] == [damaged.id]
    assert flow.jobs[0].instance_rows == [1, 2, 4]


def test_pixels_that_cannot_be_decoded_are_an_error_of_the_input(flow: Flow) -> None:
    study = phantom()
    study[1].PixelData = study[1].PixelData[:100]
    flow.receive(study)
    flow.pipeline.plan(*flow.close())
    with pytest.raises(InputError):
        flow.pipeline.enhance(1)


def test_a_localizer_is_never_enhanced(flow: Flow) -> None:
    study = phantom()
    for dataset in study:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    flow.receive(study)
    flow.run()
    assert flow.jobs == []
    (plan,) = flow.reception.rows(Plan)
    assert plan.content["stacks"][0]["reason"] == "never enhanced: localizer"


def test_what_we_derived_is_never_enhanced_again(flow: Flow) -> None:
    flow.receive(phantom())
    flow.run()
    paths = [flow.reception.files.path(row.file) for row in flow.reception.rows(Instance) if row.origin == "derived"]
    images = [dcmread(path) for path in paths]
    with flowing(flow.reception.folder / "other", routing(DENOISE)) as other:
        other.receive(images)
        other.run()
        assert other.jobs == []


def test_a_late_slice_joins_the_series_of_an_engine_that_works_slice_by_slice(flow: Flow) -> None:
    study = phantom(5)
    flow.receive(study[:4])
    flow.run()
    (before,) = flow.derived().items()
    flow.receive(study[4:])
    flow.run()
    (after,) = flow.derived().items()
    assert after[0] == before[0]
    assert after[1][:4] == before[1]
    assert len(after[1]) == 5
    assert len(flow.derived_outbox()) == 5
    assert [job.state for job in flow.jobs] == ["derived", "derived"]


def test_a_late_slice_makes_a_new_series_of_an_engine_that_sees_the_volume(tmp_path: Path) -> None:
    with flowing(tmp_path, routing(CONTRAST)) as flow:
        study = phantom(5)
        flow.receive(study[:4])
        flow.run()
        flow.receive(study[4:])
        flow.run()
        first, second = flow.derived().values()
        assert (len(first), len(second)) == (4, 5)
        assert not set(first) & set(second)


def test_two_rules_with_two_engines_are_two_jobs_and_two_series(tmp_path: Path) -> None:
    with flowing(tmp_path, routing(DENOISE, CONTRAST)) as flow:
        flow.receive(phantom())
        flow.run()
        assert [job.content["engines"] for job in flow.jobs] == [["ct-nlm"], ["contrast-glcae"]]
        images = [
            dcmread(flow.reception.files.path(row.file), stop_before_pixels=True)
            for row in flow.reception.rows(Instance)
            if row.origin == "derived"
        ]
        assert len({(image.SeriesInstanceUID, image.SeriesNumber) for image in images}) == 2
        assert len({image.SeriesNumber for image in images}) == 2


def test_of_a_chain_the_outputs_asked_for_leave(tmp_path: Path) -> None:
    chain = RuleSpec(
        "chain",
        {"Modality": "CT"},
        engines=("ct-nlm", "contrast-glcae"),
        deliver=("ct-nlm", "contrast-glcae"),
        send=("pacs",),
    )
    with flowing(tmp_path, routing(chain)) as flow:
        flow.receive(phantom())
        flow.run()
        assert sorted(map(len, flow.derived().values())) == [4, 4]
        assert flow.engines.counts["run_chain"] == 1


def test_a_failed_plan_is_recorded_once(flow: Flow) -> None:
    flow.receive(phantom())
    row, generation = flow.close()
    flow.pipeline.fail_plan(row, generation, "the reader died")
    flow.pipeline.fail_plan(row, generation, "another reason")
    assert [plan.content["failed"] for plan in flow.reception.rows(Plan)] == ["the reader died"]


def test_a_urgent_rule_makes_an_urgent_job(tmp_path: Path) -> None:
    with flowing(tmp_path, routing(replace(DENOISE, priority="urgent"))) as flow:
        flow.receive(phantom())
        assert flow.pipeline.plan(*flow.close()) == [[1, 10]]
        flow.pipeline.enhance(1)
        flow.pipeline.derive(1)
        assert {row.priority for row in flow.derived_outbox()} == {10}


def test_what_another_process_ended_is_not_worked_on(flow: Flow) -> None:
    flow.receive(phantom())
    flow.pipeline.plan(*flow.close())
    with flow.reception.database.write() as session:
        session.execute(update(Job).values(state="failed"))
    assert not flow.pipeline.enhance(1)
    flow.pipeline.derive(1)
    assert flow.engines.counts == {}
    assert [series.origin for series in flow.reception.rows(Series)] == ["received"]


class Shifting(CtNlm):
    """A denoiser that lost its calibration."""

    def run(self, inputs: Mapping[str, Value], settings: Mapping[str, Any]) -> Mapping[str, Value]:
        output = super().run(inputs, settings)["image"]
        assert isinstance(output, Volume)
        return {"image": output.with_voxels(output.voxels + np.float32(5.0))}


@pytest.mark.parametrize("lost", [False, True])
def test_a_withheld_result_is_kept_and_a_released_one_leaves_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    registry = Registry({"ct-nlm": Shifting})
    monkeypatch.setattr("dicomnode.inference.service.default_registry", lambda: registry)
    with flowing(tmp_path, routing(DENOISE)) as flow:
        flow.receive(phantom())
        flow.run()
        (job,) = flow.jobs
        assert job.state == "withheld"
        (kept,) = (tmp_path / "results").iterdir()
        if lost:
            shutil.rmtree(kept)
        with flow.reception.database.write() as session:
            session.execute(update(Job).values(state="enhanced", review="released"))
        flow.pipeline.derive(job.id)
        assert flow.engines.counts["run_chain"] == (2 if lost else 1)
        assert [(one.state, one.review) for one in flow.jobs] == [("derived", "released")]
        derived = [row for row in flow.reception.rows(Instance) if row.origin == "derived"]
        image = dcmread(flow.reception.files.path(derived[0].file))
        assert "Released after review although a safety gate did not pass" in image.DerivationDescription
        assert list((tmp_path / "results").iterdir()) == [], "it is needed no more"


def test_in_commissioning_everything_is_made_and_nothing_derived_leaves(tmp_path: Path) -> None:
    with flowing(tmp_path, replace(routing(DENOISE), commissioning=True)) as flow:
        flow.receive(phantom())
        flow.run()
        assert [job.state for job in flow.jobs] == ["derived"]
        assert [(row.state, row.reason) for row in flow.derived_outbox()] == [("withheld", "commissioning")] * 4
        assert {state for _, _, state in flow.reception.outbox()[:4]} == {"ready"}, "originals go as ever"


def test_a_rule_in_commissioning_keeps_its_own_results_only(tmp_path: Path) -> None:
    contrast = replace(CONTRAST, commissioning=True)
    with flowing(tmp_path, routing(DENOISE, contrast)) as flow:
        flow.receive(phantom())
        closed = flow.close()
        planned = flow.pipeline.plan(*closed)
        flow.pipeline.routing = routing(DENOISE, replace(contrast, commissioning=False))
        for job_row, _ in planned:
            flow.pipeline.enhance(job_row)
            flow.pipeline.derive(job_row)
        states = {(row.rules[0], row.state) for row in flow.derived_outbox()}
        assert states == {("denoise", "ready"), ("contrast", "withheld")}
