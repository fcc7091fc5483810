"""The steps of a closed series, run as they are and again from every state that a kill can leave."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from sqlalchemy import update

from dicomnode.core.routing import Routing
from dicomnode.core.rules import RuleSpec
from dicomnode.store.schema import Instance, Job, Series
from engines.base import Value
from engines.classical.nlm import CtNlm
from engines.registry import Registry
from engines.volume import Volume
from tests.flow.rooms import CONTRAST, DENOISE, Flow, Killed, flowing, kill_at, phantom
from tests.store.receiving import routing

POINTS = (
    "route.before_plan", "route.after_plan", "enhance.before_engine", "enhance.after_engine", "enhance.after_result",
    "derive.before_build", "derive.after_build", "derive.before_commit", "derive.after_commit",
)  # fmt: skip


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
    monkeypatch.setattr("dicomnode.inference.opening.default_registry", lambda: registry)
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
