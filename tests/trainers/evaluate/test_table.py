"""Rows to figures with intervals, aims, and how they are written."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.evaluate.aims import AIMS, BEST, Aim, Verdict, gain, ratio, verdicts
from trainers.evaluate.bootstrap import Estimate, estimate
from trainers.evaluate.credits import metrics_of
from trainers.evaluate.denoisers import Denoiser
from trainers.evaluate.page import page
from trainers.evaluate.plots import Plot, Point, plots, strength_curves, svg
from trainers.evaluate.table import FIGURES, Row, Table
from trainers.evaluate.words import HEADLINES, as_csv, as_json, text

_PSNR = {"low dose": (20.0, 30.0), "ours": (25.0, 35.0), "ours x 0.5": (23.0, 33.0), "bm3d": (22.0, 31.5)}


def _table() -> Table:
    """Two patients, ten dB apart, of whom each gains the same."""
    rows = [
        Row(name, 0.25, at, {"psnr abdomen": value, "bias bone": (-1.0) ** at * 1.5, "noise": 10.0, "nps 0.30": 5.0,
                             "6 mm +50 HU response": 40.0 if name == "ours" else 50.0,
                             "6 mm variance": 64.0 if name == "ours" else 400.0})
        for name, values in _PSNR.items() for at, value in enumerate(values)
    ]  # fmt: skip
    return Table(
        tuple(rows), {"low dose": "input", "ours": "ours", "ours x 0.5": "partial", "bm3d": "peer"}, ("a note",)
    )


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
@settings(deadline=None)
def test_an_interval_holds_to_the_values(values: list[float]) -> None:
    column = np.array(values)
    found = estimate(lambda rows: column[rows].mean(axis=-1), len(values))
    assert found.value == pytest.approx(np.mean(values)) and found.interval is not None
    assert min(values) - 1e-9 <= found.interval[0] <= found.interval[1] <= max(values) + 1e-9


def test_the_interval_of_a_mean_is_what_theory_says() -> None:
    column = np.random.default_rng(0).normal(0, 1, 400)
    interval = estimate(lambda rows: column[rows].mean(axis=-1), 400).interval
    assert interval is not None
    assert interval[1] - interval[0] == pytest.approx(2 * 1.96 / 20 * column.std(), rel=0.15)
    assert estimate(lambda rows: column[rows].mean(axis=-1), 1).interval is None
    assert estimate(lambda rows: np.full(rows.shape[:-1], math.nan), 5).interval is None


def test_differences_are_paired_by_patient() -> None:
    table = _table()
    assert table.value("PSNR abdomen", "ours", 0.25).interval == (25.0, 35.0)  # patients are 10 dB apart
    found = table.against("PSNR abdomen", ("ours", "low dose"), 0.25, gain)
    assert found.value == 5.0 and found.interval == (5.0, 5.0) and found.patients == 2


def test_only_patients_of_both_are_compared() -> None:
    table = _table()
    short = Table(tuple(row for row in table.rows if (row.denoiser, row.patient) != ("bm3d", 1)), table.kinds)
    found = short.against("PSNR abdomen", ("ours", "bm3d"), 0.25, gain)
    assert (found.value, found.interval, found.patients) == (3.0, None, 1)
    assert math.isnan(short.against("PSNR abdomen", ("ours", "nobody"), 0.25, gain).value)


def test_figures_that_are_made_of_others() -> None:
    table = _table()
    assert table.value("d' 6 mm +50 HU", "ours", 0.25).value == pytest.approx(40 / 8)
    assert table.against("d' 6 mm +50 HU", ("ours", "low dose"), 0.25, ratio).value == pytest.approx(5.0 / 2.5)
    assert table.value("contrast kept 6 mm +50 HU", "ours", 0.25).value == pytest.approx(0.8)
    assert table.value("CNR 6 mm +50 HU", "ours", 0.25).value == pytest.approx(4.0)
    assert table.value("bias bone", "ours", 0.25).value == 0.0
    worst = table.value("worst bias bone", "ours", 0.25)
    assert (worst.value, worst.interval, worst.patients) == (1.5, None, 2)  # patients drawn again are never worse
    assert table.against("worst bias bone", ("ours", "bm3d"), 0.25, gain).interval is None
    assert FIGURES["strong edges wider"].of([np.array([2.0, 2.0]), np.array([2.0, 3.0])], np.arange(2)) == 25.0


def test_the_worst_bias_is_the_farthest_from_nothing_on_either_side() -> None:
    rows = (Row("ours", 0.25, at, {"bias bone": bias_hu}) for at, bias_hu in enumerate((-3.0, 1.0, 2.0)))
    assert Table(tuple(rows), {"ours": "ours"}).value("worst bias bone", "ours", 0.25).value == 3.0


def test_aims_are_reached_missed_or_not_measured() -> None:
    aims = (
        Aim("PSNR abdomen", 0.25, 4.9, "at least", "gain"),
        Aim("PSNR abdomen", 0.25, 3.5, "at least", "gain", "bm3d"),
        Aim("PSNR abdomen", 0.25, -0.3, "at least", "gain", BEST),
        Aim("bias bone", 0.25, 1.0, "at most", "magnitude"),
        Aim("worst bias bone", 0.25, 1.0, "at most"),
        Aim("PSNR abdomen", 0.1, 4.9, "at least", "gain"),
        Aim("PSNR abdomen", 0.25, 0.0, "at least", "gain", "peer-redcnn"),
    )
    found = verdicts(_table(), "ours x 0.5", aims)
    assert [one.reached for one in found] == [False, False, False, True, False, None, None]
    assert found[2].against == "ours" and "MISSED" in str(found[2]) and "(-2 [-2, -2], n=2)" in str(found[2])
    assert str(found[3]).startswith("reached") and str(found[5]).startswith("not measured")
    assert verdicts(_table(), "ours", aims)[0].reached is True


_NOISY_GAINS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "low dose": ((50.0, 50.0, 50.0), (100.0, 100.0, 2500.0)),
    "ours": ((35.0, 35.0, 50.0), (100.0, 100.0, 400.0)),
}


def _harming() -> Table:
    """Two quiet patients lose contrast; a noisy third gains what the mean variance is made of."""
    rows = (
        Row(name, 0.25, at, {"6 mm -20 HU response": response, "6 mm variance": variance})
        for name, measured in _NOISY_GAINS.items()
        for at, (response, variance) in enumerate(zip(*measured, strict=True))
    )
    return Table(tuple(rows), {"low dose": "input", "ours": "ours"})


def test_a_noisy_patient_does_not_hide_what_others_lose() -> None:
    table, figure = _harming(), "d' 6 mm -20 HU"
    found = table.against(figure, ("ours", "low dose"), 0.25, ratio)
    assert found.value == pytest.approx((0.7 * 0.7 * 2.5) ** (1 / 3)) and found.patients == 3
    assert table.lower(figure, ("ours", "low dose"), 0.25) == (2, 3)
    pooled = [np.mean(response) / np.sqrt(np.mean(variance)) for response, variance in _NOISY_GAINS.values()]
    assert pooled[1] > 1.6 * pooled[0]  # what the mean response over the mean variance says
    gone = FIGURES[figure].of([np.array([-1.0, 50.0]), np.array([4.0, 100.0])], np.arange(2))
    assert gone == pytest.approx(np.sqrt(0.01 * 5.0))


def test_what_the_interval_leaves_open_is_unsure_and_single_patients_are_counted() -> None:
    never_less = Aim("d' 6 mm -20 HU", 0.25, 1.0, "at least", "ratio")
    (open_,) = verdicts(_harming(), "ours", (never_less,))
    assert open_.reached is True and not open_.is_sure and open_.word == "reached, unsure"
    assert "lower in 2 of 3 patients" in str(open_)
    harmed = Table(tuple(row for row in _harming().rows if row.patient < 2), _harming().kinds)
    (missed,) = verdicts(harmed, "ours", (never_less,))
    assert missed.word == "MISSED" and missed.is_sure and "lower in 2 of 2 patients" in str(missed)
    shown = text(_harming())
    assert re.search(r"d' 6 mm -20 HU: lower in +0 of 3 +2 of 3", shown) and "reached, unsure" in shown
    told = json.loads(as_json(_harming()))
    (entry,) = (one for one in told["figures"] if (one["denoiser"], one["figure"]) == ("ours", never_less.figure))
    assert entry["lower"] == [2, 3] and entry["ratio"]["patients"] == 3
    (aim,) = (one for one in told["aims"]["ours"] if one["aim"] == str(never_less))
    assert (aim["reached"], aim["sure"], aim["lower"]) == (True, False, [2, 3])


@pytest.mark.parametrize(
    ("value", "interval", "sure"),
    [(0.4, (0.2, 0.6), False), (-0.4, (-0.6, -0.2), False), (0.1, (-0.2, 0.3), True), (0.1, None, True)],
)
def test_a_magnitude_is_unsure_at_either_bound(value: float, interval: tuple[float, float] | None, sure: bool) -> None:
    aim = Aim("bias bone", 0.25, 0.5, "at most", "magnitude")
    assert Verdict(aim, Estimate(value, interval, 5), True).is_sure is sure


def test_every_aim_names_a_figure_and_is_told_apart() -> None:
    assert {aim.figure for aim in AIMS} <= set(FIGURES) and set(HEADLINES) <= set(FIGURES)
    assert len({str(aim) for aim in AIMS}) == len(AIMS)


def test_it_is_written_as_text_csv_and_json() -> None:
    table = _table()
    shown = text(table)
    assert "25.00" not in shown.splitlines()[0] and "30.00 [25.00, 35.00]" in shown and "aims, ours" in shown
    assert re.search(r"PSNR abdomen, dB: gain +0.00 \[0.00, 0.00\] +5.00 \[5.00, 5.00\] +3.00 ", shown)
    lines = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert len(lines) == sum(len(row.figures) for row in table.rows)
    assert tuple(lines[0].values()) == ("low dose", "0.25", "0", "psnr abdomen", "20.0")
    told = json.loads(as_json(table), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    (entry,) = (one for one in told["figures"] if (one["denoiser"], one["figure"]) == ("ours", "PSNR abdomen"))
    assert (entry["value"], entry["interval"], entry["patients"], entry["unit"]) == (30.0, [25.0, 35.0], 2, "dB")
    assert entry["gain"] == {"value": 5.0, "interval": [5.0, 5.0], "patients": 2}
    assert len(told["aims"]["ours"]) == len(AIMS)


def test_a_figure_of_fewer_patients_tells_of_how_many() -> None:
    table = _table()
    rows = [row if row.patient else replace(row, figures={**row.figures, "nps excess": 0.5}) for row in table.rows]
    shown = text(Table(tuple(rows), table.kinds))
    assert "0.50 n=1" in next(line for line in shown.splitlines() if line.startswith("pattern in noise"))
    assert "n=" not in next(line for line in shown.splitlines() if line.startswith("PSNR abdomen"))
    assert "0.50 n=1" in page(Table(tuple(rows), table.kinds))


def test_spots_are_counted_by_area_over_all_patients() -> None:
    measured = [{"invented": 1.0, "asked cm2": 0.5}, {"invented": 1.0, "asked cm2": 99.5}]
    rows = tuple(Row("low dose", 0.25, at, own) for at, own in enumerate(measured))
    assert Table(rows, {"low dose": "input"}).value("invented", "low dose", 0.25).value == pytest.approx(2.0)


def test_the_card_tells_figures_beside_the_input() -> None:
    (first, *_) = metrics_of(_table(), Denoiser("ours", lambda low: low))
    assert (first.name, first.value, first.baseline, first.interval) == ("PSNR abdomen", 30.0, 25.0, (25.0, 35.0))
    assert first.subgroup == "25 % dose, simulated" and first.patients == 2
    (named, *_) = metrics_of(_table(), Denoiser("ours", lambda low: low, output="enhanced"))
    assert named.name == "PSNR abdomen, enhanced"


def test_the_card_tells_the_ratio_of_d_and_whom_it_falls_in() -> None:
    told = {one.name: one for one in metrics_of(_harming(), Denoiser("ours", lambda low: low))}
    over = told["d' 6 mm -20 HU over that of the low dose"]
    assert over.value == 1.07 and over.interval is not None and over.patients == 3
    fallen = told["d' 6 mm -20 HU lower than with the low dose"]
    assert (fallen.value, fallen.unit, fallen.patients) == (2, "patients", 3)


def test_the_page_needs_nothing_from_outside() -> None:
    table = _table()
    hostile = Table(
        tuple(Row(row.denoiser.replace("bm3d", "<script>x</script>"), row.dose, row.patient, row.figures)
              for row in table.rows), {**table.kinds, "<script>x</script>": "peer"}, table.notes)  # fmt: skip
    shown = page(hostile)
    assert "<script" not in shown and "&lt;script&gt;" in shown
    assert not re.findall(r"(?:src|href)=\"(?!data:)|url\(|@import", shown)
    assert set(re.findall(r"https?://[^\"]*", shown)) <= {"http://www.w3.org/2000/svg"}
    assert 'class="MISSED"' in shown and "<polyline" in shown


def test_the_curve_of_the_strength_goes_from_nothing_to_all() -> None:
    curve = strength_curves(_table())[0]
    assert [(point.x, point.y) for point in curve.lines["ours"]] == [(0.0, 25.0), (0.5, 28.0), (1.0, 30.0)]
    drawn = [svg(plot) for plot in plots(_table())]
    assert "Noise power at 25 % dose" in "".join(drawn)
    assert all(ElementTree.fromstring(one).tag.endswith("svg") for one in drawn if one)
    assert svg(Plot("none", "x", "y", {"a": [Point(0, math.nan)]})) == ""


def test_a_strength_is_told_from_a_name_that_looks_like_one() -> None:
    name = "ours (2 x gpu)"
    rows = tuple(replace(row, denoiser=row.denoiser.replace("ours", name)) for row in _table().rows)
    kinds = {one.replace("ours", name): kind for one, kind in _table().kinds.items()}
    curve = strength_curves(Table(rows, kinds))[0]
    assert [point.x for point in curve.lines[name]] == [0.0, 0.5, 1.0]
