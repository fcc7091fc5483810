"""Delivery to peers as they are: DCMTK's storescp in its moods, and Orthanc."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomnode.core.types import Outcome, Outgoing, Receipt
from dicomnode.deliver.dicom import DeliverySettings, DicomDeliverer
from dicomnode.errors import AssociationRejectedError, PeerError
from dicomnode.net.scu import PeerAddress, Timeouts
from dicomnode.testing.peers import EXACT_AND_FORKING, Orthanc, StoreScp
from dicomnode.testing.processes import wait_until

SETTINGS = DeliverySettings(Timeouts(5, 20, 30))
Rows = Callable[[int], list[Outgoing]]


@pytest.fixture(name="rows")
def _rows(tmp_path: Path) -> Rows:
    """Makes CT objects of 200 KB."""

    def make(count: int) -> list[Outgoing]:
        made = []
        for number in range(1, count + 1):
            data_set = Dataset()
            data_set.SOPClassUID, data_set.SOPInstanceUID = CTImageStorage, f"1.2.3.{number}"
            data_set.StudyInstanceUID, data_set.SeriesInstanceUID, data_set.PatientID = "1.2.1", "1.2.2", "nobody"
            data_set.Rows = data_set.Columns = 320
            data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation = 16, 12, 11, 0
            data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
            data_set.PixelData = bytes(2 * 320 * 320)
            data_set.file_meta, data_set.preamble = FileMetaDataset(), bytes(128)
            data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            path = tmp_path / f"{number}.dcm"
            dcmwrite(path, data_set)
            made.append(
                Outgoing(number, path, str(CTImageStorage), f"1.2.3.{number}", str(ExplicitVRLittleEndian), "NODE")
            )
        return made

    return make


def deliver(peer: StoreScp | Orthanc, rows: Sequence[Outgoing], receipts: list[Receipt]) -> None:
    address = PeerAddress("127.0.0.1", peer.port, peer.ae_title)
    with closing(DicomDeliverer(address, SETTINGS)) as sender:
        for known in sender.deliver(rows):
            receipts.extend(known)


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize(
    "options",
    [
        (),  # one association at a time: the others wait until it ends
        ("-pdu", "4096"),
        ("-pdu", "131072"),
        EXACT_AND_FORKING,
        (*EXACT_AND_FORKING, "-pdu", "28672"),
        (*EXACT_AND_FORKING, "-pdu", "131072"),
        (*EXACT_AND_FORKING, "+xi"),
    ],
    ids=" ".join,
)
def test_everything_arrives_once(options: tuple[str, ...], rows: Rows, tmp_path: Path) -> None:
    receipts: list[Receipt] = []
    with StoreScp(tmp_path / "scp", options=options) as scp:
        deliver(scp, rows(24), receipts)
        wait_until(lambda: len(list(scp.files.iterdir())) == 24, 20, "all were written")
    assert sorted((each.outbox_id, each.outcome) for each in receipts) == [(n, Outcome.SENT) for n in range(1, 25)]


@pytest.mark.peer("orthanc")
def test_orthanc_has_everything_once(rows: Rows, tmp_path: Path) -> None:
    receipts: list[Receipt] = []
    with Orthanc(tmp_path / "orthanc") as peer:
        deliver(peer, rows(24), receipts)
        assert peer.sop_instance_uids() == sorted(f"1.2.3.{number}" for number in range(1, 25))
    assert {each.outcome for each in receipts} == {Outcome.SENT}


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("option", ["--abort-after", "--abort-during"])
def test_a_destination_that_aborts_everything_is_down(option: str, rows: Rows, tmp_path: Path) -> None:
    receipts: list[Receipt] = []
    with StoreScp(tmp_path / "scp", options=(option, "--fork")) as scp, pytest.raises(PeerError):
        deliver(scp, rows(24), receipts)
    assert receipts
    assert all(each.outcome is Outcome.ABORTED and each.transient for each in receipts)
    assert len({each.outbox_id for each in receipts}) == len(receipts) < 24


@pytest.mark.peer("dcmtk")
def test_a_destination_that_refuses_associations(rows: Rows, tmp_path: Path) -> None:
    receipts: list[Receipt] = []
    with StoreScp(tmp_path / "scp", options=("--refuse",)) as scp, pytest.raises(AssociationRejectedError):
        deliver(scp, rows(8), receipts)
    assert receipts == []
