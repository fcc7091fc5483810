"""What becomes of a job: refused, withheld, failed, or with a result, which is computed again where it was lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from dicomnode.errors import InputError
from dicomnode.store.index import reviews
from dicomnode.store.schema import Job
from tests.flow.rooms import DENOISE, Flow, engine_that, flowing, phantom
from tests.store.receiving import routing


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


def test_pixels_that_cannot_be_decoded_are_an_error_of_the_input(flow: Flow) -> None:
    study = phantom()
    study[1].PixelData = study[1].PixelData[:100]
    flow.receive(study)
    flow.pipeline.plan(*flow.close())
    with pytest.raises(InputError):
        flow.pipeline.enhance(1)


def test_a_lost_result_is_computed_again(flow: Flow) -> None:
    flow.receive(phantom())
    flow.pipeline.plan(*flow.close())
    flow.pipeline.enhance(1)
    (kept,) = (flow.reception.folder / "results").iterdir()
    (kept / "manifest.json").unlink()
    flow.pipeline.derive(1)
    assert [job.state for job in flow.jobs] == ["derived"]
    assert flow.engines.counts["run_chain"] == 2


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
