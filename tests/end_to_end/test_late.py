"""A slice that comes late, and then the rejection of them all, with DCMTK as the scanner and Orthanc as the archive."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.filewriter import dcmwrite

from dicomnode.core.derive.image import writable
from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Orthanc, storescu
from tests.end_to_end.observation import by_series, files_of, source_uids, wait_for_instances
from tests.flow.test_rejections import note
from tests.shared import shared_data

RULES = [
    {"name": "everything", "match": {"Modality": "*"}, "send": ["pacs"]},
    {"name": "contrast", "match": {"Modality": "CT"}, "engines": ["contrast-glcae"], "send_results": ["pacs"]},
]
SLICES = 6


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("orthanc")
def test_what_replaces_arrives_before_what_it_replaces_is_withdrawn(tmp_path: Path, pacs: Orthanc) -> None:
    files = in_order(files_of(shared_data("ct/dicom/lidc0002")))[:SLICES]
    tree = settings({"pacs": pacs}, RULES, destination={"pacs": {"withdraw": True}})
    with Node(tmp_path / "node", tree) as node:
        assert storescu(node.call(), files[:-1]) == 0
        wait_for_instances(node, pacs, 2 * (SLICES - 1))
        (old,) = derived_series(pacs)

        assert storescu(node.call(), files[-1:]) == 0
        wait_for_instances(node, pacs, 2 * SLICES + (SLICES - 1) + 1)
        (new,) = derived_series(pacs).keys() - {old}
        (rejection,) = notes(pacs)
        assert rejected(rejection) == {image.SOPInstanceUID for image in derived_series(pacs)[old]}
        assert {len(source_uids(image)) for image in derived_series(pacs)[new]} == {SLICES}
        assert node.status()["jobs"]["superseded"] == 1

        written = note([dcmread(path, stop_before_pixels=True) for path in files], "113037")
        dcmwrite(tmp_path / "note.dcm", writable(written, written.SOPInstanceUID), enforce_file_format=True)
        assert storescu(node.call(), [tmp_path / "note.dcm"]) == 0
        wait_for_instances(node, pacs, 3 * SLICES + 2)
        theirs, ours = sorted(notes(pacs)[1:], key=lambda one: one.SOPInstanceUID != written.SOPInstanceUID)
        assert rejected(theirs) == {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files}
        assert rejected(ours) == {image.SOPInstanceUID for image in derived_series(pacs)[new]}
        assert ours.ConceptNameCodeSequence[0].CodeValue == "113037"
        assert node.status()["jobs"]["cancelled"] == 1
        assert node.stop() == 0


def in_order(files: list[Path]) -> list[Path]:
    return sorted(files, key=lambda path: float(dcmread(path, stop_before_pixels=True).ImagePositionPatient[2]))


def held(pacs: Orthanc) -> list[Dataset]:
    return [dcmread(BytesIO(content)) for content in pacs.files().values()]


def derived_series(pacs: Orthanc) -> dict[str, list[Dataset]]:
    return by_series(one for one in held(pacs) if one.Modality == "CT" and one.ImageType[0] == "DERIVED")


def notes(pacs: Orthanc) -> list[Dataset]:
    """The rejection notes, the oldest first."""
    found = [one for one in held(pacs) if one.Modality == "KO"]
    return sorted(found, key=lambda one: one.ConceptNameCodeSequence[0].CodeValue)


def rejected(document: Dataset) -> set[str]:
    return {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in document.ContentSequence
        if "ReferencedSOPSequence" in item
    }
