"""What is measured of jobs, what follows from it, and what phantoms and versions that are tried out make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicomnode.core.rules import RuleSpec
from dicomnode.inference import service as inference_service
from dicomnode.operations.telling.quality import failed_phantoms
from dicomnode.store.index import reviews
from dicomnode.store.schema import Instance, QualityRow, Series
from tests.flow.rooms import DENOISE, Flow, flowing, phantom
from tests.store.receiving import routing

PHANTOM = RuleSpec("phantom", {"Modality": "CT"}, constancy=True, report=("sr", "capture"), send_results=("pacs",))


def cylinder(slices: int = 2, water_hu: float = 0.0) -> list[Dataset]:
    """A water phantom of 128 px, 180 mm wide."""
    study = phantom(slices)
    down, across = np.mgrid[:128, :128] - 63.5
    noise = np.random.default_rng(1)
    for dataset in study:
        image = np.where(np.hypot(down, across) * 1.4 < 90, water_hu, -1000.0) + noise.normal(0, 10, (128, 128))
        dataset.PixelData = np.rint(image + 1024).astype("<i2").tobytes()
    return study


def out_of_bounds(**arguments: Any) -> Mapping[str, Any]:
    """The chain as it is, and its gate as if its limits were narrower."""
    ran = inference_service.run_chain(**{**arguments, "released": True})
    stage = ran["stages"][0]
    finding = {"name": "noise", "figure": 1.0, "bound": 0.0, "passed": False, "sentence": "noise is out of bounds"}
    after = {"passed": False, "findings": [*stage["after"]["findings"], finding]}
    stage["after"] = stage["outputs"]["image"]["after"] = after
    state = "done" if arguments["released"] else "withheld"
    return {**ran, "state": state, "reasons": ["noise is out of bounds"]}


def derived_images(flow: Flow, modality: str = "CT") -> list[Dataset]:
    rows = [row for row in flow.reception.rows(Instance) if row.origin == "derived"]
    read = [dcmread(flow.reception.files.path(row.file)) for row in rows]
    return [one for one in read if one.Modality == modality]


def test_the_figures_of_every_job_are_kept(tmp_path: Path) -> None:
    with flowing(tmp_path, routing(DENOISE)) as flow:
        flow.receive(phantom())
        flow.run()
        (row,) = flow.reception.rows(QualityRow)
        assert (row.kind, row.peer, row.passed, row.reasons) == ("job", "scanner", True, [])
        assert row.engine.startswith("ct-nlm@")
        assert row.figures["noise_after"] < row.figures["noise_before"]
        assert row.report["unit"] == "HU"
        assert row.protocol.startswith("CT-100kV-2mm-")
        assert "Phantom" not in f"{row.device} {row.protocol}"
        assert row.settings == flow.jobs[0].stages[0]["settings"]


@pytest.mark.parametrize("on_gate", ["withhold", "flag"])
def test_what_is_out_of_bounds_waits_or_leaves_and_says_so(tmp_path: Path, on_gate: Any) -> None:
    rule = RuleSpec("denoise", {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",), on_gate=on_gate)
    with flowing(tmp_path, routing(rule), {"run_chain": out_of_bounds}) as flow:
        flow.receive(phantom(2))
        flow.run()
        (row,) = flow.reception.rows(QualityRow)
        assert (row.passed, row.reasons) == (False, ["noise is out of bounds"])
        assert [job.state for job in flow.jobs] == ["withheld" if on_gate == "withhold" else "derived"]
        images = derived_images(flow)
        if on_gate == "withhold":
            assert images == []
            return
        for image in images:
            assert image.SeriesDescription.endswith(" [gate failed]")
            assert "noise is out of bounds" in image.ImageComments
            assert image.ContentQualification == "RESEARCH"


def test_what_passes_is_not_flagged_though_the_rule_would_let_it(tmp_path: Path) -> None:
    rule = RuleSpec("denoise", {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",), on_gate="flag")
    with flowing(tmp_path, routing(rule)) as flow:
        flow.receive(phantom(2))
        flow.run()
        assert all("gate" not in image.SeriesDescription for image in derived_images(flow))
        assert all("gate" not in image.ImageComments for image in derived_images(flow))


def test_a_report_goes_where_results_go(tmp_path: Path) -> None:
    rule = RuleSpec(
        "denoise", {"Modality": "CT"}, engines=("ct-nlm",), send_results=("pacs",), report=("sr", "capture")
    )
    with flowing(tmp_path, routing(rule)) as flow:
        flow.receive(phantom(2))
        flow.run()
        (report,), (page,) = derived_images(flow, "SR"), derived_images(flow, "OT")
        assert report.StudyInstanceUID == page.StudyInstanceUID == derived_images(flow)[0].StudyInstanceUID
        assert (page.Rows, page.Columns) == (1754, 1240)
        assert (report.SeriesNumber, derived_images(flow)[0].SeriesNumber) == (2709, 2700)
        assert len(flow.derived_outbox()) == 4
        uids = {one.SOPInstanceUID for one in (report, page)}
        flow.run()
        assert {one.SOPInstanceUID for name in ("SR", "OT") for one in derived_images(flow, name)} == uids


def test_a_phantom_is_measured_and_reported(tmp_path: Path) -> None:
    with flowing(tmp_path, routing(PHANTOM)) as flow:
        flow.receive(cylinder())
        flow.run()
        (row,) = flow.reception.rows(QualityRow)
        assert (row.kind, row.engine, row.passed) == ("constancy", "", True)
        assert row.figures["noise"] == pytest.approx(10, rel=0.1)
        assert row.figures["water"] == pytest.approx(0, abs=1)
        assert [job.state for job in flow.jobs] == ["derived"]
        assert [one.Modality for name in ("SR", "OT") for one in derived_images(flow, name)] == ["SR", "OT"]
        assert flow.engines.counts.get("run_chain", 0) == 0
        assert len(flow.derived_outbox()) == 2


def test_a_phantom_out_of_its_limits_is_told(tmp_path: Path) -> None:
    with flowing(tmp_path, routing(PHANTOM)) as flow:
        flow.receive(cylinder(water_hu=7.0))
        flow.run()
        (row,) = flow.reception.rows(QualityRow)
        assert not row.passed
        with flow.reception.database.read() as session:
            assert [reason for _, reason in failed_phantoms(session)] == ["; ".join(row.reasons)]


def test_what_is_no_phantom_is_refused_with_the_reason(tmp_path: Path) -> None:
    with flowing(tmp_path, routing(PHANTOM)) as flow:
        flow.receive(phantom(2))
        flow.run()
        (job,) = flow.jobs
        assert (job.state, job.reasons[0]) == ("refused", "no slice shows a uniform round phantom of 80 mm or more")
        with flow.reception.database.read() as session:
            assert reviews.quarantine_counts(session) == {"refused": 1}


def test_a_version_that_is_tried_out_delivers_nothing(tmp_path: Path) -> None:
    rule = RuleSpec("denoise", {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",), shadow="ct-nlm@9.9.9")

    def two_versions(**arguments: Any) -> Mapping[str, Any]:
        chain = [{**one, "engine": "ct-nlm"} for one in arguments["chain"]]
        ran = inference_service.run_chain(**{**arguments, "chain": chain})
        if arguments["chain"][0]["engine"] == "ct-nlm@9.9.9":
            ran["stages"][0]["version"] = "9.9.9"
        return ran

    described = {"describe": lambda engine: inference_service.describe("ct-nlm")}
    with flowing(tmp_path, routing(rule), {"run_chain": two_versions, **described}) as flow:
        flow.receive(phantom(2))
        flow.run()
        assert [(job.content["kind"], job.state) for job in flow.jobs] == [("job", "derived"), ("shadow", "derived")]
        assert len([row for row in flow.reception.rows(Series) if row.origin == "derived"]) == 1
        assert len(flow.derived_outbox()) == 2
        assert [(row.kind, row.engine.partition("@")[2] == "9.9.9") for row in flow.reception.rows(QualityRow)] == [
            ("job", False),
            ("shadow", True),
        ]
        assert list((flow.reception.folder / "results").iterdir()) == []


def test_a_version_that_refuses_asks_nobody_to_decide(tmp_path: Path) -> None:
    rule = RuleSpec("denoise", {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",), shadow="ct-nlm@9.9.9")

    def refusing(**arguments: Any) -> Mapping[str, Any]:
        if arguments["chain"][0]["engine"] == "ct-nlm@9.9.9":
            return {"state": "refused", "reasons": ["too thick"], "stages": []}
        return inference_service.run_chain(**arguments)

    described = {"describe": lambda engine: inference_service.describe("ct-nlm")}
    with flowing(tmp_path, routing(rule), {"run_chain": refusing, **described}) as flow:
        flow.receive(phantom(2))
        flow.run()
        assert [job.state for job in flow.jobs] == ["derived", "refused"]
        with flow.reception.database.read() as session:
            assert reviews.quarantine_counts(session) == {}


def test_presets_of_one_engine_are_series_with_names_and_numbers_that_stay(tmp_path: Path) -> None:
    rules = [
        RuleSpec(
            name, {"Modality": "CT"}, engines=("ct-nlm",), send=("pacs",), settings={"ct-nlm": {"strength": strength}}
        )
        for name, strength in (("soft", 0.9), ("sharp", 0.5))
    ]

    def shown(flow: Flow) -> set[tuple[str, int, str]]:
        return {(one.SeriesDescription, int(one.SeriesNumber), one.SeriesInstanceUID) for one in derived_images(flow)}

    with flowing(tmp_path, routing(*rules)) as flow:
        study = phantom(3)
        flow.receive(study[:2])
        flow.run()
        before = shown(flow)
        assert {(name, number) for name, number, _ in before} == {
            ("AI ct-nlm strength 0.9 Low dose 2.0", 2700),
            ("AI ct-nlm strength 0.5 Low dose 2.0", 2710),
        }
        flow.receive(study[2:])
        flow.run()
        assert shown(flow) == before, "a late slice joins both"
