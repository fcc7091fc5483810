"""Scanner to node to PACS with real peers and real CT: nothing altered, one derived series an engine and stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicomnode.testing.node import Node, settings
from dicomnode.testing.objects import data_set_bytes, differing_elements, pixel_digest, validation_errors
from dicomnode.testing.peers import Orthanc, StoreScp, dcmsend, storescu
from dicomnode.testing.sender import RawObject, send_verbatim
from tests.end_to_end.observation import by_series, by_uid, derived, files_of, source_uids, wait_for_instances
from tests.shared import shared_data

ENGINES = ("ct-nlm", "contrast-glcae")
CHAINS = [{"name": f"CT through {name}", "match": {"Modality": "CT"}, "engines": [name]} for name in ENGINES]
SERIES = ("lidc0002", "lidc0003", "kits00072", "head_ge")
"""Each is one stack; head_ge (tilted gantry) has two slice thicknesses and steps."""


def everything_to(destination: str) -> dict[str, object]:
    return {"name": "everything", "match": {"Modality": "*"}, "send": [destination]}


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("orthanc")
@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("send", [storescu, dcmsend])
@pytest.mark.parametrize("series", SERIES)
def test_a_series_arrives_unaltered_and_enhanced(
    tmp_path: Path, pacs: Orthanc, series: str, send: Callable[..., int]
) -> None:
    sources = by_uid(files_of(shared_data(f"ct/dicom/{series}")))
    rules = [everything_to("pacs"), *({**chain, "send_results": ["pacs"]} for chain in CHAINS)]
    with Node(tmp_path / "node", settings({"pacs": pacs}, rules)) as node:
        assert send(node.call(), sources.values()) == 0
        wait_for_instances(node, pacs, len(sources) * (1 + len(ENGINES)))
        assert node.stop() == 0
    files = pacs.files()
    assert_unaltered(files, sources)
    images = derived(files, sources)
    assert len(images) == len(sources) * len(ENGINES)
    assert len(by_series(images.values())) == len(ENGINES)
    for image in images.values():
        assert_valid(image, sources, tmp_path)


def assert_unaltered(files: dict[str, bytes], sources: dict[str, Path]) -> None:
    """Orthanc encodes sequences anew, so elements and pixels are compared, not bytes."""
    for uid, path in sources.items():
        assert differing_elements(dcmread(BytesIO(files[uid])), dcmread(path)) == []
        assert pixel_digest(files[uid]) == pixel_digest(path.read_bytes())


def assert_valid(image: Dataset, sources: dict[str, Path], scratch: Path) -> None:
    """A proper derived image that dciodvfy finds no more faults in than in its source."""
    assert image.ImageType[0] == "DERIVED"
    source_path = sources[source_uids(image)[0]]
    source = dcmread(source_path)
    for keyword in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID", "ImagePositionPatient", "PixelSpacing"):
        assert image.get(keyword) == source.get(keyword), keyword
    assert image.SeriesInstanceUID != source.SeriesInstanceUID
    path = scratch / "derived.dcm"
    image.save_as(path)
    assert validation_errors(path) <= validation_errors(source_path)


@pytest.fixture(name="forwarder", scope="module")
def _forwarder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, StoreScp]]:
    """A node that sends everything on, and what it sends to."""
    folder = tmp_path_factory.mktemp("forwarder")
    with (
        StoreScp(folder / "archive", "ARCHIVE") as archive,
        Node(folder / "node", settings({"archive": archive}, [everything_to("archive")])) as node,
    ):
        yield node, archive


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("series", SERIES)
def test_a_data_set_is_forwarded_byte_for_byte(forwarder: tuple[Node, StoreScp], series: str) -> None:
    node, archive = forwarder
    before = set(files_of(archive.files))
    sources = by_uid(files_of(shared_data(f"ct/dicom/{series}")))
    sent = {uid: RawObject.read(path) for uid, path in sources.items()}
    assert set(send_verbatim(node.call(), sent.values()).values()) == {0}
    node.wait_until_idle()
    received = by_uid(set(files_of(archive.files)) - before)
    assert received.keys() == sent.keys()
    for uid, path in received.items():
        assert data_set_bytes(path.read_bytes()) == sent[uid].data_set


ODD = (
    "ts/CT1_J2KR.dcm",
    "ts/CT1_RLE.dcm",
    "ts/OBXXXX1A_expb.dcm",
    "malformed/MR_small_padded.dcm",
    "malformed/1403-OB.dcm",
    "malformed/2026-03-16-OD-OF-OL.dcm",
    "malformed/invalid-vr-length-test.dcm",
    "malformed/SC_rgb_small_odd.dcm",
    "malformed/GH178.dcm",
    "multiframe_odd/explicit_VR-UN.dcm",
    "nonimage/sr.dcm",
    "nonimage/waveform_ecg.dcm",
)


@pytest.mark.peer("dcmtk")
def test_odd_and_compressed_objects_are_forwarded_byte_for_byte(tmp_path: Path, archive: StoreScp) -> None:
    sent = [RawObject.read(shared_data(f"dicom/{path}")) for path in ODD]
    rule = {"name": "all", "match": {"SOPClassUID": "*"}, "send": ["archive"]}
    with Node(tmp_path / "node", settings({"archive": archive}, [rule])) as node:
        assert set(send_verbatim(node.call(), sent).values()) == {0}
        node.wait_until_idle()
    received = {uid: data_set_bytes(path.read_bytes()) for uid, path in by_uid(files_of(archive.files)).items()}
    assert received.keys() == {each.sop_instance_uid for each in sent}
    changed = [path for path, each in zip(ODD, sent, strict=True) if received[each.sop_instance_uid] != each.data_set]
    assert changed == []
