from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from dicomnode.testing.objects import data_set_bytes, pixel_digest, validation_errors
from dicomnode.testing.peers import Call, Orthanc, StoreScp, dcmsend, echoscu, storescu
from dicomnode.testing.sender import NoContextError, RawObject, echo, send_verbatim

CT_SMALL = Path(str(get_testdata_file("CT_small.dcm")))
MR_SMALL = Path(str(get_testdata_file("MR_small.dcm")))


@pytest.mark.peer("orthanc")
def test_orthanc_keeps_what_it_was_sent_over_a_restart(tmp_path: Path) -> None:
    sent = [RawObject.read(CT_SMALL), RawObject.read(MR_SMALL)]
    with Orthanc(tmp_path / "orthanc") as orthanc:
        call = Call(orthanc.port, orthanc.ae_title, "TESTER")
        assert echo(call)
        assert set(send_verbatim(call, sent).values()) == {0}
        orthanc.stop()
        assert not echo(call)
        orthanc.start()
        assert orthanc.sop_instance_uids() == sorted(each.sop_instance_uid for each in sent)
        assert orthanc.pixel_digests()[sent[0].sop_instance_uid] == pixel_digest(CT_SMALL.read_bytes())


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("send", [storescu, dcmsend])
def test_storescp_keeps_the_bytes_that_dcmtk_sends(tmp_path: Path, send: object) -> None:
    with StoreScp(tmp_path) as storescp:
        call = Call(storescp.port, storescp.ae_title, "TESTER")
        assert echoscu(call) == 0
        assert callable(send)
        assert send(call, [CT_SMALL]) == 0
        (received,) = storescp.files.iterdir()
        assert dcmread(received).SOPInstanceUID == dcmread(CT_SMALL).SOPInstanceUID


@pytest.mark.peer("dcmtk")
def test_the_raw_sender_changes_no_byte(tmp_path: Path) -> None:
    broken = RawObject.read(CT_SMALL)
    broken = RawObject(broken.sop_class_uid, broken.sop_instance_uid, broken.transfer_syntax_uid, broken.data_set[:-4])
    with StoreScp(tmp_path) as storescp:
        call = Call(storescp.port, storescp.ae_title, "TESTER")
        assert send_verbatim(call, [broken]) == {broken.sop_instance_uid: 0}
        (received,) = storescp.files.iterdir()
        assert data_set_bytes(received.read_bytes()) == broken.data_set


@pytest.mark.peer("orthanc")
def test_a_refused_context_is_told_from_a_refused_instance(tmp_path: Path) -> None:
    sent = RawObject("1.2.3.4.5.6", "1.2.3", "1.2.840.10008.1.2.1", b"")
    with Orthanc(tmp_path) as orthanc, pytest.raises(NoContextError):
        send_verbatim(Call(orthanc.port, orthanc.ae_title, "TESTER"), [sent])


@pytest.mark.peer("dciodvfy")
def test_dciodvfy_finds_what_is_missing(tmp_path: Path) -> None:
    dataset = dcmread(CT_SMALL)
    del dataset.Rows
    dataset.save_as(tmp_path / "broken.dcm")
    assert any("Rows" in error for error in validation_errors(tmp_path / "broken.dcm") - validation_errors(CT_SMALL))
