"""Reading stored files that nobody has checked."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode.core.headers import MAX_INFLATED_BYTES, header_of
from dicomnode.errors import DicomNodeError, InputError, NotFoundError, StoreError, UnsupportedError
from dicomnode.pixels import read
from dicomnode.pixels.read import read_dataset, read_header
from tests.pixels.encoded import file_bytes, in_syntax, phantom_slice, stored

DEFLATED = "1.2.840.10008.1.2.1.99"
KEYWORDS = ("SOPInstanceUID", "PatientName", "ImagePositionPatient", "Rows")
WHOLE = file_bytes(phantom_slice(size=16))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", DEFLATED])
def test_header_and_data_set_agree_in_every_encoding(syntax: str, tmp_path: Path) -> None:
    original = phantom_slice()
    path = stored(tmp_path, in_syntax(phantom_slice(), syntax))
    dataset = read_dataset(path, with_pixels=True)
    assert dataset.file_meta.TransferSyntaxUID == syntax
    assert len(dataset.PixelData) == len(original.PixelData)
    assert read_header(path, KEYWORDS) == header_of(dataset, KEYWORDS) == header_of(original, KEYWORDS)


def test_without_pixels_there_are_none(tmp_path: Path) -> None:
    dataset = read_dataset(stored(tmp_path, phantom_slice()), with_pixels=False)
    assert "PixelData" not in dataset
    assert dataset.WindowWidth == 400


@pytest.mark.parametrize(
    "call", [lambda path: read_header(path, KEYWORDS), lambda path: read_dataset(path, with_pixels=True)]
)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a DICOM file"),
        (b"\x00" * 200, "not a DICOM file"),
        (b"\x00" * 128 + b"DICM", "names no transfer syntax"),
        (b"\x00" * 128 + b"DICM\x02\x00\x10\x00UI\x00", "names no transfer syntax"),
        (b"\x00" * 128 + b"DICM\x02\x00\x01\x00OB\x00\x00\xff\xff\xff\xff", "file meta information is damaged"),
        (b"\x00" * 128 + b"DICM\x02\x00\x01\x00OB\x00\x00\xff", "names no transfer syntax"),
    ],
)
def test_what_is_no_dicom_file_is_an_input_error(content: bytes, message: str, call, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        call(path)


def test_a_missing_file_says_so_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as missing:
        read_header(tmp_path / "PHANTOM^DEMO", KEYWORDS)
    assert "PHANTOM" not in str(missing.value)
    with pytest.raises(NotFoundError):
        read_dataset(tmp_path / "x", with_pixels=True)


def test_a_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="IsADirectoryError"):
        read_header(tmp_path, KEYWORDS)


@pytest.mark.parametrize(
    "read_it", [lambda path: read_header(path, ["Modality"]), lambda path: read_dataset(path, with_pixels=False)]
)
def test_a_disk_that_fails_is_not_the_files_fault(
    read_it: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads it later may find it whole: it must not end as unreadable."""
    path = tmp_path / "slice.dcm"
    path.write_bytes(b"")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        read_it(path)


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_FILE_BYTES", 1000)
    with pytest.raises(UnsupportedError):
        read_dataset(stored(tmp_path, phantom_slice()), with_pixels=False)


def test_the_meta_information_needs_no_group_length(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(WHOLE[:132] + WHOLE[144:])
    assert read_header(path, ["PatientName"]) == {"PatientName": ("PHANTOM^DEMO",)}


def test_a_value_that_claims_more_than_the_file_has(tmp_path: Path) -> None:
    at = WHOLE.index(b"\xe0\x7f\x10\x00OW")
    path = tmp_path / "x"
    path.write_bytes(WHOLE[: at + 8] + b"\xfe\xff\xff\xff" + WHOLE[at + 12 :])
    assert len(read_dataset(path, with_pixels=True).get_item("PixelData").value) == 16 * 16 * 2


def test_a_bomb_is_refused_before_it_grows(tmp_path: Path) -> None:
    path = stored(tmp_path, in_syntax(phantom_slice(PixelData=bytes(32 << 20)), DEFLATED))
    with pytest.raises(InputError, match="grows beyond"):
        read_dataset(path, with_pixels=True)
    assert MAX_INFLATED_BYTES < 1 << 30


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(132, len(WHOLE) - 1), st.integers(0, 255)), max_size=12), st.integers(0, len(WHOLE))
)
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, damage: list[tuple[int, int]], length: int) -> None:
    content = bytearray(WHOLE)
    for at, byte in damage:
        content[at] = byte
    path = tmp_path / "x"
    path.write_bytes(content[:length])
    for call in (lambda: read_header(path, KEYWORDS), lambda: read_dataset(path, with_pixels=True)):
        try:
            call()
        except DicomNodeError as error:
            assert isinstance(error, InputError)
            assert "PHANTOM" not in str(error)
