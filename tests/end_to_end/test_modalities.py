"""Routing by modality is real: a radiograph and an MR go to the contrast engine and come back as valid images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.testing.node import Node, settings
from dicomnode.testing.objects import validation_errors
from dicomnode.testing.peers import Orthanc
from dicomnode.testing.sender import RawObject, send_verbatim
from tests.end_to_end.observation import by_uid, derived, source_uids, wait_for_instances
from tests.shared import shared_data

RULES = [
    {"name": "CT", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"]},
    {"name": "others", "match": {"Modality": ["CR", "DX", "MR"]}, "engines": ["contrast-glcae"], "send": ["pacs"]},
]
SOURCES = {
    "CR": "dicom/ts/RG2_JPLY.dcm",
    "CR with MONOCHROME1": "dicom/multiframe_odd/CR-ModalitySequenceLUT.dcm",
    "MR": "dicom/multiframe_odd/MR-SIEMENS-DICOM-WithOverlays.dcm",
    "MR, JPEG lossless": "dicom/ts/1.2.840.10008.1.2.4.57.dcm",
}


def under_its_file_s_uid(path: Path, folder: Path) -> Path:
    """A copy whose data set has the UID that its File Meta Information gives; one of the files has an illegal one."""
    dataset = dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.save_as(folder / "source.dcm")
    return folder / "source.dcm"


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Orthanc]]:
    """A node, and the PACS behind it."""
    folder = tmp_path_factory.mktemp("site")
    with Orthanc(folder / "pacs", "PACS") as pacs, Node(folder / "node", settings({"pacs": pacs}, RULES)) as node:
        yield node, pacs


@pytest.mark.peer("orthanc")
@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("path", SOURCES.values(), ids=SOURCES)
def test_an_image_of_another_modality_comes_back_valid(tmp_path: Path, site: tuple[Node, Orthanc], path: str) -> None:
    node, pacs = site
    held = pacs.sop_instance_uids()
    sources = by_uid([under_its_file_s_uid(shared_data(path), tmp_path)])
    sent = [RawObject.read(source) for source in sources.values()]
    assert set(send_verbatim(node.call(), sent).values()) == {0}
    wait_for_instances(node, pacs, len(held) + 2)
    (image,) = derived(pacs.files(), {*held, *sources}).values()
    (source_uid,) = source_uids(image)
    source = dcmread(sources[source_uid])
    assert (image.SOPClassUID, image.Modality) == (source.SOPClassUID, source.Modality)
    assert (image.Rows, image.Columns) == (source.Rows, source.Columns)
    assert image.PhotometricInterpretation == source.PhotometricInterpretation
    assert image.pixel_array.std() > 0
    assert "ModalityLUTSequence" not in image, "its input values are no longer what the pixels hold"
    image.save_as(tmp_path / "derived.dcm")
    assert validation_errors(tmp_path / "derived.dcm") <= validation_errors(sources[source_uid])
