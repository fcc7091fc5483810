"""Pixel data to stored values, in every transfer syntax, and what is refused before a decoder sees it."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from dicomnode.errors import InputError, UnsupportedError
from dicomnode.pixels.decode import decode
from dicomnode.pixels.limits import FrameShape, check_encoded, check_shape, codestream_size
from dicomnode.pixels.read import read_dataset
from tests.pixels.encoded import in_syntax, phantom_slice
from tests.shared import shared_data

JPEG_LS, JPEG_2000, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"


def phantom_values(dataset: Dataset) -> np.ndarray:
    return np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns)


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", JPEG_LS, JPEG_2000, RLE]
)
def test_the_same_values_in_every_lossless_syntax(syntax: str) -> None:
    values = decode(in_syntax(phantom_slice(), syntax))
    assert values.dtype == np.int32
    assert (values == phantom_values(phantom_slice())).all()


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70",
        JPEG_LS, "1.2.840.10008.1.2.4.81", JPEG_2000, "1.2.840.10008.1.2.4.91", RLE,
        "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203",
    ],
)  # fmt: skip
def test_there_is_a_decoder_for(syntax: str) -> None:
    assert get_decoder(syntax).is_available


@pytest.mark.parametrize(
    ("signed", "stored_bits", "expected"),
    [(0, 0xF123, 0x123), (1, 0xF123, 0x123), (1, 0x0FFF, -1), (1, 0xF800, -2048), (0, 0x0FFF, 4095)],
)
def test_bits_above_high_bit_are_masked_and_the_sign_is_kept(signed: int, stored_bits: int, expected: int) -> None:
    dataset = phantom_slice(size=2, BitsStored=12, HighBit=11, PixelRepresentation=signed)
    dataset.PixelData = struct.pack("<4H", *[stored_bits] * 4)
    assert decode(dataset).tolist() == [[expected] * 2] * 2


def test_bits_below_the_lowest_are_dropped() -> None:
    dataset = phantom_slice(size=2, BitsStored=12, HighBit=15, PixelRepresentation=0)
    dataset.PixelData = struct.pack("<4H", *[0x123F] * 4)
    assert decode(dataset).tolist() == [[0x123] * 2] * 2


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"NumberOfFrames": 2}, UnsupportedError),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, UnsupportedError),
        ({"SamplesPerPixel": 3}, UnsupportedError),
        ({"BitsAllocated": 32}, UnsupportedError),
        ({"Rows": 65535, "Columns": 65535}, UnsupportedError),
        ({"Rows": 0}, InputError),
        ({"Rows": 33}, InputError),
        ({"Columns": None}, InputError),
        ({"BitsStored": 17}, InputError),
        ({"BitsStored": 0}, InputError),
        ({"HighBit": 16}, InputError),
        ({"HighBit": 3}, InputError),
        ({"PixelData": b""}, InputError),
        ({"PixelData": None}, InputError),
    ],
)
def test_refused_before_decoding(attributes: dict[str, object], error: type[InputError]) -> None:
    with pytest.raises(error):
        decode(phantom_slice(**attributes))


def test_no_pixel_data_at_all() -> None:
    dataset = phantom_slice()
    del dataset.PixelData
    with pytest.raises(UnsupportedError, match="no pixel data"):
        decode(dataset)


@pytest.mark.parametrize("syntax", ["1.2.3.4.5", "1.2.840.10008.1.2.4.100"])
def test_a_transfer_syntax_without_a_decoder(syntax: str) -> None:
    dataset = phantom_slice()
    dataset.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(UnsupportedError, match="no decoder"):
        decode(dataset)


@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_2000])
def test_a_compressed_frame_of_another_size_than_the_data_set_says(syntax: str) -> None:
    dataset = in_syntax(phantom_slice(size=32), syntax)
    dataset.Rows = 16
    with pytest.raises(InputError):
        decode(dataset)


@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_2000, RLE])
def test_a_codestream_of_noise_is_an_input_error(syntax: str) -> None:
    dataset = phantom_slice(PixelData=encapsulate([np.random.default_rng(3).bytes(4000)]))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(InputError):
        decode(dataset)


def test_a_huge_claim_within_a_few_bytes_of_rle() -> None:
    shape = FrameShape(8000, 8000, 16, 16, 15, signed=False)
    check_shape(shape)
    with pytest.raises(InputError, match="at least"):
        check_encoded(shape, RLE, bytes(8000))


@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_2000])
def test_the_size_that_a_codestream_claims(syntax: str) -> None:
    dataset = in_syntax(phantom_slice(size=40), syntax)
    assert codestream_size(bytes(dataset.PixelData)[16:]) == (40, 40)


@pytest.mark.parametrize(
    "noise", [b"", b"\xff\xd8", b"\xff\xd8\xff\xff\xff\xff", b"\xff\x4f\xff\x51\x00", b"\xff\xd8\xff\xc0\x00"]
)
def test_no_size_is_claimed_by(noise: bytes) -> None:
    assert codestream_size(noise) is None


@pytest.mark.parametrize("name", ["CT1_J2KR", "CT1_JLSL", "CT1_JPLL", "CT1_RLE"])
def test_one_ct_in_four_lossless_syntaxes(name: str) -> None:
    values = decode(read_dataset(shared_data(f"dicom/ts/{name}.dcm"), with_pixels=True))
    reference = decode(read_dataset(shared_data("dicom/ts/CT1_RLE.dcm"), with_pixels=True))
    assert values.min() == -2000
    assert (values == reference).all()


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("name", ["MR1_JPLY", "RG2_JPLY"])
def test_twelve_bit_jpeg_as_dcmtk_decodes_it(name: str, tmp_path: Path) -> None:
    path = shared_data(f"dicom/ts/{name}.dcm")
    subprocess.run(["dcmdjpeg", path, tmp_path / "plain.dcm"], check=True, capture_output=True)
    expected = decode(read_dataset(tmp_path / "plain.dcm", with_pixels=True))
    assert (decode(read_dataset(path, with_pixels=True)) == expected).all()


_EACH_FILE = """
import json, resource, sys, collections
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from pathlib import Path
from dicomnode.errors import InputError
from dicomnode.pixels.decode import decode
from dicomnode.pixels.read import quiet_pydicom, read_dataset
quiet_pydicom()
outcomes, others = collections.Counter(), []
for path in sorted(Path(sys.argv[1]).rglob("*.*")):
    try:
        decode(read_dataset(path, with_pixels=True))
        outcomes["decoded"] += 1
    except InputError:
        outcomes["refused"] += 1
    except BaseException as error:
        others.append(f"{path.name}: {type(error).__name__}")
status = Path("/proc/self/status").read_text()  # getrusage() would count who started us as well
peak_kib = int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps([outcomes, others, peak_kib >> 10]))
"""


def test_every_shared_file_decodes_or_is_refused_within_memory() -> None:
    folder = shared_data("dicom")
    answer = subprocess.run([sys.executable, "-c", _EACH_FILE, str(folder)], capture_output=True, check=True)
    outcomes, others, peak_mib = json.loads(answer.stdout)
    assert others == []
    assert outcomes["decoded"] >= 140
    assert peak_mib < 512
