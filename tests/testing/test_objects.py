from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from dicomnode.testing.objects import differing_elements, identifying_texts, pixel_digest
from dicomnode.testing.sender import RawObject

CT_SMALL = Path(str(get_testdata_file("CT_small.dcm")))


def test_differences_are_found_in_sequences_and_private_elements() -> None:
    one, other = dcmread(CT_SMALL), dcmread(CT_SMALL)
    assert differing_elements(one, other) == []
    item = Dataset()
    item.CodeMeaning = "one"
    one.AnatomicRegionSequence, other.AnatomicRegionSequence = [item], [Dataset()]
    other[0x0009, 0x1001].value = "changed"
    assert differing_elements(one, other) == ["(0008,2218)[0](0008,0104)", "(0009,1001)"]


def test_pixel_digest_sees_one_changed_bit(tmp_path: Path) -> None:
    dataset = dcmread(CT_SMALL)
    before = pixel_digest(CT_SMALL.read_bytes())
    dataset.PatientName = "Other"
    dataset.save_as(tmp_path / "same.dcm")
    assert pixel_digest((tmp_path / "same.dcm").read_bytes()) == before
    dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]
    dataset.save_as(tmp_path / "changed.dcm")
    assert pixel_digest((tmp_path / "changed.dcm").read_bytes()) != before


def test_identifying_texts_are_names_ids_dates_and_free_text() -> None:
    texts = identifying_texts([CT_SMALL])
    assert {"CompressedSamples^CT1", "1CT1"} <= texts
    assert "AXIAL" not in texts, "a coded string identifies nobody"


@pytest.mark.parametrize("content", [b"", b"\0" * 128 + b"DICM", b"no DICOM at all"])
def test_what_is_no_dicom_file_can_be_sent_all_the_same(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd").write_bytes(content)
    assert RawObject.read(tmp_path / "odd").data_set == content
