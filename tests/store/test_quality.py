"""Quality reports and their trends, on both databases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from dicomnode.core.scanners import Lineage
from dicomnode.store.index import jobs, quality
from dicomnode.store.schema import Job, QualityRow
from tests.store.receiving import Reception, ct_header, receiving

pytestmark = pytest.mark.both_databases

OLD = Lineage("ct1", "0123abcd", "CT-120kV-1mm-abcdef", "ct-denoise@1.0.0")
NEW = Lineage("ct1", "0123abcd", "CT-120kV-1mm-abcdef", "ct-denoise@1.1.0")


def planned(reception: Reception, count: int = 1) -> None:
    """Receive one instance and plan so many jobs for it."""
    reception.receive(ct_header(1))
    content: dict[str, Any] = {"engines": ["ct-denoise"], "stack_key": "s", "rules": ["r"], "priority": "normal"}
    with reception.database.write() as session:
        made = [({**content, "stack_key": f"s{number}"}, [1]) for number in range(count)]
        jobs.record_plan(session, 1, 1, {"jobs": [], "stacks": [], "unreadable": []}, made, 1.0)


def measured(lineage: Lineage, noise: float, *, passed: bool = True, kind: quality.Kind = "job") -> quality.Measured:
    report = {"noise_before": noise, "noise_after": noise / 2}
    return quality.Measured(0, kind, lineage, passed, () if passed else ("too much",), report, {"noise_before": noise})


def record(session: Session, job_row: int, what: quality.Measured, at: float) -> QualityRow:
    return quality.record(session, session.get_one(Job, job_row), what, at)


def test_a_report_is_kept_once_for_each_stage(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        planned(reception)
        with reception.database.write() as session:
            record(session, 1, measured(OLD, 10.0), 5.0)
            record(session, 1, measured(OLD, 11.0, passed=False), 6.0)
        (row,) = reception.rows(QualityRow)
        assert (row.figures, row.passed, row.reasons, row.at) == ({"noise_before": 11.0}, False, ["too much"], 5.0)
        with reception.database.read() as session:
            assert [one.id for one in quality.reports_of_job(session, 1)] == [row.id]
            assert [one.id for one in quality.reports_of_series(session, 1)] == [row.id]
            assert quality.lineage_of(quality.reports_of_job(session, 1)[0]) == OLD
            assert quality.series_uid(session, row) == "1.2.3.4"


def test_versions_are_compared_on_the_stacks_that_both_have_seen(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        planned(reception, 4)
        with reception.database.write() as session:
            session.get_one(Job, 3).content = {**session.get_one(Job, 1).content}
            record(session, 1, measured(OLD, 10.0), 5.0)
            record(session, 2, measured(OLD, 10.0), 5.0)
            record(session, 3, measured(NEW, 8.0, passed=False, kind="shadow"), 6.0)
            record(session, 4, measured(NEW, 8.0, kind="shadow"), 6.0)
        with reception.database.read() as session:
            (pair,) = quality.pairs(session, OLD.engine, NEW.engine)
            assert (pair.stack_key, pair.old_passed, pair.new_passed) == ("s0", True, False)
            assert (pair.old, pair.new) == ({"noise_before": 10.0}, {"noise_before": 8.0})
            assert quality.pairs(session, OLD.engine, NEW.engine, since=5.5) == []
            assert [row.engine for row in quality.latest_of_lineages(session, 10)] == [OLD.engine], "no shadows"


def test_presets_of_an_engine_have_charts_of_their_own(tmp_path: Path) -> None:
    weak = replace(OLD, preset="strength=0.5")
    with receiving(tmp_path) as reception:
        planned(reception, 6)
        with reception.database.write() as session:
            for number in range(3):
                record(session, 2 * number + 1, measured(OLD, 5.0), number)
                record(session, 2 * number + 2, measured(weak, 8.0), number)
            assert [quality.reports_charted(session, one) for one in (OLD, weak)] == [3, 3]
            assert {row.preset for row in quality.latest_of_lineages(session, 10)} == {"", "strength=0.5"}


def test_versions_are_compared_in_the_same_preset_only(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        planned(reception, 4)
        with reception.database.write() as session:
            for number, (lineage, strength) in enumerate([(OLD, 1.0), (OLD, 0.5), (NEW, 0.5), (NEW, 0.25)]):
                session.get_one(Job, number + 1).content = {**session.get_one(Job, 1).content}
                what = measured(replace(lineage, preset=f"strength={strength}"), 10 * strength)
                record(session, number + 1, replace(what, settings={"strength": strength}), 5.0 + number)
            (pair,) = quality.pairs(session, OLD.engine, NEW.engine)
            assert pair.old == pair.new == {"noise_before": 5.0}


def test_a_stack_counts_once_and_what_is_tried_out_not_at_all(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        planned(reception, 3)
        with reception.database.write() as session:
            session.get_one(Job, 2).content = {**session.get_one(Job, 1).content}
            record(session, 1, measured(OLD, 10.0), 5.0)
            record(session, 2, measured(OLD, 12.0), 6.0)  # the same stack again
            record(session, 3, measured(OLD, 50.0, kind="shadow"), 7.0)
            assert quality.reports_charted(session, OLD) == 1
            assert quality.lineage_charts(session, OLD)["noise_before"].values == 1


def test_a_drift_is_told_with_the_report_and_ends_with_a_new_baseline(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        planned(reception, 90)
        with reception.database.write() as session:
            rows = [
                record(session, number + 1, measured(OLD, 10.0 + number % 5 * 0.1 + 3 * (number >= 50)), 10.0 + number)
                for number in range(90)
            ]
            assert all(not row.drifts for row in rows[:50])
            assert rows[-1].drifts == quality.latest_of_lineages(session, 5)[0].drifts
            assert rows[-1].drifts[0].startswith("noise before drifts: from 10.")
            assert quality.lineage_charts(session, NEW) == {}
            assert quality.was_drifting(session, OLD)
            quality.rebase(session, OLD, "a new tube", 70.5)
            assert not quality.was_drifting(session, OLD)
            charts = quality.lineage_charts(session, OLD)
            assert (charts["noise_before"].state, charts["noise_before"].values) == ("few", 29)


def test_the_baseline_stays_however_many_reports_there_are(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        planned(reception, 400)
        with reception.database.write() as session:
            for number in range(400):  # a slow drift, which a baseline that moves would take along
                noise = 10.0 + number % 5 * 0.1 + number * 0.002
                row = record(session, number + 1, measured(OLD, noise), 10.0 + number)
            charts = quality.lineage_charts(session, OLD)
            assert charts["noise_before"].centre == pytest.approx(10.24, abs=0.05)
            assert charts["noise_before"].state == "drifting"
            assert row.drifts
            assert quality.reports_charted(session, OLD) == 400


def test_a_phantom_has_a_shorter_baseline() -> None:
    assert quality.charting_of(Lineage("ct1", "d", "p", "")).fewest < quality.charting_of(OLD).fewest
