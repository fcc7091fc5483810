"""Re-encoding uncompressed data sets: every value keeps its bytes, whatever pydicom thinks of it."""

from __future__ import annotations

import contextlib
import io
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomnode.errors import InputError, UnsupportedError
from dicomnode.net.part10 import read_file_meta
from dicomnode.net.transcode import reencode
from tests.shared import shared_data


def parse(encoded: bytes, syntax: str) -> Dataset:
    return read_dataset(io.BytesIO(encoded), syntax == ImplicitVRLittleEndian, True)


def stored(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(read_file_meta(file).offset_bytes)
        return file.read()


def written(folder: Path, data_set: Dataset, syntax: str) -> Path:
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = UID(syntax)
    data_set.preamble = bytes(128)
    path = folder / "written.dcm"
    dcmwrite(path, data_set, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian)
    return path


def nested(folder: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Sequences of defined and undefined length, private elements, words of every width."""
    inner = Dataset()
    inner.add_new(0x00080104, "LO", "inner")
    item = Dataset()
    item.add_new(0x00081140, "SQ", [inner])
    item.add_new(0x00280103, "US", 1)
    item.add_new(0x00280106, "SS", -5)
    data_set = Dataset()
    data_set.add_new(0x00080060, "CS", "CT")
    data_set.add_new(0x00090010, "LO", "ACME")
    data_set.add_new(0x00091001, "OB", b"\x01\x02\x03\x04")
    data_set.add_new(0x00186020, "SL", [-1, 2])
    data_set.add_new(0x00189089, "FD", [1.5, -2.5, 3.25])
    data_set.add_new(0x0020000E, "UI", "1.2.3")
    data_set.add_new(0x00280009, "AT", 0x00181063)
    data_set.add_new(0x00280100, "US", 16)
    data_set.add_new(0x00280103, "US", 0)
    data_set.add_new(0x00400275, "SQ", [item, Dataset()])
    data_set["00400275"].is_undefined_length = True
    data_set.add_new(0x7FE00010, "OW", b"\x01\x02\x03\x04\x05\x06")
    return written(folder, data_set, syntax)


@pytest.mark.parametrize("target", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("source", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_values_survive(source: str, target: str, tmp_path: Path) -> None:
    read = parse(reencode(nested(tmp_path, source), target), target)
    assert read.Modality == "CT"
    assert list(read[0x00186020].value) == [-1, 2]
    assert list(read[0x00189089].value) == [1.5, -2.5, 3.25]
    assert read.FrameIncrementPointer == 0x00181063
    assert read.RequestAttributesSequence[0].SmallestImagePixelValue == -5
    assert read.RequestAttributesSequence[0][0x00081140][0].CodeMeaning == "inner"
    assert len(read.RequestAttributesSequence) == 2
    assert bytes(read[0x00091001].value) == b"\x01\x02\x03\x04"
    swapped = b"\x02\x01\x04\x03\x06\x05"  # pydicom writes OW bytes as they are given, in either byte order
    assert read.PixelData == (swapped if source == ExplicitVRBigEndian else b"\x01\x02\x03\x04\x05\x06")


@pytest.mark.parametrize("folder", ["ct/dicom/kits00072", "ct/dicom/head_ge", "dicom/charset", "dicom/nonimage"])
def test_there_and_back_is_where_it_began(folder: str, tmp_path: Path) -> None:
    """Explicit -> implicit -> explicit loses private VRs (they become UN) and group lengths, and nothing else."""
    for path in sorted(shared_data(folder).glob("*.dcm")):
        with contextlib.suppress(UnsupportedError, InputError):
            implicit = reencode(path, ImplicitVRLittleEndian)
            before, after = parse(stored(path), ExplicitVRLittleEndian), parse(implicit, ImplicitVRLittleEndian)
            tags = [tag for tag in before if tag.tag.element]
            assert [element.tag for element in tags] == [element.tag for element in after]
            if before.get("PixelData") is not None:
                assert before.PixelData == after.PixelData


def test_text_that_cannot_be_decoded_keeps_its_bytes(tmp_path: Path) -> None:
    path = nested(tmp_path)
    broken = b"\x1b$B\xff\xfe!!"
    path.write_bytes(path.read_bytes().replace(b"inner ", broken[:6]))
    assert broken[:6] in reencode(path, ImplicitVRLittleEndian)


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "image_dfl.dcm", "MR_small.dcm", "MR_small_implicit.dcm"])
def test_pixels_survive(name: str, tmp_path: Path) -> None:
    path = Path(str(get_testdata_file(name)))
    reference = dcmread(path)
    for target in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        read = parse(reencode(path, target), target)
        read.file_meta = FileMetaDataset()
        read.file_meta.TransferSyntaxUID = target
        assert (read.pixel_array == reference.pixel_array).all()


def test_the_same_syntax_is_the_same_bytes(tmp_path: Path) -> None:
    path = nested(tmp_path)
    assert reencode(path, ExplicitVRLittleEndian) == stored(path)


def deflated(folder: Path, content: bytes) -> Path:
    path = folder / "deflated.dcm"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    head = Dataset()
    head.file_meta, head.preamble = meta, bytes(128)
    dcmwrite(path, head)
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    with path.open("r+b") as file:
        file.seek(read_file_meta(file).offset_bytes)
        file.truncate()
        file.write(compressor.compress(content) + compressor.flush())
    return path


def test_deflated_is_inflated_within_limits(tmp_path: Path) -> None:
    content = stored(nested(tmp_path))
    assert reencode(deflated(tmp_path, content), ExplicitVRLittleEndian) == content
    with pytest.raises(InputError, match="100 times"):
        reencode(deflated(tmp_path, bytes(10_000_000)), ExplicitVRLittleEndian)


@pytest.mark.parametrize("cut", [3, 30, 200])
def test_what_ends_early_is_refused(cut: int, tmp_path: Path) -> None:
    path = nested(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError):
        reencode(path, ImplicitVRLittleEndian)


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    path = nested(tmp_path)
    level = bytes.fromhex("08004011 5351 0000 ffffffff feff00e0 ffffffff")
    path.write_bytes(path.read_bytes()[: -len(stored(path))] + level * 5000)
    with pytest.raises(InputError, match="nested deeper than 64"):
        reencode(path, ImplicitVRLittleEndian)


def test_compressed_is_not_ours_to_change() -> None:
    path = shared_data("dicom/ts/CT1_JPLL.dcm")
    with pytest.raises(UnsupportedError):
        reencode(path, ImplicitVRLittleEndian)


@pytest.fixture(scope="module", params=[ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nested(tmp_path_factory.mktemp("whole"), request.param)


@settings(deadline=None, max_examples=200)
@given(place=st.integers(0, 10_000), noise=st.binary(min_size=1, max_size=12))
def test_damage_is_refused_or_carried(whole: Path, place: int, noise: bytes) -> None:
    content, size = whole.read_bytes(), len(stored(whole))
    start = len(content) - size + place % size
    damaged = whole.with_name("damaged.dcm")
    damaged.write_bytes(content[:start] + noise + content[start + len(noise) :])
    for target in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        with contextlib.suppress(InputError):
            reencode(damaged, target)
