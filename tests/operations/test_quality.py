"""What was measured, as a person is told it: reports, pages, tables, trends and comparisons."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import pytest

from dicomnode.config import Config
from dicomnode.core.scanners import Lineage
from dicomnode.errors import InputError, NotFoundError
from dicomnode.operations.quality import show_quality
from dicomnode.operations.status import status
from dicomnode.operations.trends import compare_versions, rebase, trends
from dicomnode.operations.why import why
from dicomnode.serve.metrics import _quality
from dicomnode.store.index import quality as index
from dicomnode.store.schema import Instance, Job, QualityRow
from tests.flow.rooms import Flow, phantom
from tests.flow.test_measuring import out_of_bounds
from tests.operations.sites import index_of, site

LINEAGE = Lineage("ct1", "0123abcd", "CT-120kV-1mm-abcdef", "ct-nlm@1.0.0")


def enhanced(flow: Flow) -> str:
    """Receive, enhance and derive a phantom; the UID of its series."""
    flow.receive(phantom(3))
    flow.run()
    return flow.received.series_instance_uid


def measured(flow: Flow, lineage: Lineage, noises: list[float], at: float = 10.0) -> None:
    """Reports of a lineage, one after another."""
    with flow.reception.database.write() as session:
        job = session.get_one(Job, 1)
        planned = job.content
        for number, noise in enumerate(noises):
            job.content = {**planned, "stack_key": f"{planned['stack_key']}{number or ''}"}
            what = index.Measured(number + 1, "job", lineage, True, (), {}, {"noise_before": noise})
            index.record(session, job, what, at + number)
        job.content = planned


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Config:
    return site(tmp_path)


def test_what_was_measured_is_shown_drawn_and_written(config: Config, tmp_path: Path) -> None:
    with index_of(config) as flow:
        uid = enhanced(flow)
        told = show_quality(config, uid, tmp_path / "pages", tmp_path / "table.csv")
        (report,) = told.reports
        assert report.engine.startswith("ct-nlm@")
        text = "\n".join(told.lines())
        assert ", passed" in text
        assert "noise after / before 0." in text
        assert "PHANTOM" not in text
        assert f"wrote {tmp_path / 'pages' / 'quality-1.png'}" in text
        page = cv2.imread(str(tmp_path / "pages" / "quality-1.png"), cv2.IMREAD_GRAYSCALE)
        assert page is not None
        assert page.shape == (1754, 1240)
        with (tmp_path / "table.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert float(row["noise_after"]) == pytest.approx(report.figures["noise_after"])
        assert (row["series"], row["water"]) == (uid, "")


def test_a_derived_series_and_its_source_tell_of_the_same(config: Config) -> None:
    with index_of(config) as flow:
        uid = enhanced(flow)
        (derived,) = flow.derived()
        assert show_quality(config, derived).reports == show_quality(config, uid).reports
        assert why(config, uid).series[0].jobs[0].measured[0].startswith("ct-nlm@")


def test_the_page_shows_what_is_still_there(config: Config, tmp_path: Path) -> None:
    with index_of(config) as flow:
        uid = enhanced(flow)
        show_quality(config, uid, tmp_path / "before")
        for row in flow.reception.rows(Instance):
            if row.origin == "derived":
                flow.reception.files.remove(row.file)
        show_quality(config, uid, tmp_path / "after")
        pages = [
            cv2.imread(str(tmp_path / name / "quality-1.png"), cv2.IMREAD_GRAYSCALE) for name in ("before", "after")
        ]
        shades = [float(((page > 40) & (page < 120)).mean()) for page in pages if page is not None]
        assert shades[1] < shades[0] / 4, "without pictures there is little grey"


def test_a_withheld_result_is_shown_too(config: Config, tmp_path: Path) -> None:
    with index_of(config, {"run_chain": out_of_bounds}) as flow:
        uid = enhanced(flow)
        assert [job.state for job in flow.jobs] == ["withheld"]
        told = show_quality(config, uid, tmp_path / "pages")
        assert told.lines()[4].endswith(", DID NOT PASS")
        assert "  noise is out of bounds" in told.lines()
        page = cv2.imread(told.written[0], cv2.IMREAD_GRAYSCALE)
        assert page is not None
        assert float(((page > 40) & (page < 120)).mean()) > 0.02, "the result at rest is drawn"


def test_nothing_measured_is_said(config: Config) -> None:
    with index_of(config) as flow:
        flow.receive(phantom(1))
        with pytest.raises(NotFoundError, match="nothing was measured"):
            show_quality(config, flow.received.series_instance_uid)
        assert list(trends(config).lines()) == ["nothing was measured yet"]


def test_a_drift_is_told_until_the_baseline_begins_anew(config: Config) -> None:
    with index_of(config) as flow:
        enhanced(flow)
        measured(flow, LINEAGE, [10 + number % 7 * 0.2 for number in range(50)] + [14.0] * 20)
        (first, second) = trends(config).trends
        assert (first.lineage, second.lineage.engine.partition("@")[0]) == (LINEAGE, "ct-nlm")
        (told,) = trends(config, drifting_only=True).trends
        assert told.lines()[1].startswith("  noise before drifts: from 10.6 to ")
        drift = [problem for problem in status(config).problems if problem.kind == "drift"]
        assert [problem.about for problem in drift] == [LINEAGE.key]
        with pytest.raises(NotFoundError):
            rebase(config, "nothing", "why not")
        with pytest.raises(InputError):
            rebase(config, LINEAGE.key, " ")
        rebase(config, LINEAGE.key, "a new tube")
        assert list(trends(config, drifting_only=True).lines()) == ["nothing drifts"]
        assert not [problem for problem in status(config).problems if problem.kind == "drift"]


def test_versions_are_compared_on_the_same_stacks(config: Config) -> None:
    with index_of(config) as flow:
        enhanced(flow)
        old, new = flow.jobs[0].stages[0]["version"], "ct-nlm@9.9.9"
        measured(flow, Lineage("ct1", "d", "p", new), [12.0])
        with pytest.raises(InputError, match="names no version"):
            compare_versions(config, "ct-nlm", new)
        told = compare_versions(config, f"ct-nlm@{old}", new)
        assert (told.stacks, told.old_passed, told.new_passed) == (1, 1, 1)
        assert [figure.name for figure in told.figures] == ["noise_before"]
        assert "(only 1)" in told.lines()[-1]
        with pytest.raises(NotFoundError, match="no series on which both"):
            compare_versions(config, "ct-nlm@0.0.1", new)


def test_metrics_show_the_trends_with_labels_of_ours(config: Config) -> None:
    with index_of(config) as flow:
        enhanced(flow)
        figures, drifting = _quality(flow.reception.rows(QualityRow))
        labels = figures.samples[0].labels
        assert set(labels) == {"peer", "device", "protocol", "engine", "preset", "figure"}
        assert labels["peer"] == "scanner"
        assert [sample.value for sample in drifting.samples] == [0]
        assert {sample.labels["figure"] for sample in figures.samples} >= {"noise_before", "noise_ratio"}
