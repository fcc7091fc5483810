"""DIMSE commands (PS3.7): command sets in implicit VR little endian, and messages as fragments of a `Wire`."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from dicomnode.net.pdu import AbortReason, Pdu, ProtocolError, Wire

_ELEMENT: Final = struct.Struct("<HHL")
_TAG: Final = struct.Struct("<HH")
_MAXIMUM_COMMAND_BYTES: Final = 1 << 16
NO_DATA_SET: Final = 0x0101  # Command Data Set Type (PS3.7 E.2)
DATA_SET: Final = 0x0001


class Element(IntEnum):
    """Element numbers of group 0000 (PS3.7 annex E.1)."""

    AFFECTED_SOP_CLASS_UID = 0x0002
    REQUESTED_SOP_CLASS_UID = 0x0003
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    MOVE_DESTINATION = 0x0600
    PRIORITY = 0x0700
    COMMAND_DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    OFFENDING_ELEMENT = 0x0901
    ERROR_COMMENT = 0x0902
    ERROR_ID = 0x0903
    AFFECTED_SOP_INSTANCE_UID = 0x1000
    REQUESTED_SOP_INSTANCE_UID = 0x1001
    EVENT_TYPE_ID = 0x1002
    ACTION_TYPE_ID = 0x1008
    REMAINING_SUB_OPERATIONS = 0x1020
    COMPLETED_SUB_OPERATIONS = 0x1021
    FAILED_SUB_OPERATIONS = 0x1022
    WARNING_SUB_OPERATIONS = 0x1023


class CommandField(IntEnum):
    """PS3.7 E.1-1; a response has the highest bit set."""

    C_STORE_RQ = 0x0001
    C_GET_RQ = 0x0010
    C_FIND_RQ = 0x0020
    C_MOVE_RQ = 0x0021
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100
    N_SET_RQ = 0x0120
    N_ACTION_RQ = 0x0130
    N_CREATE_RQ = 0x0140
    C_CANCEL_RQ = 0x0FFF
    C_STORE_RSP = 0x8001
    C_ECHO_RSP = 0x8030


RESPONSE: Final = 0x8000
_TEXTS: Final = frozenset({Element.ERROR_COMMENT, Element.MOVE_DESTINATION})
"""What is padded with a space (LO, AE); everything else that is no number is a UID."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command set: encoded values by element number."""

    values: Mapping[int, bytes]

    def number(self, element: Element) -> int | None:
        """A US value, None where absent or not two bytes long."""
        value = self.values.get(element, b"")
        return int.from_bytes(value, "little") if len(value) == 2 else None

    def uid(self, element: Element) -> str:
        """A UI value without its padding, "" where absent. Not validated: what is not ASCII shows as U+FFFD."""
        return self.values.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace")

    def text(self, element: Element) -> str:
        """An LO value, "" where absent; what is not ASCII shows as U+FFFD."""
        return self.values.get(element, b"").decode("ascii", "replace").strip(" \0")

    def tags(self, element: Element) -> tuple[int, ...]:
        """An AT value: tags as (group << 16) + element; a broken last one is left out."""
        value = self.values.get(element, b"")
        return tuple(group << 16 | number for group, number in _TAG.iter_unpack(value[: len(value) // 4 * 4]))

    @property
    def field(self) -> int | None:
        return self.number(Element.COMMAND_FIELD)

    @property
    def has_data_set(self) -> bool:
        return self.number(Element.COMMAND_DATA_SET_TYPE) != NO_DATA_SET


def command(values: Mapping[Element, int | str]) -> bytes:
    """An encoded command set with its group length; numbers become US, UIDs are padded with NUL, text with a space."""
    encoded = b"".join(_encode(element, values[element]) for element in sorted(values))
    return _ELEMENT.pack(0, 0, 4) + len(encoded).to_bytes(4, "little") + encoded


def _encode(element: Element, value: int | str) -> bytes:
    if isinstance(value, int):
        content = value.to_bytes(2, "little")
    else:
        content = value.encode("ascii")
        content += (b" " if element in _TEXTS else b"\0") * (len(content) % 2)
    return _ELEMENT.pack(0, element, len(content)) + content


def parse_command(encoded: bytes) -> Command:
    """Raises ProtocolError where the elements do not add up."""
    values: dict[int, bytes] = {}
    position = 0
    while position < len(encoded):
        if position + 8 > len(encoded):
            raise ProtocolError("a command set ends within an element")
        group, element, length = _ELEMENT.unpack_from(encoded, position)
        position += 8
        if group != 0 or position + length > len(encoded):
            raise ProtocolError("a command set holds an element that is not of group 0000 or too long")
        values[element] = encoded[position : position + length]
        position += length
    return Command(values)


def read_command(wire: Wire) -> tuple[int, Command] | Pdu:
    """The next command with its presentation context ID, or a PDU that is not P-DATA-TF."""
    context_id, encoded = 0, bytearray()
    while True:
        read = wire.read()
        if isinstance(read, Pdu):
            if encoded:
                raise ProtocolError(f"{read.type.name} within a command set", AbortReason.UNEXPECTED_PDU)
            return read
        if not read.is_command:
            raise ProtocolError("data set where a command was due", AbortReason.UNEXPECTED_PDU)
        if encoded and read.context_id != context_id:
            raise ProtocolError("a command set changes its presentation context")
        context_id = read.context_id
        encoded += read.payload
        if len(encoded) > _MAXIMUM_COMMAND_BYTES:
            raise ProtocolError("a command set without end")
        if read.is_last:
            return context_id, parse_command(bytes(encoded))
