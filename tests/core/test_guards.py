"""The gates: each clause alone, in plain words, without a word from the data set."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dicomnode.core import guards
from dicomnode.core.guards import GateReport
from engines.card import EngineCard, Envelope, Limits, Port
from engines.volume import ARBITRARY, HU, Volume
from tests.engines.phantoms import body, noisy, volume

HEADER = {"Modality": ("CT",), "BodyPartExamined": ("CHEST",), "KVP": ("120",), "SliceThickness": ("1.25",)}

CARD = EngineCard(
    name="made-up",
    version="1.0.0",
    task="image",
    operation="denoise",
    intended_use="tests",
    influence="slice",
    inputs={"image": Port(unit=HU)},
    outputs={"image": Port(unit=HU)},
    envelope=Envelope(
        modalities=("CT",),
        body_parts=("CHEST", "LUNG"),
        kvp=(80.0, 140.0),
        slice_thickness_mm=(0.5, 2.0),
        pixel_spacing_mm=(0.4, 1.0),
        rows_columns=(64, 1024),
        minimum_slices=2,
    ),
    limits=Limits(bias_hu=2.0, noise_ratio=(0.05, 0.95)),
)
SHOWN = replace(CARD, outputs={"image": Port(unit=ARBITRARY, presentation=True)})


def source() -> Volume:
    return volume(noisy(body(), 10.0), noisy(body(), 10.0, seed=1))


def failed(report: GateReport) -> set[str]:
    return {finding.name for finding in report.findings if not finding.passed}


def test_what_fits_passes() -> None:
    report = guards.before(CARD, HEADER, source())
    assert report.passed
    assert report.reasons == ()


@pytest.mark.parametrize(
    ("keyword", "values", "name"),
    [
        ("Modality", ("MR",), "modality"),
        ("Modality", (), "modality"),
        ("BodyPartExamined", ("HEAD",), "body part"),
        ("BodyPartExamined", (), "body part"),
        ("KVP", ("60",), "tube voltage"),
        ("KVP", ("nan",), "tube voltage"),
        ("KVP", (), "tube voltage"),
        ("SliceThickness", ("5.0",), "slice thickness"),
        ("SliceThickness", ("thin",), "slice thickness"),
    ],
)
def test_an_attribute_outside_the_envelope_or_unknown_refuses(keyword: str, values: tuple[str, ...], name: str) -> None:
    header = {**HEADER, keyword: values} if values else {key: HEADER[key] for key in HEADER if key != keyword}
    assert failed(guards.before(CARD, header, source())) == {name}


def test_what_the_card_does_not_restrict_may_be_unknown() -> None:
    free = replace(CARD, envelope=Envelope())
    assert guards.before(free, {}, source()).passed


def test_any_value_of_a_body_part_may_match_in_any_case() -> None:
    header = {**HEADER, "BodyPartExamined": ("ABDOMEN", "chest")}
    assert guards.before(CARD, header, source()).passed


def test_grid_and_slices() -> None:
    coarse = replace(source(), affine=np.diag([0.7, 3.0, 1.0, 1.0]))
    assert failed(guards.before(CARD, HEADER, coarse)) == {"row spacing"}
    assert failed(guards.before(CARD, HEADER, volume(noisy(body(), 10.0)))) == {"slices"}
    small = volume(*[noisy(body(64)[:32], 10.0)] * 2)
    assert failed(guards.before(CARD, HEADER, small)) == {"rows"}


def test_values() -> None:
    assert failed(guards.before(CARD, HEADER, replace(source(), unit=ARBITRARY))) == {"unit"}
    constant = volume(*[np.full((128, 128), 7.0, np.float32)] * 2)
    assert failed(guards.before(CARD, HEADER, constant)) == {"variation"}
    broken = source()
    broken.voxels[0, 5, 5] = np.nan
    assert "finite" in failed(guards.before(CARD, HEADER, broken))
    padded = replace(source(), valid=np.zeros((2, 128, 128), np.bool_))
    assert failed(guards.before(CARD, HEADER, padded)) == {"variation"}


def test_no_text_of_the_data_set_is_quoted() -> None:
    """A name may stand in any attribute; only what the card itself names is repeated."""
    header = dict.fromkeys(HEADER, ("DOE^JANE",))
    report = guards.before(CARD, header, source())
    assert not report.passed
    assert "DOE" not in json.dumps(report.as_json())


def denoised(before: Volume, change: float = 0.0) -> Volume:
    """Half the noise, and a shift in soft tissue and bone."""
    clean = np.stack([body()] * 2)
    shift = np.where(clean > -10, np.float32(change), np.float32(0))
    return before.with_voxels((clean + (before.voxels - clean) / 2 + shift).astype(np.float32))


def test_a_good_output_passes_with_its_figures() -> None:
    before = source()
    report = guards.after(CARD, before, denoised(before))
    assert report.passed
    assert report.quality is not None
    noise = next(finding for finding in report.findings if finding.name == "noise")
    assert noise.figure == pytest.approx(0.5, abs=0.05)


def test_a_shifted_tissue_is_withheld_with_figure_and_bound() -> None:
    before = source()
    report = guards.after(CARD, before, denoised(before, change=-4.0))
    assert failed(report) == {"bias: soft tissue", "bias: bone"}
    assert report.reasons[0].startswith("soft tissue changes by -4.0")
    assert report.reasons[0].endswith("at most 2 is allowed")


@pytest.mark.parametrize(("share", "passes"), [(1.0, False), (0.5, True), (0.01, False)])
def test_noise_must_go_but_not_all_of_it(share: float, passes: bool) -> None:
    before = source()
    clean = np.stack([body()] * 2)
    output = before.with_voxels((clean + (before.voxels - clean) * np.float32(share)).astype(np.float32))
    assert failed(guards.after(CARD, before, output)) == (set() if passes else {"noise"})


def test_an_input_without_noise_has_no_ratio_to_judge() -> None:
    clean = volume(body(), body())
    report = guards.after(CARD, clean, clean)
    assert report.passed


def test_clipping_is_withheld() -> None:
    before = source()
    output = denoised(before).voxels.copy()
    output[:, :10] = before.voxels.min()
    assert "clipping" in failed(guards.after(CARD, before, before.with_voxels(output)))


def test_form() -> None:
    before = source()
    good = denoised(before)
    moved = replace(good, affine=np.diag([0.7, 0.7, 1.0, 1.0]))
    assert failed(guards.after(CARD, before, moved)) == {"grid"}
    assert "grid" in failed(guards.after(CARD, before, volume(body())))
    assert failed(guards.after(CARD, before, replace(good, unit=ARBITRARY))) == {"unit"}
    empty = before.with_voxels(np.zeros(before.shape, np.float32))
    assert failed(guards.after(CARD, before, empty)) == {"variation"}
    infinite = good.voxels.copy()
    infinite[0, 0, 0] = np.inf
    report = guards.after(CARD, before, before.with_voxels(infinite))
    assert failed(report) == {"finite"}
    assert report.quality is None


def test_padding_must_come_back_as_it_was() -> None:
    valid = np.ones((2, 128, 128), np.bool_)
    valid[:, :, :20] = False
    before = replace(source(), valid=valid)
    assert failed(guards.after(CARD, before, replace(denoised(before), valid=valid))) == {"padding"}


def test_a_presentation_output_has_a_range_instead_of_hu() -> None:
    before = source()
    shown = (denoised(before).voxels + 1100) * np.float32(2)
    assert guards.after(SHOWN, before, before.with_voxels(shown, ARBITRARY)).passed
    assert failed(guards.after(SHOWN, before, before.with_voxels(shown * 4, ARBITRARY))) == {"brightest value"}
    assert failed(guards.after(SHOWN, before, before.with_voxels(shown - 3000, ARBITRARY))) == {"darkest value"}


def test_reports_are_json() -> None:
    before = source()
    for report in (guards.before(CARD, HEADER, before), guards.after(CARD, before, denoised(before))):
        told = json.loads(json.dumps(report.as_json(), allow_nan=False))
        assert told["passed"] is True
        assert {"name", "figure", "bound", "passed", "sentence"} == set(told["findings"][0])
