"""The phantom study: what it shows, and that it is a proper CT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from dicomnode.core.headers import header_of
from dicomnode.core.phantom import BODY, LESION_CONTRAST_HU, LESIONS, LIVER_HU, phantom_study
from dicomnode.core.stacks import STACK_KEYWORDS, slice_of, split_stacks
from dicomnode.core.volumes import PIXEL_KEYWORDS, assemble
from dicomnode.pixels.decode import decode
from dicomnode.testing.objects import validation_errors
from engines.volume import HU, Volume
from tests.pixels.encoded import stored


def study(seed: int = 1, **parameters: float) -> list[Dataset]:
    return phantom_study(np.random.default_rng(seed), **{"slices": 5, "size": 256, **parameters})  # type: ignore[arg-type]


def volume_of(datasets: list[Dataset]) -> Volume:
    slices = [
        slice_of(
            index, dataset.SOPInstanceUID, dataset.SOPClassUID, header_of(dataset, {*STACK_KEYWORDS, *PIXEL_KEYWORDS})
        )
        for index, dataset in enumerate(datasets)
    ]
    (stack,) = split_stacks(slices)
    assert stack.regular
    return assemble(stack.slices, (decode(datasets[placed.instance_id]) for placed in stack.slices))


def around(volume: Volume, index: int, x_mm: float, y_mm: float, half_mm: float) -> np.ndarray:
    column, row, _, _ = np.linalg.solve(volume.affine, [x_mm, y_mm, 0, 1])
    half = int(half_mm / volume.pixel_spacing_mm[0])
    rows, columns = (slice(round(at) - half, round(at) + half + 1) for at in (row, column))
    return volume.voxels[index, rows, columns]


def test_equal_generators_give_equal_studies() -> None:
    one, same, other = study(1), study(1), study(2)
    assert [a.PixelData for a in one] == [b.PixelData for b in same]
    assert [a.SOPInstanceUID for a in one] == [b.SOPInstanceUID for b in same]
    assert one[0].PixelData != other[0].PixelData
    assert one[0].StudyInstanceUID != other[0].StudyInstanceUID


def test_every_tissue_has_its_hu() -> None:
    clean = volume_of(study(noise_hu=0))
    assert clean.unit == HU
    spots = {(0, -107): -100, (0, 0): 0, (85, -15): -850, (-80, -40): -850, (0, 68): 700, (-75, 70): LIVER_HU}
    for (x_mm, y_mm), expected_hu in spots.items():
        assert around(clean, 0, x_mm, y_mm, 2).mean() == pytest.approx(expected_hu, abs=0.5), (x_mm, y_mm)
    assert around(clean, 0, -170, -170, 2).mean() == -1000


def test_lesions_are_spheres_in_the_middle_of_the_stack() -> None:
    clean = volume_of(study(noise_hu=0))
    for lesion in LESIONS:
        contrast = [around(clean, index, lesion.x_mm, lesion.y_mm, 0).item() - LIVER_HU for index in range(5)]
        assert contrast[2] == pytest.approx(LESION_CONTRAST_HU, abs=0.5)
        assert contrast[0] == contrast[4]
        assert contrast[0] < LESION_CONTRAST_HU / 2 or lesion.diameter_mm > 8


def test_noise_is_as_strong_as_asked_and_correlated() -> None:
    noise = volume_of(study(noise_hu=25)).voxels - volume_of(study(noise_hu=0)).voxels
    assert noise.std() == pytest.approx(25, rel=0.01)
    assert abs(noise.mean()) < 0.5
    neighbours = np.corrcoef(noise[0, :, 1:].ravel(), noise[0, :, :-1].ravel())[0, 1]
    assert 0.2 < neighbours < 0.8


def test_nothing_lies_outside_of_the_body() -> None:
    body = BODY[0]
    for part in BODY[1:]:
        assert abs(part.x_mm) + part.half_x_mm < body.half_x_mm
        assert abs(part.y_mm) + part.half_y_mm < body.half_y_mm


@pytest.mark.peer("dciodvfy")
def test_the_validator_finds_no_error(tmp_path: Path) -> None:
    for dataset in study(slices=2, size=64):
        assert validation_errors(stored(tmp_path, dataset)) == set()
