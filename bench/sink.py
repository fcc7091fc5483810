"""A storage SCP of the benchmark's own that keeps nothing but the time at which each instance began to arrive.

It takes every presentation context of storage and verification in the first transfer syntax proposed, and answers every
C-STORE and C-ECHO with success. Like `bench.wire` it knows nothing of the node's code.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Final

from bench.wire import command, elements_of, item, items, pdu, receive_exactly, text_element
from dicomnode.testing.listening import Listening

_ASSOCIATE_RQ, _ASSOCIATE_AC, _DATA, _RELEASE_RQ, _RELEASE_RP = 1, 2, 4, 5, 6
_C_STORE_RQ, _C_ECHO_RQ = 0x0001, 0x0030
_RESPONSE: Final = 0x8000
_TAKEN: Final = (b"1.2.840.10008.5.1.4.1.1.", b"1.2.840.10008.1.1")
"""How abstract syntaxes begin that are taken: storage (PS3.4 B.5) and verification."""

_NOT_SUPPORTED: Final = 3
"""Abstract syntax not supported (PS3.8 9.3.3.2)."""

_LARGEST_PDU: Final = 1 << 17
_SOP_CLASS, _COMMAND_FIELD, _MESSAGE_ID, _RESPONDED_TO, _DATA_SET_TYPE, _STATUS, _SOP_INSTANCE = (
    0x0002, 0x0100, 0x0110, 0x0120, 0x0800, 0x0900, 0x1000,
)  # fmt: skip


class Sink(Listening):
    """A destination. `arrivals` is when the first byte of each instance came (seconds since the epoch), by SOP Instance
    UID, in the order of arrival."""

    ae_title: Final = "SINK"

    def __init__(self) -> None:
        super().__init__()
        self.arrivals: dict[str, float] = {}

    def _serve(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError, EOFError):
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request: dict[int, bytes] = {}
            while True:
                header = receive_exactly(caller, 6)
                began = time.time()
                body = receive_exactly(caller, int.from_bytes(header[2:6], "big"))
                if header[0] == _ASSOCIATE_RQ:
                    caller.sendall(_accepted(body))
                elif header[0] == _RELEASE_RQ:
                    caller.sendall(pdu(_RELEASE_RP, bytes(4)))
                elif header[0] == _DATA:
                    request = self._take(caller, body, request, began)
                else:
                    return

    def _take(self, caller: socket.socket, body: bytes, request: dict[int, bytes], began: float) -> dict[int, bytes]:
        """Take the values of one PDU and answer what is whole; the request that is not answered yet."""
        at = 0
        while at < len(body):
            (length,) = struct.unpack_from(">L", body, at)
            number, control = body[at + 4], body[at + 5]
            if control & 1:
                request = elements_of(body[at + 6 : at + 4 + length])
                if request[_COMMAND_FIELD] == struct.pack("<H", _C_STORE_RQ):
                    self.arrivals.setdefault(request[_SOP_INSTANCE].rstrip(b"\0 ").decode("ascii"), began)
            if control & 2 and (not control & 1 or request[_COMMAND_FIELD] == struct.pack("<H", _C_ECHO_RQ)):
                caller.sendall(_answer(number, request))
            at += 4 + length
        return request


def _accepted(body: bytes) -> bytes:
    """A-ASSOCIATE-AC (PS3.8 9.3.3)."""
    contexts = b""
    for kind, value in items(body[68:]):
        if kind == 0x20:
            (_, abstract), (_, syntax), *_ = items(value[4:])
            result = 0 if abstract.startswith(_TAKEN) else _NOT_SUPPORTED
            contexts += item(0x21, bytes((value[0], 0, result, 0)) + item(0x40, syntax))
    context_name = next(value for kind, value in items(body[68:]) if kind == 0x10)
    user = item(0x51, struct.pack(">L", _LARGEST_PDU)) + item(0x52, b"2.25.1")
    return pdu(_ASSOCIATE_AC, body[:68] + item(0x10, context_name) + contexts + item(0x50, user))


def _answer(number: int, request: dict[int, bytes]) -> bytes:
    """The response with success (PS3.7 9.3.1.2, 9.3.5.2)."""
    (field,) = struct.unpack("<H", request[_COMMAND_FIELD])
    content = text_element(_SOP_CLASS, request[_SOP_CLASS].decode("ascii").rstrip("\0 "))
    for element, value in (
        (_COMMAND_FIELD, struct.pack("<H", field | _RESPONSE)),
        (_RESPONDED_TO, request[_MESSAGE_ID]),
        (_DATA_SET_TYPE, struct.pack("<H", 0x0101)),
        (_STATUS, struct.pack("<H", 0x0000)),
    ):
        content += struct.pack("<HHL", 0, element, len(value)) + value
    if _SOP_INSTANCE in request:
        content += text_element(_SOP_INSTANCE, request[_SOP_INSTANCE].decode("ascii").rstrip("\0 "))
    return command(number, content)
