"""Header values out of encoded data sets, whatever their encoding and however broken."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from encodings.aliases import aliases
from io import BytesIO
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.charset import CODES_TO_ENCODINGS, python_encoding
from pydicom.sequence import Sequence

from dicomnode.core import headers
from dicomnode.core.headers import finite, header_of, inflate, number, numbers, scan_header, value
from dicomnode.errors import ConfigError, InputError
from tests.pixels.encoded import encoded, in_syntax, phantom_slice

EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
KEYWORDS = (
    "SOPInstanceUID", "Modality", "ImageType", "PatientName", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "Rows", "PixelRepresentation", "PixelPaddingValue", "KVP", "AccessionNumber",
)  # fmt: skip

WHOLE = encoded(phantom_slice(size=16))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", EXPLICIT, "1.2.840.10008.1.2.2", DEFLATED])
def test_the_same_text_in_every_encoding(syntax: str) -> None:
    dataset = in_syntax(phantom_slice(), syntax)
    header = scan_header(encoded(dataset), syntax, KEYWORDS)
    assert header["ImageType"] == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert header["ImageOrientationPatient"] == ("1", "0", "0", "0", "1", "0")
    assert header["Rows"] == ("32",)
    assert header["PatientName"] == ("PHANTOM^DEMO",)
    assert numbers(header, "ImagePositionPatient", 3) == pytest.approx((-174.375, -174.375, 0))
    assert header == header_of(dataset, KEYWORDS)


def test_empty_and_absent_are_the_same() -> None:
    header = scan_header(encoded(phantom_slice(AccessionNumber="", KVP=None)), EXPLICIT, KEYWORDS)
    assert not {"AccessionNumber", "KVP", "PixelPaddingValue"} & header.keys()


def test_sequences_and_pixels_never_appear() -> None:
    dataset = phantom_slice(RequestAttributesSequence=Sequence([Dataset()]))
    keywords = ("RequestAttributesSequence", "PixelData", "Modality")
    assert scan_header(encoded(dataset), EXPLICIT, keywords) == {"Modality": ("CT",)}
    assert header_of(dataset, keywords) == {"Modality": ("CT",)}


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", EXPLICIT, "1.2.840.10008.1.2.2"])
@pytest.mark.parametrize(("representation", "padding"), [(1, -2000), (0, 63536)])
def test_us_or_ss_follows_pixel_representation(syntax: str, representation: int, padding: int) -> None:
    dataset = in_syntax(phantom_slice(PixelRepresentation=representation, PixelPaddingValue=padding), syntax)
    assert scan_header(encoded(dataset), syntax, ["PixelPaddingValue"]) == {"PixelPaddingValue": (str(padding),)}


@pytest.mark.parametrize(
    ("character_set", "name"),
    [("ISO_IR 192", "Müller^Jürgen"), ("ISO_IR 100", "Müller^Jürgen"), ("GB18030", "王^小东")],
)
def test_text_is_decoded_by_its_character_set(character_set: str, name: str) -> None:
    dataset = phantom_slice(SpecificCharacterSet=character_set, PatientName=name)
    assert scan_header(encoded(dataset), EXPLICIT, ["PatientName"]) == {"PatientName": (name,)}


def test_text_that_its_character_set_cannot_decode_is_replaced_not_refused() -> None:
    broken = encoded(phantom_slice(SpecificCharacterSet="ISO_IR 192")).replace(
        b"PHANTOM^DEMO", b"PHANTOM^\xff\xfe\xfd\xfc"
    )
    assert value(scan_header(broken, EXPLICIT, ["PatientName"]), "PatientName").startswith("PHANTOM^")


def with_character_set(character_set: bytes, name: bytes = b"M\xfcller^J\xfcrgen ") -> bytes:
    """A data set in explicit VR of a Specific Character Set and a Patient's Name, both just as given."""
    elements = ((0x00080005, b"CS", character_set), (0x00100010, b"PN", name))
    return b"".join(
        struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(encoded)) + encoded for tag, vr, encoded in elements
    )


@pytest.mark.parametrize("codec", ["undefined", "idna", "punycode", "hex", "rot13", "zlib_codec", "utf_7", "no such"])
def test_a_character_set_that_only_python_knows_is_latin(codec: str) -> None:
    encoded_ = with_character_set(codec.encode())
    assert scan_header(encoded_, EXPLICIT, ["PatientName"]) == {"PatientName": ("Müller^Jürgen",)}


@pytest.mark.parametrize("spelling", [b"ISO IR 192", b"ISO-IR 192", b"ISO_IR 192 "])
def test_a_character_set_may_be_misspelt(spelling: bytes) -> None:
    encoded_ = with_character_set(spelling, "Müller".encode())
    assert scan_header(encoded_, EXPLICIT, ["PatientName"]) == {"PatientName": ("Müller",)}


_CODECS = sorted({*aliases, *aliases.values(), *python_encoding, "undefined", "idna", "punycode", "raw_unicode_escape"})


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(_CODECS).map(str.encode) | st.binary(max_size=20), max_size=4).map(b"\\".join),
    st.binary(max_size=60) | st.lists(st.sampled_from([b"\x1b", *CODES_TO_ENCODINGS, b"\xff", b"^"])).map(b"".join),
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_character_set_gives_a_header_or_an_input_error(character_set: bytes, name: bytes) -> None:
    with suppress(InputError):
        scan_header(with_character_set(character_set, name), EXPLICIT, ["SpecificCharacterSet", "PatientName"])


def test_a_data_set_written_in_another_vr_encoding_than_announced() -> None:
    dataset = in_syntax(phantom_slice(), "1.2.840.10008.1.2")
    assert scan_header(encoded(dataset), EXPLICIT, ["Modality"]) == {"Modality": ("CT",)}


def test_a_data_set_cut_short_gives_what_came_before_the_cut() -> None:
    whole = encoded(phantom_slice())
    at = whole.index(b"PHANTOM^DEMO")
    assert scan_header(whole[: at + 5], EXPLICIT, ["Modality", "PatientName"]) == {"Modality": ("CT",)}


def test_reading_a_file_stops_before_the_pixels() -> None:
    source = BytesIO(encoded(phantom_slice(size=64)))
    scan_header(source, EXPLICIT, ["Modality", "WindowWidth"])
    assert source.tell() < len(source.getvalue()) - 64 * 64 * 2


def test_an_unknown_keyword_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="SliceThicknes'"):
        scan_header(b"", EXPLICIT, ["SliceThicknes"])


def test_sequences_nested_without_end_are_refused() -> None:
    opened = b"\x40\x00\x75\x02SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(InputError, match="RecursionError"):
        scan_header(opened * 5000, EXPLICIT, ["Modality"])


def test_a_deflated_bomb_is_refused() -> None:
    dataset = phantom_slice(PixelData=bytes(32 << 20))  # deflates to 32 kB
    bomb = encoded(in_syntax(dataset, DEFLATED))
    assert scan_header(bomb, DEFLATED, ["Modality"]) == {"Modality": ("CT",)}
    with pytest.raises(InputError, match="grows beyond"):
        inflate(bomb)


@pytest.mark.parametrize("pixels", [bytes, Random(7).randbytes], ids=["a bomb", "nothing to gain"])
def test_of_a_deflated_file_only_the_start_is_read(
    pixels: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "MAX_INFLATED_HEADER_BYTES", 1 << 18)
    whole = encoded(in_syntax(phantom_slice(PixelData=pixels(2 << 20)), DEFLATED)) + bytes(2 << 20)
    source = BytesIO(whole)
    assert scan_header(source, DEFLATED, ["Modality"]) == {"Modality": ("CT",)}
    assert source.tell() <= (1 << 18) + (1 << 17)


def test_a_deflated_file_may_inflate_to_nothing_for_ever() -> None:
    empty_block = b"\0\0\0\xff\xff"
    source = BytesIO(empty_block * (8 << 20))
    assert scan_header(source, DEFLATED, ["Modality"]) == {}
    assert source.tell() < 20 << 20


@settings(deadline=None)
@given(st.binary(max_size=400), st.sampled_from([EXPLICIT, "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", DEFLATED]))
def test_any_bytes_give_a_header_or_an_input_error(noise: bytes, syntax: str) -> None:
    try:
        scan_header(noise, syntax, KEYWORDS)
    except InputError as error:
        assert error.hint


@settings(deadline=None)
@given(st.data())
def test_a_damaged_header_gives_a_header_or_an_input_error(data: st.DataObject) -> None:
    whole = bytearray(WHOLE)
    for at in data.draw(st.lists(st.integers(0, len(whole) - 600), max_size=8)):
        whole[at] = data.draw(st.integers(0, 255))
    try:
        scan_header(whole, EXPLICIT, KEYWORDS)
    except InputError as error:
        assert "PHANTOM" not in f"{error}{error.hint}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1.50", 1.5), (" -2e3 ", -2000), ("", None), ("nan", None), ("inf", None), ("1_0", None), ("1,5", None)],
)
def test_finite(text: str, expected: float | None) -> None:
    assert finite(text) == expected


def test_numbers_wants_all_of_them() -> None:
    header = {"PixelSpacing": ("0.5", "x"), "KVP": ("100", "120")}
    assert numbers(header, "PixelSpacing", 2) is None
    assert numbers(header, "KVP", 3) is None
    assert number(header, "KVP") == 100
