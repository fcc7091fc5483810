"""The quick way to a header: whatever it tells is what the tolerant reader tells, and it tells it of common files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence

from dicomnode.core.elements import walk_start
from dicomnode.core.headers import scan_header, scan_start
from dicomnode.core.routing import INTAKE_KEYWORDS
from dicomnode.errors import InputError
from tests.pixels.encoded import encoded, in_syntax, phantom_slice
from tests.shared import shared_data

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
KEYWORDS = INTAKE_KEYWORDS | {
    "SpecificCharacterSet", "ImageType", "PatientName", "SliceThickness", "KVP", "PixelSpacing", "Rows",
    "SmallestImagePixelValue", "WindowCenter", "ConvolutionKernel", "StudyDescription", "OtherPatientNames",
}  # fmt: skip
FIRST_PIECE_BYTES = 1 << 17


def told(content: bytes, syntax: str) -> object:
    """What the tolerant reader says."""
    try:
        return scan_header(content, syntax, KEYWORDS)
    except InputError:
        return InputError


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_it_tells_the_same_in_every_encoding(syntax: str) -> None:
    item = Dataset()
    item.StudyDescription = "in an item"
    item.SourceImageSequence = Sequence([Dataset()])
    dataset = in_syntax(phantom_slice(ReferencedStudySequence=Sequence([item, Dataset()])), syntax)
    content = encoded(dataset)
    assert scan_start([content], syntax, KEYWORDS) == told(content, syntax)
    dataset["ReferencedStudySequence"].is_undefined_length = True
    dataset.ReferencedStudySequence[0].is_undefined_length_sequence_item = True
    content = encoded(dataset)
    assert b"\xff\xff\xff\xff" in content
    assert scan_start([content], syntax, KEYWORDS) == told(content, syntax)


@pytest.mark.parametrize("folder", ["ct/dicom", "dicom"])
def test_of_every_file_it_tells_the_same_or_nothing(folder: str) -> None:
    quick, all_of_them = 0, 0
    for path in sorted(path for path in shared_data(folder).rglob("*") if path.is_file()):
        found = data_set_of(path)
        if found is None:
            continue
        content, syntax = found
        header = scan_start([content[:FIRST_PIECE_BYTES]], syntax, KEYWORDS)
        all_of_them += 1
        if header is not None:
            assert told(content, syntax) in (header, InputError), path  # a reader that descends may give up
            quick += 1
    assert quick / all_of_them > (0.99 if folder == "ct/dicom" else 0.5)


def data_set_of(path: Path) -> tuple[bytes, str] | None:
    """The encoded data set of a file and its transfer syntax; None where it has no file meta information."""
    content = path.read_bytes()
    if content[128:132] != b"DICM" or content[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return None
    end = 144 + int.from_bytes(content[140:144], "little")
    meta = dcmread(BytesIO(content[:end])).file_meta
    return content[end:], str(meta.get("TransferSyntaxUID", ""))


WHOLE = {syntax: encoded(in_syntax(phantom_slice(), syntax)) for syntax in (IMPLICIT, EXPLICIT, BIG)}


@given(syntax=st.sampled_from([IMPLICIT, EXPLICIT, BIG]), data=st.data())
@settings(deadline=None, max_examples=300)
def test_of_what_is_broken_it_tells_nothing_else(syntax: str, data: st.DataObject) -> None:
    content = bytearray(WHOLE[syntax][:2000])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    header = scan_start([bytes(content)], syntax, KEYWORDS)
    if header:  # it stops at a tag beyond the last wanted one, and does not see what stands behind, out of order
        assert header.items() <= scan_header(bytes(content), syntax, KEYWORDS).items()


@given(syntax=st.sampled_from([IMPLICIT, EXPLICIT, BIG]), cut=st.integers(0, 1500))
@settings(deadline=None)
def test_what_is_cut_before_the_last_wanted_element_tells_nothing(syntax: str, cut: int) -> None:
    tags = {0x00080018, 0x00200032}
    whole = walk_start(WHOLE[syntax], syntax, tags)
    assert whole is not None
    end = WHOLE[syntax].index(whole[0x00200032].value) + len(whole[0x00200032].value)
    found = walk_start(WHOLE[syntax][:cut], syntax, tags)
    assert found is None if cut <= end else found in (None, whole)


@pytest.mark.parametrize("pieces", [1, 2, 7, 40])
def test_the_start_may_come_in_pieces(pieces: int) -> None:
    content = WHOLE[EXPLICIT]
    size = len(content) // pieces + 1
    parts = [memoryview(content)[start : start + size] for start in range(0, len(content), size)]
    header = scan_start(parts, EXPLICIT, KEYWORDS)
    assert header in (None, scan_header(content, EXPLICIT, KEYWORDS))
    assert header is not None or pieces > 7


def test_deep_nesting_tells_nothing() -> None:
    nested = b"\x08\x00\x10\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 100_000
    assert scan_start([nested], EXPLICIT, KEYWORDS) is None
    assert scan_start([], EXPLICIT, KEYWORDS) is None
    assert scan_start([WHOLE[EXPLICIT]], "1.2.840.10008.1.2.1.99", KEYWORDS) is None
