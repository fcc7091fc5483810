"""`dicomnode enhance` on real CT: geometry untouched, tissue unbiased, noise lower, edges as sharp; a blur is not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from scipy import ndimage

from engines.quality import QualityReport, measure
from engines.volume import HU, Volume
from tests.end_to_end.observation import files_of, source_uids
from tests.shared import shared_data

SERIES = ("lidc0002", "head_ge")
GEOMETRY = (
    "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness",
    "FrameOfReferenceUID", "GantryDetectorTilt", "TableHeight", "SliceLocation",
)  # fmt: skip
MOST_BIAS_HU = 2.0
TISSUES = ("air", "fat", "soft tissue", "bone")
LEAST_NOISE_REDUCTION = 0.20
MOST_EDGE_CHANGE = 0.05


def volume_of(images: list[Dataset]) -> Volume:
    """Slices in the order given, in HU, padding masked; the affine plays no part in what is measured."""
    stored = [image.pixel_array for image in images]
    hu = [
        pixels * float(image.RescaleSlope) + float(image.RescaleIntercept)
        for pixels, image in zip(stored, images, strict=True)
    ]
    padding = [
        pixels != image.get("PixelPaddingValue", np.iinfo(np.int64).min)
        for pixels, image in zip(stored, images, strict=True)
    ]
    return Volume(np.stack(hu).astype(np.float32), np.eye(4), HU, np.stack(padding))


@pytest.fixture(name="enhanced", scope="module", params=SERIES)
def _enhanced(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Dataset, Dataset]]:
    """Each source image with what `dicomnode enhance` made of it."""
    folder = shared_data(f"ct/dicom/{request.param}")
    out = tmp_path_factory.mktemp("enhanced")
    command = [sys.executable, "-m", "dicomnode", "enhance", str(folder), str(out), "--engine", "ct-nlm"]
    answer = subprocess.run(command, cwd=out, capture_output=True, text=True, timeout=600, check=False)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    sources = {image.SOPInstanceUID: image for image in map(dcmread, files_of(folder))}
    images = [dcmread(path) for path in files_of(out)]
    own = [
        next(uid for uid in source_uids(image) if sources[uid].ImagePositionPatient == image.ImagePositionPatient)
        for image in images
    ]
    assert sorted(own) == sorted(sources), "one derived image for each source"
    return [(sources[uid], image) for uid, image in zip(own, images, strict=True)]


@pytest.fixture(name="volumes", scope="module")
def _volumes(enhanced: list[tuple[Dataset, Dataset]]) -> tuple[Volume, Volume]:
    return volume_of([source for source, _ in enhanced]), volume_of([image for _, image in enhanced])


def faults(report: QualityReport) -> list[str]:
    """What of a report is out of bounds."""
    assert report.flat_sd_before is not None
    assert report.flat_sd_after is not None
    assert report.edge_width_before_px is not None
    assert report.edge_width_after_px is not None
    found = [
        f"bias in {tissue} {report.bias_hu[tissue]:+.2f} HU"
        for tissue in TISSUES
        if abs(report.bias_hu.get(tissue, 0.0)) > MOST_BIAS_HU
    ]
    reduction = 1 - report.flat_sd_after / report.flat_sd_before
    if reduction < LEAST_NOISE_REDUCTION:
        found.append(f"noise only {reduction:.0%} lower")
    change = report.edge_width_after_px / report.edge_width_before_px - 1
    if abs(change) > MOST_EDGE_CHANGE:
        found.append(f"edge width changed by {change:+.1%}")
    return found


def blurred_to(before: Volume, flat_sd: float) -> Volume:
    """The volume under the Gaussian that leaves the same noise."""
    low, high = 0.0, 5.0
    for _ in range(8):
        sigma = (low + high) / 2
        after = before.with_voxels(ndimage.gaussian_filter(before.voxels, (0, sigma, sigma)))
        remaining = measure(before, after).flat_sd_after or 0.0
        low, high = (sigma, high) if remaining > flat_sd else (low, sigma)
    return after


def test_geometry_is_unchanged(enhanced: list[tuple[Dataset, Dataset]]) -> None:
    for source, image in enhanced:
        for keyword in GEOMETRY:
            assert image.get(keyword) == source.get(keyword), keyword


def test_noise_is_lower_and_nothing_else_is_changed(volumes: tuple[Volume, Volume]) -> None:
    report = measure(*volumes)
    assert {"soft tissue", "bone"} <= report.bias_hu.keys()
    assert faults(report) == []


def test_padding_stays_padding(volumes: tuple[Volume, Volume]) -> None:
    before, after = volumes
    assert before.valid is not None
    assert after.valid is not None
    np.testing.assert_array_equal(before.valid, after.valid)


def test_a_blur_of_the_same_noise_reduction_is_found_out(volumes: tuple[Volume, Volume]) -> None:
    before, after = volumes
    flat_sd = measure(before, after).flat_sd_after
    assert flat_sd is not None
    assert any("edge width" in fault for fault in faults(measure(before, blurred_to(before, flat_sd))))
