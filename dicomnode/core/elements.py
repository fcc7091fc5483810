"""The first level of an encoded data set (PS3.5 section 7.1), walked from its start: bounded, and quick.

Only what is well formed is walked; anything else gives nothing, and a tolerant reader has to look.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Final, NamedTuple

IMPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"

MAX_VALUE_BYTES: Final = 1 << 16
"""A header value longer than this is taken as absent."""

SHORT_VRS: Final = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
     b"ST", b"TM", b"UI", b"UL", b"US")
)  # fmt: skip
LONG_VRS: Final = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_MAX_DEPTH: Final = 16
ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD


class RawElement(NamedTuple):
    """An element as it was encoded, in the words of pydicom's RawDataElement. `VR` is None where none was sent."""

    tag: int
    VR: str | None
    value: bytes
    is_little_endian: bool


class _OddError(Exception):
    """The data set is not what this walker takes."""


def walk_start(
    start: bytes | memoryview, transfer_syntax_uid: str, tags: Collection[int]
) -> dict[int, RawElement] | None:
    """Those of the elements that a data set has, from its first bytes.

    None where these do not reach beyond the last of `tags`, or are in any way odd: out of order, cut, in another
    encoding than the transfer syntax says.
    """
    try:
        return _Walker(start, transfer_syntax_uid).elements(tags)
    except (_OddError, struct.error):
        return None


class _Walker:
    def __init__(self, start: bytes | memoryview, transfer_syntax_uid: str) -> None:
        self._start = start
        self._end = len(start)
        self._explicit = transfer_syntax_uid != IMPLICIT_LITTLE_ENDIAN
        self._little = transfer_syntax_uid != EXPLICIT_BIG_ENDIAN
        order = "<" if self._little else ">"
        self._explicit_header = struct.Struct(f"{order}HH2sH").unpack_from
        self._implicit_header = struct.Struct(f"{order}HHL").unpack_from
        self._length = struct.Struct(f"{order}L").unpack_from

    def elements(self, tags: Collection[int]) -> dict[int, RawElement]:
        """Loops in line what `_header` does for one element: it runs a hundred times for each instance received."""
        start, explicit, little = self._start, self._explicit, self._little
        unpack = self._explicit_header if explicit else self._implicit_header
        found: dict[int, RawElement] = {}
        last, position, before, vr = max(tags), 0, -1, b""
        while True:
            value = position + 8
            if explicit:
                group, element, vr, length = unpack(start, position)
                if vr not in SHORT_VRS:
                    if vr not in LONG_VRS:
                        raise _OddError
                    (length,) = self._length(start, value)
                    value += 4
            else:
                group, element, length = unpack(start, position)
            tag = group << 16 | element
            if tag <= before:
                raise _OddError
            if tag > last:
                return found
            before = tag
            if length == UNDEFINED_LENGTH:
                position = self._after_sequence(value, vr, 0)
                continue
            position = value + length
            if tag in tags:
                if position > self._end or length > MAX_VALUE_BYTES:
                    raise _OddError
                found[tag] = RawElement(tag, vr.decode("ascii") or None, bytes(start[value:position]), little)

    def _header(self, position: int) -> tuple[int, bytes, int, int]:
        """(tag, VR, length, where the value begins); items and delimiters have no VR."""
        if not self._explicit:
            group, element, length = self._implicit_header(self._start, position)
            return group << 16 | element, b"", length, position + 8
        group, element, vr, short = self._explicit_header(self._start, position)
        if vr in SHORT_VRS:
            return group << 16 | element, vr, short, position + 8
        if vr in LONG_VRS:
            return group << 16 | element, vr, self._length(self._start, position + 8)[0], position + 12
        raise _OddError

    def _after_sequence(self, position: int, vr: bytes, depth: int) -> int:
        """Where a sequence of undefined length ends."""
        if depth > _MAX_DEPTH or (vr and vr != b"SQ"):  # undefined length elsewhere: implicit inside (PS3.5 6.2.2)
            raise _OddError
        while True:
            group, element, length = self._implicit_header(self._start, position)  # items have no VR in any encoding
            position += 8
            tag = group << 16 | element
            if tag == SEQUENCE_END:
                return position
            if tag != ITEM:
                raise _OddError
            position = self._after_item(position, depth) if length == UNDEFINED_LENGTH else position + length

    def _after_item(self, position: int, depth: int) -> int:
        """Where an item of undefined length ends."""
        while True:
            group, element, _ = self._implicit_header(self._start, position)
            if group << 16 | element == ITEM_END:
                return position + 8
            _, vr, length, value = self._header(position)
            position = self._after_sequence(value, vr, depth + 1) if length == UNDEFINED_LENGTH else value + length
