"""Uncompressed data sets in another uncompressed transfer syntax, for a peer that refuses the stored one.

Only element headers and byte order are written anew (PS3.5 section 7). Values keep their bytes: text in a broken
character set, odd padding and private elements survive, which they would not if they were decoded and encoded again.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from pydicom.datadict import dictionary_VR
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomnode.errors import InputError, UnsupportedError
from dicomnode.net.part10 import read_file_meta, reading

MAXIMUM_BYTES: Final = 2 << 30  # it is held in memory, twice
_MAXIMUM_INFLATION: Final = 100
_MAXIMUM_DEPTH: Final = 64
UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_WIDTHS: Final = {"US": 2, "SS": 2, "OW": 2, "AT": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4,
                  "FD": 8, "OD": 8, "OV": 8, "SV": 8, "UV": 8}  # fmt: skip
PIXEL_DATA: Final = 0x7FE00010
_PIXEL_REPRESENTATION: Final = 0x00280103
_BITS_ALLOCATED: Final = (0x00280100, 0x54001004)  # of pixels and of waveforms


@dataclass(frozen=True, slots=True)
class Syntax:
    explicit: bool
    little: bool = True

    @property
    def order(self) -> str:
        return "<" if self.little else ">"


SYNTAXES: Final = {
    str(ImplicitVRLittleEndian): Syntax(explicit=False),
    str(ExplicitVRLittleEndian): Syntax(explicit=True),
    str(DeflatedExplicitVRLittleEndian): Syntax(explicit=True),
    str(ExplicitVRBigEndian): Syntax(explicit=True, little=False),
}


class Header(NamedTuple):
    """Of an element, an item or a delimiter. `start` is where its value begins; `length` may be undefined."""

    tag: int
    vr: str
    length: int
    start: int


@dataclass(slots=True)
class Context:
    """What an ambiguous VR depends on (PS3.5 annex A); the items of a sequence begin with their data set's."""

    signed: bool = False
    bits_allocated: int = 16

    def learn(self, tag: int, value: bytes) -> None:
        if tag == _PIXEL_REPRESENTATION:
            self.signed = value[:1] == b"\1"
        elif tag in _BITS_ALLOCATED and len(value) == 2:
            self.bits_allocated = int.from_bytes(value, "little")


def reencode(path: Path, transfer_syntax_uid: str) -> bytes:
    """The data set of a DICOM file in explicit or implicit VR little endian.

    Raises UnsupportedError for compressed or very large objects, InputError for what is not there or cannot be
    parsed, StoreError for what cannot be read now.
    """
    with reading(path) as file:
        meta = read_file_meta(file)
        file.seek(meta.offset_bytes)
        encoded = file.read(MAXIMUM_BYTES)
    if meta.transfer_syntax_uid not in SYNTAXES or len(encoded) == MAXIMUM_BYTES:
        raise UnsupportedError("only uncompressed objects below 2 GiB can be re-encoded")
    if meta.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        encoded = _inflate(encoded)
    source, target = SYNTAXES[meta.transfer_syntax_uid], SYNTAXES[transfer_syntax_uid]
    return encoded if source == target else _rewrite(encoded, source, target)


def _rewrite(encoded: bytes, source: Syntax, target: Syntax) -> bytes:
    """A data set in another syntax. Raises InputError."""
    with parsing():
        content, _ = Rewriter(memoryview(encoded), target).data_set(0, len(encoded), source, Context(), 0)
    return content


@contextmanager
def parsing() -> Iterator[None]:
    """What an encoding that does not add up raises becomes InputError."""
    try:
        yield
    except (struct.error, UnicodeDecodeError, OverflowError):
        raise malformed("it ends within an element, or an element does not fit") from None


def malformed(why: str) -> InputError:
    return InputError(f"the data set breaks the encoding rules of PS3.5: {why}", "it can only be sent as it is stored")


def _inflate(encoded: bytes) -> bytes:
    """Raw deflate (PS3.5 A.5) within limits: a megabyte can unfold into gigabytes."""
    limit = min(MAXIMUM_BYTES, _MAXIMUM_INFLATION * len(encoded))
    unfolding = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = unfolding.decompress(encoded, limit)
    except zlib.error:
        raise InputError("the deflated data set is damaged") from None
    if not unfolding.eof:
        raise InputError(f"the deflated data set is cut off, or more than {_MAXIMUM_INFLATION} times its size")
    return content


class Rewriter:
    """Writes one encoded data set in the target syntax, little endian. Positions are offsets in the source.

    drops_fragments  encapsulated Pixel Data (PS3.5 A.4) is left out, and counted
    """

    def __init__(self, source: memoryview, target: Syntax, *, drops_fragments: bool = False) -> None:
        self._source = source
        self._target = target
        self._drops_fragments = drops_fragments
        self.fragments_dropped = 0

    def data_set(self, start: int, end: int, syntax: Syntax, context: Context, depth: int) -> tuple[bytes, int]:
        """The elements from `start` to `end` or to an item delimiter; the second value is where they ended."""
        if depth > _MAXIMUM_DEPTH:
            raise malformed(f"sequences are nested deeper than {_MAXIMUM_DEPTH}")
        parts: list[bytes] = []
        position = start
        while position < end:
            header = self.header(position, syntax, context)
            if header.tag == _ITEM_END and depth:
                return b"".join(parts), header.start
            written, position = self.element(header, end, syntax, context, depth)
            parts += written
        return b"".join(parts), position

    def element(
        self, header: Header, end: int, syntax: Syntax, context: Context, depth: int = 0
    ) -> tuple[Sequence[bytes], int]:
        """One element anew, in parts, and where it ended."""
        if header.tag >> 16 == 0xFFFE:
            raise malformed("an item or a delimiter outside a sequence")
        if header.tag == PIXEL_DATA and header.length == UNDEFINED and self._drops_fragments:
            self.fragments_dropped += 1
            return (), self._after_fragments(header.start, end, syntax)
        if header.length == UNDEFINED or header.vr == "SQ":
            content, position = self._sequence(header, end, syntax, context, depth)
            return (self.element_header(header.tag, "SQ", header.length, len(content)), content), position
        value, position = self._value(header, end, syntax)
        if header.tag & 0xFFFF == 0:
            return (), position  # a group length: retired, and no longer true (PS3.5 7.2)
        context.learn(header.tag, value)
        return (self.element_header(header.tag, header.vr, header.length, len(value)), value), position

    def _sequence(self, header: Header, end: int, syntax: Syntax, context: Context, depth: int) -> tuple[bytes, int]:
        """The items of a sequence, re-encoded, and where they ended."""
        if header.vr == "UN":  # of undefined length: implicit little endian whatever is around it (PS3.5 6.2.2)
            syntax = Syntax(explicit=False)
        if header.length != UNDEFINED:
            end = self._end(header, end)
        parts: list[bytes] = []
        position = header.start
        while position < end:
            item = self._item_header(position, syntax)
            if item.tag == _SEQUENCE_END:
                return b"".join((*parts, _item_header(_SEQUENCE_END, 0))), item.start
            if item.tag != _ITEM:
                raise malformed("something else where a sequence item was due")
            item_end = end if item.length == UNDEFINED else self._end(item, end)
            content, position = self.data_set(item.start, item_end, syntax, replace(context), depth + 1)
            if item.length != UNDEFINED and position != item_end:
                raise malformed("a sequence item ends before its length")
            parts += _item(item.length, content)
        if header.length == UNDEFINED:
            raise malformed("a sequence without its delimiter")
        return b"".join(parts), position

    def header(self, position: int, syntax: Syntax, context: Context) -> Header:
        header = self._item_header(position, syntax)
        if header.tag >> 16 == 0xFFFE:
            return header
        if not syntax.explicit:
            return header._replace(vr=_implied_vr(header, context))
        vr = str(self._source[position + 4 : position + 6], "ascii")
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from(f"{syntax.order}L", self._source, position + 8)
            return Header(header.tag, vr, length, position + 12)
        (length,) = struct.unpack_from(f"{syntax.order}H", self._source, position + 6)
        return Header(header.tag, vr, length, position + 8)

    def _after_fragments(self, position: int, end: int, syntax: Syntax) -> int:
        """Where encapsulated Pixel Data ends."""
        while position < end:
            item = self._item_header(position, syntax)
            if item.tag == _SEQUENCE_END:
                return item.start
            if item.tag != _ITEM:
                raise malformed("something else where a fragment was due")
            position = self._end(item, end)
        raise malformed("fragments without their delimiter")

    def _item_header(self, position: int, syntax: Syntax) -> Header:
        group, element, length = struct.unpack_from(f"{syntax.order}HHL", self._source, position)
        return Header(group << 16 | element, "", length, position + 8)

    def _value(self, header: Header, end: int, syntax: Syntax) -> tuple[bytes, int]:
        end = self._end(header, end)
        value = bytes(self._source[header.start : end])
        if not syntax.little and (width := _WIDTHS.get(header.vr, 1)) > 1:
            value = _swapped(value, width)
        return value, end

    def _end(self, header: Header, end: int) -> int:
        if header.start + header.length > end:
            raise malformed("an element is longer than what holds it")
        return header.start + header.length

    def element_header(self, tag: int, vr: str, length: int, written: int) -> bytes:
        """`length` is the source's: what was undefined stays so."""
        written = UNDEFINED if length == UNDEFINED else written
        if not self._target.explicit:
            return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, written)
        if vr not in _LONG_VRS and written > 0xFFFF:
            vr = "UN"  # PS3.5 6.2.2, note 3: too long for the short form
        code = vr.encode("ascii")
        if vr in _LONG_VRS:
            return struct.pack("<HH2s2xL", tag >> 16, tag & 0xFFFF, code, written)
        return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, code, written)


def _item(length: int, content: bytes) -> Iterator[bytes]:
    yield _item_header(_ITEM, UNDEFINED if length == UNDEFINED else len(content))
    yield content
    if length == UNDEFINED:
        yield _item_header(_ITEM_END, 0)


def _item_header(tag: int, length: int) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, length)


def _swapped(value: bytes, width: int) -> bytes:
    """Words in the other byte order; a broken last word stays as it is."""
    whole = len(value) // width * width
    swapped = bytearray(whole)
    for place in range(width):
        swapped[place::width] = value[width - 1 - place : whole : width]
    return bytes(swapped) + value[whole:]


def _implied_vr(header: Header, context: Context) -> str:
    """The VR of an element in implicit VR (PS3.5 annex A.1, PS3.6)."""
    group, number = header.tag >> 16, header.tag & 0xFFFF
    if header.length == UNDEFINED:
        return "SQ"
    if number == 0:
        return "UL"
    if group % 2:
        return "LO" if 0x10 <= number <= 0xFF else "UN"
    try:
        vr = dictionary_VR(header.tag)
    except KeyError:
        return "UN"
    if vr == "OB or OW":
        return "OB" if context.bits_allocated <= 8 else "OW"
    if vr.startswith("US or SS"):
        return "SS" if context.signed else "US"
    return "OW" if vr == "US or OW" else vr
