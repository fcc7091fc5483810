"""Header values as text, from the encoded bytes of a data set that nobody has checked.

Only the elements asked for are looked at; everything else is skipped, and nothing is validated, evaluated or kept.
What cannot be made sense of is absent from the result; a data set that cannot be walked at all is an InputError.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import Any, BinaryIO, Final

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from pydicom.multival import MultiValue

from dicomnode.core.elements import EXPLICIT_BIG_ENDIAN, IMPLICIT_LITTLE_ENDIAN, MAX_VALUE_BYTES, RawElement, walk_start
from dicomnode.core.types import Header
from dicomnode.errors import ConfigError, InputError

DEFLATED: Final = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""Transfer syntaxes whose whole data set is deflated (PS3.5 A.5)."""

MAX_INFLATED_HEADER_BYTES: Final = 16 << 20
MAX_INFLATED_BYTES: Final = 512 << 20
_BLOCK_BYTES: Final = 1 << 16
MAX_DEFLATE_RATIO: Final = 100

FIRST_PIXEL_TAG: Final = 0x7FE00001
"""Extended Offset Table: from here on there is nothing but pixel data in all its forms (PS3.6)."""
_ESCAPE: Final = 0x1B
"""Without it and beyond it every character set of PS3.3 C.12.1.1.2 begins with ASCII."""
_START_BYTES: Final = 1 << 14
_START_PIECES: Final = 16
_CHARACTER_SET: Final = 0x00080005
_PIXEL_REPRESENTATION: Final = 0x00280103
_NO_SPLIT: Final = frozenset({"LT", "ST", "UT", "UR"})
_CHARACTER_SET_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_TEXT: Final = _CHARACTER_SET_VRS | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
_BINARY: Final = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_DELIMITERS: Final = {0x0A, 0x0C, 0x0D, 0x09, 0x5C, 0x5E, 0x3D}  # PS3.5 6.1.2.5.3, and ^ = of person names


def scan_header(
    encoded: bytes | bytearray | memoryview | BinaryIO, transfer_syntax_uid: str, keywords: Collection[str]
) -> Header:
    """Values of `keywords` in an encoded data set: bytes, or a seekable file positioned at its first element.

    Reading stops at the pixel data; a data set that is cut short gives what came before the cut. Sequences and bulk
    values never appear. Raises ConfigError for a word that is no DICOM keyword, InputError for an unreadable data set.
    """
    wanted = _tags(frozenset(keywords))
    source = BytesIO(encoded) if isinstance(encoded, bytes | bytearray | memoryview) else encoded
    if transfer_syntax_uid in DEFLATED:
        source = BytesIO(_inflated_start(source))
    implicit, little = encoding_of(source, transfer_syntax_uid)
    found: dict[int, RawDataElement] = {}
    try:
        with suppress(EOFError, struct.error):  # cut short, perhaps on purpose: what came before stands
            for element in _elements(source, implicit, little, [*wanted, _PIXEL_REPRESENTATION]):
                if len(element.value or b"") == element.length:  # else it was cut short in the middle
                    found.setdefault(int(element.tag), element)
        return _as_header(found, wanted)
    except (RecursionError, ArithmeticError, LookupError, OSError, TypeError, ValueError, AttributeError) as error:
        raise unreadable(error) from None


def scan_start(
    pieces: Sequence[bytes | memoryview], transfer_syntax_uid: str, keywords: Collection[str]
) -> Header | None:
    """What `scan_header` gives, from the first bytes of a data set as they were received; None where they do not tell.

    This runs for every instance received, twenty times as fast: it walks the first level of a well-formed data set up
    to the last element that is wanted. Whatever is odd, deflated or not all there is left to `scan_header`.
    """
    if transfer_syntax_uid in DEFLATED or not pieces:
        return None
    wanted_keywords = frozenset(keywords)
    wanted = _tags(wanted_keywords)
    start = pieces[0] if len(pieces) == 1 or len(pieces[0]) >= _START_BYTES else b"".join(pieces[:_START_PIECES])
    found = walk_start(start, transfer_syntax_uid, _walked(wanted_keywords))
    try:
        return None if found is None else _as_header(found, wanted)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        return None


def header_of(dataset: Dataset, keywords: Collection[str]) -> Header:
    """Values of `keywords` in a data set that is read already; the same text as `scan_header` gives."""
    wanted = _tags(frozenset(keywords))
    header: dict[str, tuple[str, ...]] = {}
    raw: dict[int, RawDataElement] = {}
    for tag in (*wanted, _PIXEL_REPRESENTATION, _CHARACTER_SET):
        element: object = dataset.get_item(tag) if tag in dataset else None
        if isinstance(element, RawDataElement):
            raw[tag] = element
        elif isinstance(element, DataElement):
            if tag in wanted and (values := _converted_values(element)):
                header[wanted[tag]] = values
            if tag in (_PIXEL_REPRESENTATION, _CHARACTER_SET):
                raw[tag] = _raw_again(element)
    return header | {k: v for k, v in _as_header(raw, wanted).items() if k not in header}


def value(header: Header, keyword: str, index: int = 0) -> str:
    """One value of an attribute, "" where it is absent."""
    values = header.get(keyword, ())
    return values[index] if index < len(values) else ""


def number(header: Header, keyword: str) -> float | None:
    """The first value as a finite number; None where it is absent or none."""
    return finite(value(header, keyword))


def numbers(header: Header, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers; None where the attribute is anything else."""
    parsed = [finite(text) for text in header.get(keyword, ())]
    complete = tuple(item for item in parsed if item is not None)
    return complete if len(parsed) == count == len(complete) else None


def finite(text: str) -> float | None:
    """The number that a DS or IS value writes; None where it is none, infinite or empty."""
    try:
        parsed = float(text)
    except ValueError:
        return None
    return parsed if math.isfinite(parsed) and "_" not in text else None


def inflate(encoded: bytes) -> bytes:
    """A whole deflated data set; raises InputError where it grows beyond the limits (a decompression bomb)."""
    limit = min(MAX_INFLATED_BYTES, max(MAX_INFLATED_HEADER_BYTES, MAX_DEFLATE_RATIO * len(encoded)))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(encoded, limit)
    except zlib.error:
        raise InputError("the deflated data set is damaged", "ask the sender for it again") from None
    if inflater.unconsumed_tail:
        raise InputError(
            f"the deflated data set grows beyond {limit >> 20} MiB", "send it in an undeflated transfer syntax"
        )
    return inflated


def encoding_of(source: BinaryIO, transfer_syntax_uid: str) -> tuple[bool, bool]:
    """(implicit VR?, little endian?). Some writers announce one VR encoding and use the other: the bytes decide."""
    start = source.tell()
    first = source.read(6)
    source.seek(start)
    looks_explicit = len(first) == 6 and all(0x41 <= letter <= 0x5A for letter in first[4:6])
    implicit = not looks_explicit if first else transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN
    return implicit, transfer_syntax_uid != EXPLICIT_BIG_ENDIAN


def unreadable(error: BaseException) -> InputError:
    """The InputError for whatever a parser raised. Its text is left out: it may quote the data set."""
    return InputError(
        f"the data set cannot be read ({type(error).__name__})", "check it with dcmdump or dciodvfy; ask for it again"
    )


@lru_cache(maxsize=64)
def _tags(keywords: frozenset[str]) -> Mapping[int, str]:
    tags = {}
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise ConfigError(f"{keyword!r} is no DICOM keyword", "keywords are listed in PS3.6, like SliceThickness")
        tags[tag] = keyword
    return tags


@lru_cache(maxsize=64)
def _walked(keywords: frozenset[str]) -> frozenset[int]:
    """The tags of `keywords`, and those that tell how their values are to be read."""
    tags = frozenset(_tags(keywords))
    ambiguous = any(dictionary_VR(tag).startswith("US or ") for tag in tags)
    return tags | {_CHARACTER_SET} | ({_PIXEL_REPRESENTATION} if ambiguous else set())


def _inflated_start(source: BinaryIO) -> bytes:
    """What the header may need; of the deflated data set no more is read, for it may be gigabytes."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    parts: list[bytes] = []
    left_bytes = MAX_INFLATED_HEADER_BYTES
    try:
        for _ in range(0, MAX_INFLATED_HEADER_BYTES, _BLOCK_BYTES):  # a stream may go on without inflating to anything
            block = source.read(_BLOCK_BYTES)
            if not block or not left_bytes or inflater.eof:
                break
            parts.append(inflater.decompress(block, left_bytes))
            left_bytes -= len(parts[-1])
    except zlib.error as error:
        raise unreadable(error) from None
    return b"".join(parts)


def _elements(source: BinaryIO, implicit: bool, little: bool, tags: list[int]) -> Iterator[RawDataElement]:
    generator = data_element_generator(
        source,
        implicit,
        little,
        stop_when=lambda tag, vr, length: tag >= FIRST_PIXEL_TAG,
        defer_size=MAX_VALUE_BYTES,
        specific_tags=list(tags),
    )
    return (element for element in generator if isinstance(element, RawDataElement))


def _as_header(
    found: Mapping[int, RawDataElement | RawElement], wanted: Mapping[int, str]
) -> dict[str, tuple[str, ...]]:
    encodings = _encodings(found.get(_CHARACTER_SET))
    representation = found.get(_PIXEL_REPRESENTATION)
    signed = representation is not None and any((representation.value or b"")[:2])
    header = {}
    for tag, keyword in wanted.items():
        if tag in found and (values := _raw_values(found[tag], encodings, signed)):
            header[keyword] = values
    return header


def _encodings(character_set: RawDataElement | RawElement | None) -> list[str]:
    if character_set is None or not character_set.value:
        return ["iso8859"]
    names = character_set.value.decode("ascii", "replace").split("\\")
    return convert_encodings(list(dict.fromkeys(defined_term(name.strip(" \0")) for name in names)))


def defined_term(name: str) -> str:
    """The term of PS3.3 C.12.1.1.2 that was meant, "" for none: pydicom would take any other for a Python codec."""
    if re.match("ISO.IR", name):
        name = f"ISO_IR{name[6:]}"
    elif re.match("ISO.2022.IR.", name):
        name = f"ISO 2022 IR {name[12:]}"
    return name if name in python_encoding else ""


def _raw_values(element: RawDataElement | RawElement, encodings: list[str], signed: bool) -> tuple[str, ...]:
    if not element.value:
        return ()
    vr = _vr(element, signed)
    if vr in _TEXT:
        return _split(_decoded(element.value, vr, encodings), vr)
    if vr == "AT" or vr in _BINARY:
        return _unpacked(element.value, vr, element.is_little_endian or element.VR == "UN")
    return ()


def _vr(element: RawDataElement | RawElement, signed: bool) -> str:
    """The VR that was sent, or the dictionary's where none, UN or a wrong bulk one was (PS3.5 6.2.2)."""
    if element.VR in _TEXT or element.VR in _BINARY:
        return str(element.VR)
    vr = dictionary_VR(element.tag)
    return ("SS" if signed else "US") if vr.startswith("US or ") else vr


def _decoded(encoded: bytes, vr: str, encodings: list[str]) -> str:
    if vr not in _CHARACTER_SET_VRS or (encoded.isascii() and _ESCAPE not in encoded):
        return encoded.decode("iso8859")
    return decode_bytes(encoded, encodings, _DELIMITERS)


def _split(text: str, vr: str) -> tuple[str, ...]:
    if vr in _NO_SPLIT:
        whole = text.rstrip(" \0")
        return (whole,) if whole else ()
    if "\\" not in text:
        single = text.strip(" \0")
        return (single,) if single else ()
    parts = tuple([part.strip(" \0") for part in text.split("\\")])
    return parts if any(parts) else ()


def _unpacked(encoded: bytes, vr: str, little: bool) -> tuple[str, ...]:
    order = "<" if little else ">"
    if vr == "AT":
        pairs = struct.iter_unpack(f"{order}HH", encoded[: len(encoded) // 4 * 4])
        return tuple(f"{group:04X}{element:04X}" for group, element in pairs)
    code = _BINARY[vr]
    size = struct.calcsize(f"{order}{code}")
    values = (item for (item,) in struct.iter_unpack(f"{order}{code}", encoded[: len(encoded) // size * size]))
    return tuple(f"{item:.9g}" if vr == "FL" else repr(item) for item in values)


def _converted_values(element: DataElement) -> tuple[str, ...]:
    if element.VR not in _TEXT and element.VR not in _BINARY and element.VR != "AT":
        return ()
    held: Any = element.value
    items = held if isinstance(held, MultiValue | list | tuple) else [held]
    texts = tuple("" if item is None else _as_text(item, str(element.VR)) for item in items)
    return texts if any(texts) else ()


def _as_text(item: object, vr: str) -> str:
    if vr == "AT" and isinstance(item, int):
        return f"{item:08X}"
    if isinstance(item, float) and vr == "FL":
        return f"{item:.9g}"
    if isinstance(item, float) and vr == "FD":
        return repr(float(item))
    return str(item).strip(" \0") if vr not in _NO_SPLIT else str(item).rstrip(" \0")


def _raw_again(element: DataElement) -> RawDataElement:
    if element.VR == "US":
        encoded = struct.pack("<H", int(element.value or 0) & 0xFFFF)
    else:
        held: Any = element.value
        names = held if isinstance(held, MultiValue | list) else [held or ""]
        encoded = "\\".join(str(name) for name in names).encode("ascii", "replace")
    return RawDataElement(element.tag, element.VR, len(encoded), encoded, 0, False, True)
