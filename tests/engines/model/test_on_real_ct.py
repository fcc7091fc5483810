"""Bundles of random weights on real CT: what they make passes the gates, in tiles as at once."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from dicomnode.core import guards
from dicomnode.testing.bundles import Shape, engine_of, made
from engines.findings import Findings
from engines.model.chain import Portions
from engines.volume import HU, Mask, Volume
from tests.shared import shared_data

SERIES = ("lidc0002", "head_ge")


def read(name: str) -> Volume:
    """Three slices from the middle of a series, by position."""
    files = [pydicom.dcmread(path) for path in sorted(shared_data(f"ct/dicom/{name}").glob("*.dcm"))]
    files.sort(key=lambda file: float(file.ImagePositionPatient[2]))
    files = files[len(files) // 2 :][:3]
    stored = np.stack([file.pixel_array.astype(np.int32) for file in files])
    hu = stored * float(files[0].RescaleSlope) + float(files[0].RescaleIntercept)
    rows_mm, columns_mm = (float(value) for value in files[0].PixelSpacing)
    affine = np.diag([columns_mm, rows_mm, float(files[0].SliceThickness), 1.0])
    return Volume(hu.astype(np.float32), affine, HU, stored != int(files[0].PixelPaddingValue))


@pytest.fixture(scope="module", params=SERIES)
def source(request: pytest.FixtureRequest) -> Volume:
    return read(request.param)


@pytest.mark.parametrize("name", ["two-stages", "two-outputs", "adjacent"])
def test_a_denoiser_passes_the_gate(source: Volume, name: Shape) -> None:
    subject = made(name)
    with engine_of(subject) as engine:
        output = engine.run({"image": source}, {})["image"]
    assert isinstance(output, Volume)
    report = guards.after(subject.card, source, output)
    assert report.reasons == ()
    assert np.abs(output.voxels - source.voxels).max() > 1.0


@pytest.mark.parametrize("name", ["two-stages", "super-resolution"])
def test_tiles_of_a_real_slice_leave_no_seam(source: Volume, name: Shape) -> None:
    subject = made(name)
    with engine_of(subject) as whole, engine_of(subject, Portions(slices=1, tile_px=200)) as tiled:
        expected = whole.run({"image": source}, {})
        found = tiled.run({"image": source}, {})
    for output, volume in expected.items():
        assert isinstance(volume, Volume)
        same = found[output]
        assert isinstance(same, Volume)
        assert np.abs(same.voxels - volume.voxels).max() < 0.01


def test_super_resolution_keeps_every_value(source: Volume) -> None:
    subject = made("super-resolution")
    with engine_of(subject) as engine:
        fine = engine.run({"image": source}, {})["image"]
    assert isinstance(fine, Volume)
    slices, rows, columns = source.shape
    means = fine.voxels.reshape(slices, rows, 2, columns, 2).mean(axis=(2, 4))
    assert source.valid is not None
    assert np.abs(means - source.voxels)[source.valid].max() < 0.01
    assert guards.after(subject.card, source, fine).reasons == ()


def test_bone_is_found_and_labelled(source: Volume) -> None:
    detector, segmenter = made("detect"), made("segment")
    with engine_of(detector) as engine:
        findings = engine.run({"image": source}, engine.card.resolve({}))["findings"]
    with engine_of(segmenter) as engine:
        mask = engine.run(dict.fromkeys(segmenter.card.inputs, source), {})["mask"]
    assert isinstance(findings, Findings) and isinstance(mask, Mask)
    assert findings.items
    for finding in findings.items:
        left, top, right, bottom = (round(side) for side in finding.box)
        assert source.voxels[finding.slice_index, top : bottom + 1, left : right + 1].max() > 400.0
    bone = mask.labels == 2
    assert source.valid is not None
    assert np.mean((source.voxels > 300.0)[source.valid] == bone[source.valid]) > 0.999
