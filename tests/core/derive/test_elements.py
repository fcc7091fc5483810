"""Bytes of the source reach the derived object as they are, whatever they are and however they were encoded."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomnode.core.derive.elements import explicit_copy, followed_by, our_text, tag_of, value_bytes
from tests.core.derive.sources import as_read, ct_image

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def _raw(keyword: str, vr: str | None, value: bytes) -> RawDataElement:
    return RawDataElement(tag_of(keyword), vr, len(value), value, 0, vr is None, True)


def _copied(source: Dataset, *keywords: str) -> tuple[Dataset, int]:
    return explicit_copy(source, frozenset(map(tag_of, keywords)))


@settings(deadline=None)
@given(st.sampled_from(["PatientName", "StudyDescription", "StudyDate", "KVP", "PatientSex"]), st.binary(max_size=90))
def test_any_bytes_survive(keyword: str, value: bytes) -> None:
    source = Dataset()
    source[keyword] = _raw(keyword, None, value)
    copy, unreadable = _copied(source, keyword)
    assert unreadable == 0
    assert value_bytes(copy, keyword) in (value, value + b" ")
    assert len(value_bytes(copy, keyword)) % 2 == 0


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_encoding_gives_the_same_elements(syntax: str) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "L", "Äther"
    image = ct_image(PatientName="Müller^Jörg", PixelPaddingValue=63536, AcquisitionMatrix=[0, 256, 1, 0])
    image.ProcedureCodeSequence = Sequence([code])
    keywords = (
        "PatientName",
        "ProcedureCodeSequence",
        "PixelSpacing",
        "Rows",
        "PixelPaddingValue",
        "AcquisitionMatrix",
    )
    expected, _ = _copied(as_read(image.copy()), *keywords)
    copy, unreadable = _copied(as_read(image.copy(), syntax), *keywords)
    assert unreadable == 0
    for keyword in keywords:
        assert copy.get_item(keyword) == expected.get_item(keyword), keyword
    assert struct.unpack("<H", value_bytes(copy, "Rows")) == (4,)


def test_private_elements_leave_sequences_too() -> None:
    inner, outer = Dataset(), Dataset()
    inner.CodeValue = "1"
    inner.private_block(0x0011, "ACME", create=True).add_new(1, "LO", "secret")
    outer.CodeMeaning = "kept"
    outer.EquivalentCodeSequence = Sequence([inner])
    image = ct_image(ProcedureCodeSequence=Sequence([outer]))
    copy, unreadable = _copied(as_read(image), "ProcedureCodeSequence")
    assert unreadable == 0
    assert b"secret" not in value_bytes(copy, "ProcedureCodeSequence")
    kept = copy.ProcedureCodeSequence[0]
    assert kept.CodeMeaning == "kept"
    assert list(kept.EquivalentCodeSequence[0].keys()) == [Tag("CodeValue")]


def test_a_sequence_that_is_no_sequence_is_left_out() -> None:
    source = Dataset()
    source["ProcedureCodeSequence"] = _raw("ProcedureCodeSequence", "SQ", b"$(touch /tmp/pwned)")
    source["PatientID"] = _raw("PatientID", "LO", b"P1")
    copy, unreadable = _copied(source, "ProcedureCodeSequence", "PatientID")
    assert unreadable == 1
    assert list(copy.keys()) == [tag_of("PatientID")]


def test_nesting_without_end_is_left_out() -> None:
    deep = b""
    for _ in range(200):
        item = struct.pack("<HHL", 0xFFFE, 0xE000, len(deep)) + deep
        deep = struct.pack("<HH2sHL", 0x0008, 0x1032, b"SQ", 0, len(item)) + item
    source = Dataset()
    source["ProcedureCodeSequence"] = _raw("ProcedureCodeSequence", "SQ", item)
    copy, unreadable = _copied(source, "ProcedureCodeSequence")
    assert (len(copy), unreadable) == (0, 1)


def test_a_sequence_hidden_as_unknown_is_opened() -> None:
    element = struct.pack("<HHL", 0x0009, 0x1001, 4) + b"hide" + struct.pack("<HHL", 0x0010, 0x0020, 2) + b"P1"
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(element)) + element
    source = Dataset()
    source["ProcedureCodeSequence"] = _raw("ProcedureCodeSequence", "UN", item)
    copy, _ = _copied(source, "ProcedureCodeSequence")
    assert b"hide" not in value_bytes(copy, "ProcedureCodeSequence")
    assert copy.ProcedureCodeSequence[0].PatientID == "P1"


def test_values_too_long_for_their_vr_become_unknown_ones() -> None:
    source = Dataset()
    source["PatientComments"] = _raw("PatientComments", "LT", b"x" * 70001)
    copy, _ = _copied(source, "PatientComments")
    assert copy.get_item("PatientComments").VR == "UN"
    assert value_bytes(copy, "PatientComments").startswith(b"x" * 70001)


@given(st.text(st.characters(codec="ascii"), max_size=40), st.binary(max_size=90))
def test_short_texts_are_joined_unchanged(ours: str, theirs: bytes) -> None:
    ours = our_text(ours, 40)
    joined = followed_by(ours, theirs, ["latin_1"], characters=200)
    assert joined == ours.encode() + theirs.strip(b" \0")


@pytest.mark.parametrize(
    ("theirs", "encodings"),
    [
        ("Ä" * 80, ["latin_1"]),
        ("Грудная клетка " * 8, ["iso8859_5"]),
        ("胸部 " * 40, ["utf8"]),
        ("王^小东 " * 30, ["GB18030"]),
    ],
)
def test_long_texts_are_cut_at_a_character(theirs: str, encodings: list[str]) -> None:
    joined = followed_by("AI ", theirs.encode(encodings[0]), encodings, characters=64).decode(encodings[0])
    assert len(joined) <= 64
    assert ("AI " + theirs).startswith(joined)
    assert len(joined) >= 62


def test_a_cut_text_returns_to_the_first_character_set() -> None:
    kanji = ("広" * 70).encode("iso2022_jp")
    joined = followed_by("AI ", kanji, ["iso8859", "iso2022_jp"], characters=64)
    assert joined.startswith(b"AI \x1b$B")
    assert joined.endswith(b"\x1b(B")
    assert joined.decode("iso2022_jp") == "AI " + "広" * 61


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_text_that_cannot_be_decoded_is_not_cut_in_the_middle() -> None:
    assert followed_by("AI ", b"\xff\xfe" * 60, ["utf8"], characters=64) == b"AI "


@given(st.text(max_size=50))
def test_our_text_is_harmless_ascii(text: str) -> None:
    assert all(" " <= letter <= "~" and letter != "\\" for letter in our_text(text, 20))
    assert len(our_text(text, 20)) == min(20, len(text))
