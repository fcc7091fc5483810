"""The one page of a quality report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.figures import FIGURES, figures_of
from dicomnode.pixels.pages import Shown, Told, page_of, slice_to_show
from dicomnode.pixels.sheet import COLUMNS, ROWS, Picture, draw, grey, png
from engines.volume import ARBITRARY, HU

REPORT: dict[str, Any] = {
    "unit": HU,
    "noise_before": 20.0, "noise_after": 8.0, "edge_modulation": 0.97, "edge_correlation_slice": 2,
    "bias_hu": {"soft tissue": 0.2}, "slice_bias_hu": {"soft tissue": 0.4},
    "nps": {"frequency_per_mm": [0.1, 0.2, 0.3], "before": [100.0, 80.0, 20.0], "after": [40.0, 20.0, 5.0]},
}  # fmt: skip
TOLD = Told("ct-denoise@1.0.0", ("series 1.2.3",), REPORT, figures_of(REPORT), ("ok    the grid is the source's",))


def shown(size: int = 64, unit: str = HU) -> Shown:
    before = np.random.default_rng(1).normal(40, 20, (size, size)).astype(np.float32)
    return Shown(2, before, before * np.float32(0.9), unit)


def ink(page: Any) -> float:
    return float((page < 128).mean())


def test_a_page_has_pictures_curves_and_a_table() -> None:
    sheet = page_of(TOLD, shown())
    assert [picture.caption for picture in sheet.pictures] == ["before, slice 3", "after", "after - before"]
    assert (sheet.pictures[0].centre, sheet.pictures[0].width, sheet.pictures[2].width) == (40.0, 400.0, 120.0)
    assert sheet.plot is not None
    assert [curve.label for curve in sheet.plot.curves] == ["before", "after"]
    assert ("noise before", "20 HU") in sheet.table
    page = draw(sheet)
    assert page.shape == (ROWS, COLUMNS)
    assert page.dtype == np.uint8
    for part in (
        replace(sheet, plot=None),
        replace(sheet, pictures=()),
        replace(sheet, table=()),
        replace(sheet, notes=()),
    ):
        assert ink(draw(part)) < ink(page)


def test_it_is_a_file_that_can_be_read_and_always_the_same() -> None:
    page = draw(page_of(TOLD, shown()))
    written = png(page)
    read = cv2.imdecode(np.frombuffer(written, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert read is not None
    assert np.array_equal(read, page)
    assert png(draw(page_of(TOLD, shown()))) == written


def test_a_window_is_shown_from_black_to_white() -> None:
    pixels = np.array([[-160.0, 40.0, 240.0, np.nan, np.inf]], dtype=np.float32)
    assert grey(Picture("", pixels, 40.0, 400.0)).tolist() == [[0, 127, 255, 0, 255]]


def test_a_phantom_has_one_picture_and_one_curve() -> None:
    report = {"water_hu": 1.0, "nps": {"frequency_per_mm": [0.1, 0.2], "before": [1.0, 2.0]}}
    sheet = page_of(replace(TOLD, report=report, figures=figures_of(report)), replace(shown(), after=None))
    assert len(sheet.pictures) == 1
    assert sheet.plot is not None
    assert [curve.label for curve in sheet.plot.curves] == ["as scanned"]


def test_figures_outlive_the_images() -> None:
    sheet = page_of(TOLD, None)
    assert sheet.pictures == ()
    assert sheet.subtitles[-1] == "The images are not kept any more."
    assert ink(draw(sheet)) > 0.005


def test_the_slice_that_follows_edges_most_is_shown() -> None:
    assert slice_to_show(REPORT, 5) == 2
    assert slice_to_show(REPORT, 2) == 1
    assert slice_to_show({}, 5) == 2


def test_what_does_not_fit_is_said_to_be_left_out() -> None:
    sheet = replace(page_of(TOLD, shown()), notes=tuple(f"sentence {number}" for number in range(200)))
    assert ink(draw(sheet)[-40:]) < 0.001, "the margin stays free"


@settings(deadline=None, max_examples=25)
@given(
    text=st.text(max_size=300),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    value=st.floats(-1e30, 1e30),
    unit=st.sampled_from([HU, ARBITRARY]),
    figures=st.dictionaries(st.sampled_from(list(FIGURES)), st.floats(-1e30, 1e30)),
    curve=st.lists(st.floats(0, 1e9), max_size=4),
)
def test_anything_can_be_drawn(
    text: str, rows: int, columns: int, value: float, unit: str, figures: dict[str, float], curve: list[float]
) -> None:
    pixels = np.full((rows, columns), value, dtype=np.float32)
    report = {"nps": {"frequency_per_mm": curve, "before": curve, "after": [0.0] * len(curve)}}
    told = Told(text, (text,), report, figures, (text,))
    assert draw(page_of(told, Shown(0, pixels, pixels, unit))).shape == (ROWS, COLUMNS)


@pytest.mark.parametrize("spectrum", [None, "text", {}, {"frequency_per_mm": [1.0, 2.0], "before": [1.0]}])
def test_a_report_without_a_spectrum_has_no_curves(spectrum: object) -> None:
    assert page_of(replace(TOLD, report={"nps": spectrum}), shown()).plot is None
