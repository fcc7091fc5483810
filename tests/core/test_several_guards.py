"""The gate before an engine that takes several series: docs/gates.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dicomnode.core import guards
from dicomnode.core.guards import GateReport
from dicomnode.core.types import Header
from dicomnode.testing.bundles import made
from engines.volume import Volume
from tests.engines.phantoms import body, noisy, volume

CARD = made("three-inputs").card
NAMES = tuple(CARD.inputs)
HEADER: Header = {"Modality": ("CT",), "FrameOfReferenceUID": ("1.2",)}


def example(seed: int, columns: int = 32) -> Volume:
    """Three slices of 32 rows."""
    return volume(*(noisy(body(32), 15.0, seed=10 * seed + index)[:, :columns] for index in range(3)))


def judged(headers: dict[str, Header] | None = None, card: Any = CARD, **volumes: Volume) -> GateReport:
    given = {name: example(seed) for seed, name in enumerate(NAMES)} | volumes
    return guards.before_each(card, {name: (headers or {}).get(name, HEADER) for name in given}, given)


def failed(report: GateReport) -> dict[str, str]:
    return {finding.name: finding.sentence for finding in report.findings if not finding.passed}


def test_what_fits_passes_and_every_sentence_names_its_input() -> None:
    report = judged()
    assert report.passed
    assert {finding.sentence.split(":")[0] for finding in report.findings} == set(NAMES)


def test_each_input_is_held_to_the_envelope() -> None:
    assert failed(judged({"portal": {**HEADER, "Modality": ("MR",)}})) == {
        "modality": "portal: the modality is another, wanted is CT"
    }
    broken = example(9)
    broken.voxels[1, 4, 4] = np.nan
    assert failed(judged(delayed=broken))["finite"] == "delayed: some values are not finite numbers, in 1 of 3 slices"


def test_the_contrast_agent_is_asked_of_the_first_alone() -> None:
    card = replace(CARD, envelope=replace(CARD.envelope, contrast_agent="without"))
    agent = {**HEADER, "ContrastBolusAgent": ("IODINE",)}
    assert judged({"portal": agent, "delayed": agent}, card).passed
    assert set(failed(judged({"image": agent}, card))) == {"contrast agent"}


@pytest.mark.parametrize(
    ("columns", "shift_mm", "said"),
    [
        (
            16,
            0.0,
            "portal: its grid is 3 slices of 32 x 16, 0.7 x 0.7 x 1.25 mm, from (0, 0, 0) mm on,",
        ),
        (
            32,
            0.5,
            "from (0.5, 0, 0) mm on, wanted is that of image, 3 slices of 32 x 32, 0.7",
        ),
        (32, 0.5, ": they lie up to 0.5 mm apart"),
        (32, float("nan"), "they lie up to nan mm apart"),
    ],
)
def test_both_grids_are_told(columns: int, shift_mm: float, said: str) -> None:
    moved = example(1, columns)
    moved.affine[0, 3] += shift_mm
    assert said in failed(judged(portal=moved))["one grid"]


def test_rounding_is_no_other_grid_and_an_unknown_frame_no_other_one() -> None:
    near = example(1)
    near.affine[:3, 3] += 0.004
    assert judged({"portal": {"Modality": ("CT",)}}, portal=near).passed
    assert set(failed(judged({"portal": {**HEADER, "FrameOfReferenceUID": ("1.3",)}}))) == {"frame of reference"}


def test_slices_are_compared_one_by_one() -> None:
    wanted = [(0.0, 0.0, float(height)) for height in (0, 1, 2, 3, 5)]
    other = [(0.0, 0.0, float(height)) for height in (0, 1, 3, 4, 5)]
    assert guards.misplaced("t2", other, "image", other) == ""
    assert guards.misplaced("t2", other[1:], "image", wanted) == "", "the gate tells of another number"
    assert guards.misplaced("t2", [None, *other[1:]], "image", [None, *other[1:]]) == ""
    said = guards.misplaced("t2", other, "image", wanted)
    assert said == "t2: 2 of its 5 slices are not where those of image are, up to 1 mm off"
