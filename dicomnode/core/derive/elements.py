"""Elements of a source, copied byte for byte into Explicit VR Little Endian.

A derived object must say of patient and study what its source says, in the same bytes: text is therefore never decoded
and encoded again, and values that break their VR's rules are carried on as they are. What changes is only the frame
around them: VR and length fields, byte order, padding to even length. Private elements are left out, in sequences too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from pydicom.charset import convert_encodings, decode_bytes, default_encoding, encode_string
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import VR
from pydicom.values import convert_SQ

from dicomnode.core.headers import defined_term

Element = DataElement | RawDataElement

_MAX_DEPTH: Final = 16
_UNDEFINED: Final = 0xFFFFFFFF
_MAX_SHORT_BYTES: Final = 0xFFFE
_ITEM_STARTS: Final = {
    little: tuple(struct.pack("<HH" if little else ">HH", 0xFFFE, element) for element in (0xE000, 0xE0DD))
    for little in (True, False)
}
_LONG_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_ZERO_PADDED: Final = frozenset({"OB", "UI", "UN"})
_SWAPPED_BYTES: Final = {
    "AT": 2, "OW": 2, "SS": 2, "US": 2, "FL": 4, "OF": 4, "OL": 4, "SL": 4, "UL": 4,
    "FD": 8, "OD": 8, "OV": 8, "SV": 8, "UV": 8,
}  # fmt: skip
_KNOWN_VRS: Final = frozenset(str(vr) for vr in VR if len(vr) == 2)
_NEVER_COPIED: Final = frozenset(
    Tag(keyword) for keyword in ("DigitalSignaturesSequence", "MACParametersSequence", "EncryptedAttributesSequence")
)
# What pydicom raises when it is given bytes that are not what their VR says.
_UNREADABLE: Final = (
    ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError, RecursionError, TypeError,
    ValueError, struct.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Source:
    """How the elements of one data set are to be read. `signed`: its Pixel Representation is 1."""

    encodings: str | list[str]
    signed: bool


def tag_of(keyword: str) -> BaseTag:
    """The tag of a standard attribute."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"{keyword} is no DICOM keyword"
    return Tag(tag)


def held(dataset: Dataset, tag: BaseTag) -> Element | None:
    """The element as the data set holds it: still encoded unless somebody has looked at it."""
    return cast("Element | None", dataset.get_item(tag))


def explicit_copy(source: Dataset, wanted: frozenset[BaseTag]) -> tuple[Dataset, int]:
    """The `wanted` elements of `source`, and how many of them could not be read and are left out.

    The result holds encoded values only; writing it in Explicit VR Little Endian writes these bytes.
    """
    how = _Source(character_encodings(source), _is_signed(source))
    copy, unreadable = Dataset(), 0
    for tag in sorted(wanted & source.keys()):
        element = held(source, tag)
        try:
            copy[tag] = _explicit(cast(Element, element), how, depth=0)
        except _UNREADABLE:
            unreadable += 1
    return copy, unreadable


def keep_bytes_when_written(dataset: Dataset) -> None:
    """Tell pydicom that the encoded values in `dataset` are to be written as they are, not decoded first."""
    dataset.set_original_encoding(False, True, character_encodings(dataset))


def character_encodings(dataset: Dataset) -> str | list[str]:
    """Python's names of the character sets of a data set (PS3.3 C.12.1.1.2)."""
    named = [defined_term(name.strip()) for name in ascii_text(dataset, "SpecificCharacterSet").split("\\")]
    return convert_encodings(named) if any(named) else default_encoding


def names_character_sets(stated: str) -> bool:
    """Whether every value of a Specific Character Set is a defined term or empty, and one is not empty."""
    names = [name.strip() for name in stated.split("\\")]
    return any(names) and all(defined_term(name) for name in names if name)


def our_text(text: str, characters: int) -> str:
    """ASCII that is legal in any text VR and under any character set, cut to length."""
    return "".join(letter if " " <= letter <= "~" and letter != "\\" else "?" for letter in text)[:characters]


def encoded_elements(dataset: Dataset) -> dict[BaseTag, bytes]:
    """Elements that are ours (ASCII) or come from `explicit_copy`, each in Explicit VR Little Endian, by ascending tag.

    What pydicom writes of them, without its asking what each value is.
    """
    how = _Source(default_encoding, signed=False)
    ordered = sorted(cast("Iterable[Element]", dataset.elements()), key=lambda element: element.tag)
    return {
        element.tag: _framed(element if isinstance(element, RawDataElement) else _explicit(element, how, depth=0))
        for element in ordered
    }


def encoded_item(item: Dataset) -> bytes:
    """A sequence item of such elements (PS3.5 7.5)."""
    return _item(encoded_elements(item).values())


def put_encoded(dataset: Dataset, keyword: str, value: bytes) -> None:
    """Set an attribute to an already encoded value; a sequence's is its encoded items, one after the other."""
    tag = tag_of(keyword)
    dataset[tag] = _raw(tag, dictionary_VR(tag), value)


def value_bytes(dataset: Dataset, keyword: str) -> bytes:
    """The encoded value of an attribute, b"" where it is absent or empty."""
    element = held(dataset, tag_of(keyword))
    if element is None:
        return b""
    if isinstance(element, RawDataElement):
        return element.value or b""
    return _encoded_value(element, default_encoding)


def ascii_text(dataset: Dataset, keyword: str) -> str:
    """The value of an attribute that is written in ASCII (CS, IS, UI, ...), without padding; "" where absent."""
    return value_bytes(dataset, keyword).decode("ascii", "replace").strip(" \0")


def followed_by(ours: str, theirs: bytes, encodings: str | Sequence[str], characters: int) -> bytes:
    """Our ASCII text, then encoded text of the source, cut to as many characters as the VR allows.

    Bytes stay as they are unless a cut is needed. Text that cannot be cut without a fault is left out.
    """
    whole = ours.encode("ascii") + theirs.strip(b" \0")
    if len(whole) <= characters:
        return whole
    names = [encodings] if isinstance(encodings, str) else list(encodings)
    kept = decode_bytes(theirs.strip(b" \0"), names, set())[: max(0, characters - len(ours))].rstrip()
    encoded = encode_string(kept, names)
    same = decode_bytes(encoded, names, set()) == kept and "\N{REPLACEMENT CHARACTER}" not in kept
    return ours.encode("ascii")[:characters] + (encoded if same else b"")


def _explicit(element: Element, how: _Source, depth: int) -> RawDataElement:
    """The element with a definite VR, in little endian. Raises one of _UNREADABLE."""
    tag, vr = Tag(element.tag), _definite_vr(element, how.signed)
    if vr == "SQ":
        return _raw(tag, vr, b"".join(_items(element, how, depth)))
    if isinstance(element, DataElement):
        return _raw(tag, vr, _encoded_value(DataElement(tag, vr, element.value), how.encodings))
    if element.length == _UNDEFINED:
        raise ValueError("a value of undefined length that is no sequence")
    value = element.value or b""
    return _raw(tag, vr, value if element.is_little_endian else _swapped(value, vr))


def _definite_vr(element: Element, signed: bool) -> str:
    """The element's VR; where it has none (Implicit VR), an unknown one, or UN for a sequence, the dictionary's."""
    listed = str(dictionary_VR(element.tag)) if dictionary_has_tag(element.tag) else "UN"
    vr = str(element.VR) if element.VR else listed
    if vr not in _KNOWN_VRS or (vr == "UN" and listed == "SQ"):
        vr = listed
    if vr == "US or SS":
        return "SS" if signed else "US"
    return "OW" if " or " in vr else vr


def _items(element: Element, how: _Source, depth: int) -> Iterator[bytes]:
    if depth == _MAX_DEPTH:
        raise ValueError("sequences are nested too deeply")
    for item in element.value if isinstance(element, DataElement) else _parsed_items(element):
        yield _item(_framed(_explicit(held, how, depth + 1)) for held in _public(item))


def _parsed_items(element: RawDataElement) -> Iterable[Dataset]:
    # A value whose VR is UN is in Implicit VR Little Endian whatever the transfer syntax (PS3.5 6.2.2, note 2)
    unknown, value = element.VR == "UN", element.value or b""
    implicit, little = element.is_implicit_VR or unknown, element.is_little_endian or unknown
    if value and value[:4] not in _ITEM_STARTS[little]:  # pydicom takes any eight bytes for the start of an item
        raise ValueError("a sequence that does not begin with an item")
    return convert_SQ(value, implicit, little)


def _public(item: Dataset) -> Iterator[Element]:
    for tag in sorted(item.keys()):
        if not tag.is_private and tag.element != 0 and tag not in _NEVER_COPIED:
            yield cast(Element, held(item, tag))


def _encoded_value(element: DataElement, encodings: str | list[str]) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = True, True
    write_data_element(buffer, element, encodings)
    return buffer.getvalue()[8:]  # after tag and length


def _swapped(value: bytes, vr: str) -> bytes:
    width = _SWAPPED_BYTES.get(vr)
    return value if width is None else np.frombuffer(value, f">u{width}").astype(f"<u{width}").tobytes()


def _raw(tag: BaseTag, vr: str, value: bytes) -> RawDataElement:
    """An encoded element: of even length, and with a VR whose length field can hold it (PS3.5 6.2.2)."""
    if vr not in _LONG_VRS and len(value) > _MAX_SHORT_BYTES:
        vr = "UN"
    if len(value) % 2:
        value += b"\0" if vr in _ZERO_PADDED else b" "
    return RawDataElement(tag, vr, len(value), value, 0, False, True)


def _framed(element: RawDataElement) -> bytes:
    """The element's bytes in Explicit VR Little Endian (PS3.5 7.1.2)."""
    vr, value = str(element.VR), element.value or b""
    start = struct.pack("<HH2s", element.tag.group, element.tag.element, vr.encode("ascii"))
    length = struct.pack("<HL", 0, len(value)) if vr in _LONG_VRS else struct.pack("<H", len(value))
    return start + length + value


def _item(elements: Iterable[bytes]) -> bytes:
    content = b"".join(elements)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def _is_signed(source: Dataset) -> bool:
    return any(value_bytes(source, "PixelRepresentation"))  # 0 or 1, in whatever byte order
