"""The gates: each clause alone, in plain words, without a word from the data set."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.core import guards
from dicomnode.core.guards import GateReport
from dicomnode.core.guards.limits import judge_figures
from dicomnode.core.identity import INSTANCE_CREATOR_UID
from engines import quality
from engines.card import EngineCard, Envelope, Limits, Port, Stage
from engines.findings import Finding, Findings
from engines.quality import Blob
from engines.volume import ARBITRARY, HU, Mask, Volume
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
    assert report.reasons[0].startswith("soft tissue changes by -3.9")
    assert report.reasons[0].endswith("at most 2.19 is allowed")  # 2 % of the noise on top of 2


@pytest.mark.parametrize(("share", "broken"), [(1.0, {"noise"}), (0.5, set()), (0.01, {"noise"})])
def test_noise_must_go_but_not_all_of_it(share: float, broken: set[str]) -> None:
    """Without any of their noise, slices of one anatomy cannot be told apart."""
    before = source()
    clean = np.stack([body()] * 2)
    output = before.with_voxels((clean + (before.voxels - clean) * np.float32(share)).astype(np.float32))
    assert failed(guards.after(CARD, before, output)) == broken


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


def test_a_kernel_may_be_any_of_a_family() -> None:
    card = replace(CARD, envelope=replace(CARD.envelope, kernels=("B3?f", "STANDARD")))
    for kernel, passes in (("B30f", True), ("standard", True), ("B70f", False), ("", False)):
        header = {**HEADER, "ConvolutionKernel": (kernel,)}
        assert failed(guards.before(card, header, source())) == (set() if passes else {"kernel"})
    assert "wanted is B3?f or STANDARD" in guards.before(card, HEADER, source()).reasons[0]


@pytest.mark.parametrize(("wanted", "found", "passes"), [
    ("with", "ULTRAVIST", True), ("with", None, False), ("without", "ULTRAVIST", False), ("without", None, True),
    ("without", " ", True), ("any", "ULTRAVIST", True),
])  # fmt: skip
def test_contrast_agent(wanted: Literal["any", "with", "without"], found: str | None, passes: bool) -> None:
    card = replace(CARD, envelope=replace(CARD.envelope, contrast_agent=wanted))
    header = HEADER if found is None else {**HEADER, "ContrastBolusAgent": (found,)}
    report = guards.before(card, header, source())
    assert failed(report) == (set() if passes else {"contrast agent"})
    assert "ULTRAVIST" not in json.dumps(report.as_json())


def test_what_this_node_made_is_refused() -> None:
    header = {**HEADER, "InstanceCreatorUID": (INSTANCE_CREATOR_UID,)}
    assert failed(guards.before(CARD, header, source())) == {"source"}


@pytest.mark.parametrize(
    ("affine", "name"),
    [
        (np.diag([0.7, 0.7, np.nan, 1.0]), "geometry"),
        (np.diag([0.7, 0.7, 0.0, 1.0]), "spacing"),
        (np.diag([0.7, 0.7, 90.0, 1.0]), "spacing"),
        (np.array([[0.7, 0.1, 0, 0], [0, 0.7, 0, 0], [0, 0, 1.25, 0], [0, 0, 0, 1.0]]), "axes"),
        (np.array([[0.7, 0, 1.25, 0], [0, 0.7, 0, 0], [0, 0, 0.01, 0], [0, 0, 0, 1.0]]), "axes"),
    ],
)
def test_a_grid_that_no_scanner_has_is_refused(affine: NDArray[np.float64], name: str) -> None:
    assert failed(guards.before(CARD, HEADER, replace(source(), affine=affine))) == {name}


def test_a_tilted_gantry_is_sane() -> None:
    tilted = np.array([[0.7, 0, 0, 0], [0, 0.7, 1.0, 0], [0, 0, 2.0, 0], [0, 0, 0, 1.0]])
    assert guards.before(CARD, HEADER, replace(source(), affine=tilted)).passed


def test_values_that_cannot_be_hu_are_refused() -> None:
    padded = source().voxels.copy()
    padded[:, :30, :30] = -3024.0
    assert failed(guards.before(CARD, HEADER, source().with_voxels(padded))) == {"padding"}
    unshifted = source().with_voxels(source().voxels + np.float32(1024))
    assert "dark" in failed(guards.before(CARD, HEADER, unshifted))
    bright_air = source().with_voxels(np.maximum(source().voxels, np.float32(-700)))
    assert failed(guards.before(CARD, HEADER, bright_air)) == {"air"}


def finer(before: Volume, factor: int) -> Volume:
    """Each voxel as factor x factor of them, half the noise gone."""
    half = denoised(before).voxels
    voxels = half.repeat(factor, axis=1).repeat(factor, axis=2)
    scale = np.diag([1 / factor, 1 / factor, 1.0, 1.0])
    scale[:2, 3] = (1 / factor - 1) / 2
    return Volume(voxels, before.affine @ scale, before.unit)


def test_super_resolution_has_exactly_the_declared_grid() -> None:
    stage = Stage("net.onnx", (), (), factor=2)
    card = replace(CARD, task="super-resolution", stages=(stage,))
    before = source()
    report = guards.after(card, before, finer(before, 2))
    assert report.passed
    assert report.quality is not None
    assert failed(guards.after(card, before, finer(before, 4))) == {"grid"}
    assert failed(guards.after(card, before, denoised(before))) == {"grid"}
    shifted = replace(finer(before, 2), affine=before.affine @ np.diag([0.5, 0.5, 1.0, 1.0]))
    assert failed(guards.after(card, before, shifted)) == {"grid"}
    assert failed(guards.after(CARD, before, finer(before, 2))) == {"grid"}


def test_masks_lie_on_the_source_s_grid() -> None:
    card = replace(CARD, task="segment", outputs={"lesion": Port(kind="mask")})
    before = source()
    labels = np.zeros(before.shape, np.uint8)
    labels[0, 3, 3] = 1
    good = Mask(labels, before.affine, {1: "lesion"})
    assert guards.after(card, before, good, "lesion").passed
    assert failed(guards.after(card, before, replace(good, names={}), "lesion")) == {"labels"}
    assert failed(guards.after(card, before, replace(good, labels=labels[:1]), "lesion")) == {"grid"}
    assert failed(guards.after(card, before, replace(good, affine=np.eye(4)), "lesion")) == {"grid"}
    assert failed(guards.after(card, before, before, "lesion")) == {"kind"}
    assert failed(guards.after(CARD, before, good)) == {"kind"}


@pytest.mark.parametrize(
    ("finding", "broken"),
    [
        (Finding(1, (0.0, 0.0, 128.0, 128.0), "nodule", 0.5), set()),
        (Finding(2, (0.0, 0.0, 8.0, 8.0), "nodule", 0.5), {"grid"}),
        (Finding(0, (8.0, 0.0, 4.0, 8.0), "nodule", 0.5), {"grid"}),
        (Finding(0, (0.0, 0.0, np.nan, 8.0), "nodule", 0.5), {"grid"}),
        (Finding(0, (0.0, 0.0, 8.0, 8.0), "nodule", np.nan), {"scores"}),
        (Finding(0, (0.0, 0.0, 8.0, 8.0), "nodule", 1.5), {"scores"}),
    ],
)
def test_findings_lie_within_the_images(finding: Finding, broken: set[str]) -> None:
    card = replace(CARD, task="detect", outputs={"found": Port(kind="findings")})
    assert failed(guards.after(card, source(), Findings((finding,)), "found")) == broken


def test_each_limit_is_judged_alone_and_in_words() -> None:
    before = source()
    figures = guards.after(CARD, before, denoised(before)).quality
    assert figures is not None
    spot = Blob(strength=20.0, contrast=60.0, size_mm=6.0, slice_index=4, row=1, column=1)
    for changed, name, words in (
        ({"slice_bias_hu": {"lung": -30.0}}, "bias in one slice: lung", "lung changes by -30.00 HU"),
        ({"edge_modulation": 0.5}, "edges", "edges keep 50% of their modulation"),
        ({"edge_correlation": 0.9, "edge_correlation_slice": 6}, "residual at edges", "by 0.90 in slice 7"),
        ({"blob": spot}, "blob", "in slice 5 about 6 mm were taken away as something bright"),
        ({"slice_fit": 1.4, "slice_fit_slice": 0}, "slice order", "slice 1 of the output"),
        ({"clipped_bone": 0.2}, "clipped bone", "20.0% of a slice's bone"),
    ):
        judged = GateReport(tuple(judge_figures(CARD.limits, HU, replace(figures, **changed))))
        assert failed(judged) == {name}
        assert words in judged.reasons[0]


def test_a_uniform_stack_is_not_withheld_for_the_order_of_its_slices() -> None:
    """Nothing but noise tells its slices apart; an engine that takes most of it leaves nothing to judge them by."""
    before = volume(*(noisy(body(256), 20.0, seed, grain_px=0.8) for seed in range(8)))
    clean = np.stack([body(256)] * 8)
    card = replace(CARD, limits=Limits(bias_hu=None, slice_bias_hu=None))
    report = guards.after(card, before, before.with_voxels((clean + 0.1 * (before.voxels - clean)).astype(np.float32)))
    assert report.passed, report.reasons
    (said,) = [finding for finding in report.findings if finding.name == "alike slices"]
    assert said.sentence.startswith("the order of 8 slices cannot be judged")
    assert "slice order" not in {finding.name for finding in report.findings}


def test_noise_widens_what_a_tissue_may_change_by() -> None:
    figures = replace(quality.measure(source(), source()), noise_before=100.0, bias_hu={"lung": 3.9, "bone": -4.1})
    found = {finding.name: finding.passed for finding in judge_figures(Limits(bias_hu=2.0), HU, figures)}
    assert (found["bias: lung"], found["bias: bone"]) == (True, False)
