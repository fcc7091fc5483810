"""A small data set with its sequences (PS3.5 section 7.5), from bytes that nobody has checked: bounded in all ways.

For what N-services carry: a few UIDs and words, deep within sequences. Of everything else nothing is kept or decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

from dicomnode.core.elements import ITEM, ITEM_END, LONG_VRS, SEQUENCE_END, SHORT_VRS, UNDEFINED_LENGTH
from dicomnode.core.headers import encoding_of
from dicomnode.errors import InputError

_MAX_DEPTH: Final = 16
_MAX_ELEMENTS: Final = 500_000
"""Of all levels together: a procedure step of 10,000 images has 40,000."""

_ELEMENT: Final = {True: struct.Struct("<HHL"), False: struct.Struct(">HHL")}
_EXPLICIT: Final = {True: struct.Struct("<HH2sH"), False: struct.Struct(">HH2sH")}
_LENGTH: Final = {True: struct.Struct("<L"), False: struct.Struct(">L")}


@dataclass(frozen=True, slots=True)
class Item:
    """A data set, or an item of a sequence: what was asked for of it, by tag."""

    values: dict[int, bytes] = field(default_factory=dict)
    sequences: dict[int, list[Item]] = field(default_factory=dict)

    def text(self, tag: int) -> str:
        """The first value as text without its padding, "" where absent; what is not ASCII shows as U+FFFD."""
        return self.values.get(tag, b"").decode("ascii", "replace").split("\\")[0].strip(" \0")

    def number(self, tag: int) -> int | None:
        """A US value in little endian (readers normalise), None where absent or of another length."""
        value = self.values.get(tag, b"")
        return int.from_bytes(value, "little") if len(value) == 2 else None

    def items(self, tag: int) -> tuple[Item, ...]:
        return tuple(self.sequences.get(tag, ()))


def read_items(encoded: bytes, transfer_syntax_uid: str, wanted: Collection[int], sequences: Collection[int]) -> Item:
    """A data set's `wanted` values at any level, and its `sequences`.

    Raises InputError where it is cut short, nested or numerous without measure, or no data set at all.
    """
    implicit, little = encoding_of(BytesIO(encoded[:8]), transfer_syntax_uid)
    reader = _Reader(encoded, little, frozenset(wanted), frozenset(sequences))
    try:
        return reader.data_set(0, len(encoded), implicit, 0)[0]
    except struct.error:
        raise _broken("it ends within an element") from None


@dataclass(frozen=True, slots=True)
class _Header:
    tag: int
    vr: bytes
    length: int
    start: int


class _Reader:
    def __init__(self, encoded: bytes, little: bool, wanted: frozenset[int], sequences: frozenset[int]) -> None:
        self._encoded = encoded
        self._little = little
        self._wanted = wanted
        self._sequences = sequences
        self._elements_left = _MAX_ELEMENTS

    def data_set(self, position: int, end: int | None, implicit: bool, depth: int) -> tuple[Item, int]:
        """The elements up to `end`, or, where that is None, up to the delimiter; and where they end."""
        found = Item()
        while end is None or position < end:
            header = self._header(position, implicit)
            if header.tag == ITEM_END and end is None:
                return found, header.start
            if header.length != UNDEFINED_LENGTH and header.start + header.length > (end or len(self._encoded)):
                raise _broken("an element is longer than what it is in")
            position = self._element(found, header, implicit, depth)
        return found, position

    def _element(self, found: Item, header: _Header, implicit: bool, depth: int) -> int:
        """Keep one element if it is wanted; where it ends."""
        has_items = header.length == UNDEFINED_LENGTH or header.tag in self._sequences
        if header.vr in SHORT_VRS or (not has_items):
            if header.length == UNDEFINED_LENGTH:
                raise _broken("a value of undefined length")
            end = header.start + header.length
            if header.tag in self._wanted:
                found.values[header.tag] = self._value(header, end)
            return end
        items, position = self._items(header, implicit or header.vr == b"UN", depth + 1)  # PS3.5 6.2.2 note 2
        if header.tag in self._sequences:
            found.sequences[header.tag] = items
        return position

    def _items(self, header: _Header, implicit: bool, depth: int) -> tuple[list[Item], int]:
        """The items of a sequence, and where it ends."""
        if depth > _MAX_DEPTH:
            raise _broken("its sequences are nested too deeply")
        end = None if header.length == UNDEFINED_LENGTH else header.start + header.length
        position = header.start
        items: list[Item] = []
        while end is None or position < end:
            item = self._header(position, implicit=True)  # items have no VR in any encoding
            if item.tag == SEQUENCE_END and end is None:
                return items, item.start
            if item.tag != ITEM:
                raise _broken("a sequence holds what is no item")
            inner = None if item.length == UNDEFINED_LENGTH else item.start + item.length
            if inner is not None and inner > (end or len(self._encoded)):
                raise _broken("an item is longer than its sequence")
            read, position = self.data_set(item.start, inner, implicit, depth)
            items.append(read)
        return items, position

    def _header(self, position: int, implicit: bool) -> _Header:
        self._elements_left -= 1
        if self._elements_left < 0:
            raise _broken("it has too many elements")
        group, element, length = _ELEMENT[self._little].unpack_from(self._encoded, position)
        tag = group << 16 | element
        if implicit or group == ITEM >> 16:
            return _Header(tag, b"", length, position + 8)
        _, _, vr, short = _EXPLICIT[self._little].unpack_from(self._encoded, position)
        if vr in SHORT_VRS:
            return _Header(tag, vr, short, position + 8)
        if vr not in LONG_VRS:
            raise _broken("an element has a VR that is none")
        return _Header(tag, vr, _LENGTH[self._little].unpack_from(self._encoded, position + 8)[0], position + 12)

    def _value(self, header: _Header, end: int) -> bytes:
        value = self._encoded[header.start : end]
        return value[::-1] if header.vr == b"US" and not self._little else value


def _broken(why: str) -> InputError:
    return InputError(f"the data set cannot be read: {why}", "look at the log of its sender, and its version")
