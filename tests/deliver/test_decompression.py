"""Compressed objects at a destination that takes only uncompressed ones: the pixels of an independent decoder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.core.types import Outcome, Receipt
from dicomnode.deliver.decoding import WorkerTranscoder
from dicomnode.deliver.dicom import DeliverySettings, DicomDeliverer
from dicomnode.deliver.forms import Allowed
from dicomnode.net.scu import PeerAddress
from dicomnode.operations.files import as_outgoing
from dicomnode.testing.peers import StoreScp
from dicomnode.testing.processes import wait_until
from dicomnode.workers import WorkerProcess
from tests.shared import shared_data

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_OF_PIXELS: Final = {0x00280002, 0x00280004, 0x00280006, 0x00280100, 0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00010}

LOSSLESS: Final = {
    "ts/CT1_RLE.dcm": "dcmdrle",
    "ts/US1_RLE.dcm": "dcmdrle",
    "ts/emri_small_RLE.dcm": "dcmdrle",
    "malformed/D_CLUNIE_CT1_RLE_FRAGS.dcm": "dcmdrle",
    "ts/CT1_JPLL.dcm": "dcmdjpeg",
    "ts/1.2.840.10008.1.2.4.57.dcm": "dcmdjpeg",
    "ts/CT1_JLSL.dcm": "dcmdjpls",
    "ts/CT1_JLSN.dcm": "dcmdjpls",
    "ts/JPEGLSNearLossless_16.dcm": "dcmdjpls",
}
"""What DCMTK decodes to the very values that we must have."""

LOSSY: Final = {
    "ts/MR1_JPLY.dcm": 2,
    "ts/RG2_JPLY.dcm": 2,
    "ts/examples_ybr_color.dcm": 6,
    "multiframe_odd/JPEGwithIcon.dcm": 6,
    "multiframe_odd/HasFragmentSequence.dcm": 2,
}
"""What JPEG decoders may round differently, and by how much at most."""

OTHERS: Final = ("ts/CT1_J2KR.dcm", "ts/CT1_J2KI.dcm", "ts/HTJ2KLossless_08_RGB.dcm", "ts/HTJ2K_08_RGB.dcm")
"""What DCMTK does not decode."""


@pytest.fixture(name="transcoder", scope="module")
def _transcoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerTranscoder]:
    with closing(WorkerProcess("dicomnode.pixels.service", 2 << 30)) as worker:
        yield WorkerTranscoder(worker, tmp_path_factory.mktemp("decoded"))


def sent(path: Path, folder: Path, transcoder: WorkerTranscoder, *options: str) -> tuple[Receipt, Dataset | None]:
    """Send one object to a storescp that takes nothing compressed; the receipt, and what arrived."""
    with StoreScp(folder, options=("+B", *options)) as scp:
        address = PeerAddress("127.0.0.1", scp.port, scp.ae_title)
        with closing(DicomDeliverer(address, transcoder=transcoder)) as sender:
            receipts = [each for known in sender.deliver([as_outgoing(1, path, "NODE")]) for each in known]
        if not receipts[0].outcome.arrived:
            return receipts[0], None
        wait_until(lambda: any(scp.files.iterdir()), 20, "it was written")
        (file,) = scp.files.iterdir()
        return receipts[0], pydicom.dcmread(file)


def decoded_by(program: str, path: Path, folder: Path) -> Dataset:
    out = folder / "reference.dcm"
    subprocess.run([program, str(path), str(out)], check=True, capture_output=True)
    return pydicom.dcmread(out)


def same_elsewhere(source: Path, arrived: Dataset) -> bool:
    """Whether every element that does not describe the pixels has the value that it had, but for group lengths."""
    original = pydicom.dcmread(source)
    kept = [element for element in original if element.tag not in _OF_PIXELS and element.tag.element]
    return [element for element in arrived if element.tag not in _OF_PIXELS] == kept


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_pixels_are_those_of_dcmtk(name: str, tmp_path: Path, transcoder: WorkerTranscoder) -> None:
    path = shared_data("dicom") / name
    receipt, arrived = sent(path, tmp_path, transcoder)
    assert receipt.outcome is Outcome.SENT
    assert arrived is not None
    reference = decoded_by(LOSSLESS[name], path, tmp_path)
    assert arrived.file_meta.TransferSyntaxUID == EXPLICIT
    assert np.array_equal(arrived.pixel_array, reference.pixel_array)
    assert arrived.PhotometricInterpretation == reference.PhotometricInterpretation
    assert same_elsewhere(path, arrived)


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("name", LOSSY)
def test_lossy_pixels_are_those_of_dcmtk_but_for_rounding(
    name: str, tmp_path: Path, transcoder: WorkerTranscoder
) -> None:
    path = shared_data("dicom") / name
    receipt, arrived = sent(path, tmp_path, transcoder)
    assert receipt.outcome is Outcome.SENT
    assert arrived is not None
    reference = decoded_by("dcmdjpeg", path, tmp_path)
    assert arrived.PhotometricInterpretation == reference.PhotometricInterpretation
    difference = np.abs(arrived.pixel_array.astype(int) - reference.pixel_array.astype(int))
    assert difference.mean() < 1
    assert np.percentile(difference, 99) <= LOSSY[name]
    assert arrived.LossyImageCompression == "01", "one of these does not say so itself: its syntax did"
    assert len(arrived.PixelData) % 2 == 0
    assert "IconImageSequence" not in arrived or "PixelData" in arrived.IconImageSequence[0]


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("name", OTHERS)
def test_other_codecs_are_decoded_too(name: str, tmp_path: Path, transcoder: WorkerTranscoder) -> None:
    path = shared_data("dicom") / name
    _, arrived = sent(path, tmp_path, transcoder)
    assert arrived is not None
    assert np.array_equal(arrived.pixel_array, pydicom.dcmread(path).pixel_array)
    assert same_elsewhere(path, arrived)


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("name", ["ts/CT1_RLE.dcm", "ts/US1_RLE.dcm"])
def test_a_destination_of_implicit_vr_alone(name: str, tmp_path: Path, transcoder: WorkerTranscoder) -> None:
    path = shared_data("dicom") / name
    _, arrived = sent(path, tmp_path, transcoder, "+xi")
    assert arrived is not None
    assert arrived.file_meta.TransferSyntaxUID == IMPLICIT
    assert np.array_equal(arrived.pixel_array, pydicom.dcmread(path).pixel_array)


@pytest.mark.peer("dcmtk")
def test_what_is_accepted_as_it_is_stays_compressed(tmp_path: Path, transcoder: WorkerTranscoder) -> None:
    path = shared_data("dicom/ts") / "CT1_RLE.dcm"
    _, arrived = sent(path, tmp_path, transcoder, "+xa")
    assert arrived is not None
    assert arrived.PixelData == pydicom.dcmread(path).PixelData


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize(
    "name",
    [
        "malformed/JPEG2000-embedded-sequence-delimiter.dcm",
        "multiframe_odd/multiframe.dcm",  # some of its frames are smaller than it says
    ],
)
def test_what_cannot_be_decoded_costs_only_itself(name: str, tmp_path: Path, transcoder: WorkerTranscoder) -> None:
    receipt, arrived = sent(shared_data("dicom") / name, tmp_path, transcoder)
    assert arrived is None
    assert (receipt.outcome, receipt.status, receipt.transient) == (Outcome.FAILED, None, False)


@pytest.mark.peer("dcmtk")
def test_nothing_is_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "decoded"
    folder.mkdir()
    with closing(WorkerProcess("dicomnode.pixels.service", 2 << 30)) as worker:
        sent(shared_data("dicom/ts") / "CT1_RLE.dcm", tmp_path, WorkerTranscoder(worker, folder))
    assert not list(folder.iterdir())


@pytest.mark.peer("dcmtk")
def test_a_destination_that_may_have_nothing_uncompressed(tmp_path: Path, transcoder: WorkerTranscoder) -> None:
    path = shared_data("dicom/ts") / "CT1_RLE.dcm"
    row = as_outgoing(1, path, "NODE")
    settings = replace(DeliverySettings(), allowed=Allowed(None, frozenset({row.transfer_syntax_uid})))
    with StoreScp(tmp_path, options=()) as scp:
        address = PeerAddress("127.0.0.1", scp.port, scp.ae_title)
        with closing(DicomDeliverer(address, settings, transcoder)) as sender:
            ((receipt,),) = [known for known in sender.deliver([row]) if known]
    assert receipt.outcome is Outcome.FAILED
