"""Bundles with several inputs and outputs, and with another grid, through the whole node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicomnode.store import bundles
from dicomnode.store.bundles import By
from dicomnode.testing.bundles import Shape, made_bundle
from dicomnode.testing.node import Node, settings
from dicomnode.testing.objects import validation_errors
from dicomnode.testing.peers import StoreScp, storescu
from tests.end_to_end.observation import by_series, files_of, source_uids
from tests.end_to_end.studies import SPACING_MM, phantom_series

PHASES = ("native", "portal", "delayed")
SLICES = 3
STUDY = "2.25.4711"
NEEDS = {name: {"match": {"SeriesDescription": name}} for name in PHASES}
RULES = [
    {"name": "phases", "match": {"Modality": "CT"}, "needs": list(PHASES), "engines": ["random-three-inputs"]},
    {
        "name": "both", "match": {"SeriesDescription": "single"}, "engines": ["random-two-outputs"],
        "deliver": ["random-two-outputs.enhanced", "random-two-outputs"],
    },
    {
        "name": "finer", "match": {"SeriesDescription": "single"}, "engines": ["random-super-resolution"],
        "report": ["capture"],
    },
]  # fmt: skip


def series_of_study(folder: Path, number: int, description: str, slices: int) -> list[Path]:
    """A series of one study; series with other numbers show the same patient with other noise."""
    paths = phantom_series(folder / description, slices, seed=number)
    for path in paths:
        image = dcmread(path)
        image.StudyInstanceUID, image.FrameOfReferenceUID = STUDY, f"{STUDY}.9"
        image.SeriesNumber, image.SeriesDescription = number, description
        image.save_as(path)
    return paths


def node_with(folder: Path, archive: StoreScp, shapes: Sequence[Shape]) -> Node:
    rules = [{**rule, "send_results": ["archive"], "on_gate": "flag"} for rule in RULES]
    node = Node(folder / "node", settings({"archive": archive}, rules, need=NEEDS))
    for shape in shapes:
        (folder / shape).mkdir()
        bundles.add(node.data / "engines", made_bundle(folder / shape, shape), "", By("physicist", 1.7e9))
    return node


@pytest.fixture(name="sent")
def _sent(tmp_path: Path) -> dict[str, list[Path]]:
    phases = {name: series_of_study(tmp_path, number, name, SLICES) for number, name in enumerate(PHASES, 1)}
    return {**phases, "single": series_of_study(tmp_path, 4, "single", 1)}


@pytest.fixture(name="arrived")
def _arrived(tmp_path: Path, archive: StoreScp, sent: dict[str, list[Path]]) -> Iterator[dict[str, list[Path]]]:
    """Files of the derived series that arrived, by their Series Description."""
    with node_with(tmp_path, archive, ("three-inputs", "two-outputs", "super-resolution")) as node:
        for paths in sent.values():
            assert storescu(node.call(), paths) == 0
        node.wait_until_idle()
        assert node.log().count('"job_finished"') == len(RULES), node.tail()
        assert node.stop() == 0
    files = {path: dcmread(path, stop_before_pixels=True) for path in files_of(archive.files)}
    found: dict[str, list[Path]] = {}
    for path, image in files.items():
        found.setdefault(image.SeriesDescription.split(" [")[0], []).append(path)
    yield found


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("dciodvfy")
def test_inputs_outputs_and_grids(sent: dict[str, list[Path]], arrived: dict[str, list[Path]]) -> None:
    assert len(arrived.pop("random-super-resolution@1.0.0 quality page", [])) == 1, list(arrived)
    assert set(arrived) == {
        "Enhanced random-three-inputs native",
        "Enhanced random-two-outputs single",
        "Enhanced random-two-outputs enhanced single",
        "Enhanced random-super-resolution single",
    }
    for paths in arrived.values():
        for path in paths:
            assert validation_errors(path) <= validation_errors(sent["native"][0])
    images = {name: sorted(map(dcmread, paths), key=place) for name, paths in arrived.items()}
    fused = images["Enhanced random-three-inputs native"]
    assert_made_of_all(fused, sent)
    one, other = images["Enhanced random-two-outputs single"], images["Enhanced random-two-outputs enhanced single"]
    assert len(by_series([*one, *other])) == 2
    assert (one[0].SeriesNumber, other[0].SeriesNumber) == (4700, 4701)
    assert not np.array_equal(one[0].pixel_array, other[0].pixel_array)
    assert_finer(images["Enhanced random-super-resolution single"], sent["single"])


def place(image: Dataset) -> float:
    return float(image.ImagePositionPatient[2])


def assert_made_of_all(fused: list[Dataset], sent: dict[str, list[Path]]) -> None:
    """Each slice names the slices at its place of all three series, the enhanced one first."""
    assert len(fused) == SLICES
    sources = {name: [dcmread(path, stop_before_pixels=True) for path in sent[name]] for name in PHASES}
    for index, image in enumerate(fused):
        here = [sources[name][index] for name in ("native", "delayed", "portal")]
        assert source_uids(image) == [one.SOPInstanceUID for one in here]
        assert {item.SpatialLocationsPreserved for item in image.SourceImageSequence} == {"YES"}
        assert [item.SeriesInstanceUID for item in image.ReferencedSeriesSequence] == [
            one.SeriesInstanceUID for one in here
        ]
        assert image.ImagePositionPatient == here[0].ImagePositionPatient


def assert_finer(images: list[Dataset], paths: list[Path]) -> None:
    (image,), (path,) = images, paths
    source = dcmread(path)
    assert (image.Rows, image.Columns) == (2 * source.Rows, 2 * source.Columns)
    assert image.PixelSpacing == [SPACING_MM / 2, SPACING_MM / 2]
    shift = SPACING_MM / 4
    x, y, z = source.ImagePositionPatient
    assert image.ImagePositionPatient == [x - shift, y - shift, z]
    assert image.SourceImageSequence[0].SpatialLocationsPreserved == "NO"
    means = image.pixel_array.reshape(source.Rows, 2, source.Columns, 2).mean(axis=(1, 3))
    unclipped = source.pixel_array > 500
    assert np.abs(means - source.pixel_array)[unclipped].max() <= 0.5
