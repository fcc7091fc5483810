"""Protocol data units on a TCP connection (PS3.8 section 9.3): framing only, nothing of what they carry.

`Wire` is the only place that reads from or writes to a socket; both roles use it. It keeps one buffer, reads each
P-DATA fragment with two system calls and never allocates by a length that came from outside.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from dicomnode.errors import AssociationLostError

MAXIMUM_LENGTH_BYTES: Final = 131_072
"""Largest P-DATA-TF we take and send (PS3.8 D.1); larger ones were measured to be slower."""

MAXIMUM_ASSOCIATE_BYTES: Final = 1 << 20
"""Largest A-ASSOCIATE we read; 128 contexts with every known transfer syntax need 150 KB."""

_SMALLEST_PDU_BYTES: Final = 10  # A-RELEASE, A-ABORT and A-ASSOCIATE-RJ; a P-DATA-TF has 12 or more
_PDU_HEADER: Final = struct.Struct(">BxL")
_PDV_HEADER: Final = struct.Struct(">LBB")
_DATA_HEADER: Final = struct.Struct(">BxLLBB")
DATA_HEADER_BYTES: Final = _DATA_HEADER.size
_QUICKACK: Final = getattr(socket, "TCP_QUICKACK", None)  # Linux only


class PduType(IntEnum):
    """PS3.8 tables 9-11 to 9-26."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class AbortReason(IntEnum):
    """Reason of an A-ABORT whose source is the service provider (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER = 6


_ABORTED_BY: Final = {0: "its application", 2: "its protocol layer"}  # source, PS3.8 table 9-26

RELEASE_RQ: Final = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"
RELEASE_RP: Final = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"
ABORT_BY_USER: Final = b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"


def abort_by_provider(reason: AbortReason) -> bytes:
    return b"\x07\x00\x00\x00\x00\x04\x00\x00\x02" + bytes([reason])


class ProtocolError(AssociationLostError):
    """The other side broke the upper layer protocol or DIMSE; it is answered with an A-ABORT of this reason."""

    def __init__(self, message: str, reason: AbortReason = AbortReason.INVALID_PARAMETER) -> None:
        super().__init__(message, "the other side does not follow the DICOM protocol: look at its log and version")
        self.reason = reason


class AbortedError(AssociationLostError):
    """The other side sent an A-ABORT."""


class StoppedError(AssociationLostError):
    """We are shutting down: `Wire.stop` or `Wire.cut` was called."""


class Fragment(NamedTuple):
    """One presentation data value (PS3.8 annex E). `payload` is valid until the next read only."""

    context_id: int
    is_command: bool
    is_last: bool
    payload: memoryview


class Pdu(NamedTuple):
    """Any PDU but P-DATA-TF and A-ABORT; `body` is what follows its six bytes of header."""

    type: PduType
    body: bytes


class Wire:
    """One connection. Reading is for one thread; `stop` and `cut` may be called from another."""

    def __init__(self, connection: socket.socket, address: str) -> None:
        self.address = address
        self._socket = connection
        self._header = bytearray(_SMALLEST_PDU_BYTES)
        self._control = bytearray(2)
        self._buffer = memoryview(b"")  # an idle connection holds no buffer
        self._left_bytes = 0  # of the P-DATA-TF being read
        self._timeout_s = 0.0
        self._stopped = threading.Event()
        self._ending = threading.Lock()  # a socket that is closed may be another connection's a moment later
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def set_timeout(self, timeout_s: float) -> None:
        """A read or write that takes longer fails. Kernel time-outs: a Python one costs a poll() for each call."""
        self._timeout_s = timeout_s
        value = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1_000_000) or int(timeout_s < 1))
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

    def read(self) -> Fragment | Pdu:
        """The next fragment, or the next PDU that is not P-DATA-TF.

        Raises AbortedError, ProtocolError, StoppedError, or AssociationLostError for an end or a time-out.
        """
        if self._left_bytes:
            header = bytearray(4)
            self._receive([memoryview(header)])
            return self._read_fragment(int.from_bytes(header, "big"))
        self._receive_header()
        number, length = _PDU_HEADER.unpack_from(self._header)
        if number == PduType.DATA:
            if not 6 <= length <= MAXIMUM_LENGTH_BYTES:
                raise ProtocolError(f"P-DATA-TF of {length} bytes, {MAXIMUM_LENGTH_BYTES} were agreed")
            self._left_bytes = length
            return self._read_fragment(int.from_bytes(self._header[6:], "big"))
        return self._read_pdu(number, length)

    def send(self, *parts: bytes | memoryview) -> None:
        """Write everything. Raises AssociationLostError."""
        try:
            sent = self._socket.sendmsg(parts)
            total = sum(len(part) for part in parts)
            if sent < total:
                self._socket.sendall(memoryview(b"".join(parts))[sent:])
        except OSError as error:
            raise _lost(error, self._timeout_s) from None

    def is_silent(self) -> bool:
        """Whether the connection is open and nothing waits to be read, as it must be between two requests."""
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def stop(self) -> None:
        """Make the reading thread fail with StoppedError, at once where it waits."""
        self._shut_down(socket.SHUT_RD)

    def cut(self) -> None:
        """Make reading and writing fail, at once where they wait. The other side sees the connection end."""
        self._shut_down(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._ending:
            self._socket.close()

    def _shut_down(self, direction: int) -> None:
        self._stopped.set()
        with self._ending, contextlib.suppress(OSError):
            self._socket.shutdown(direction)

    def _read_pdu(self, number: int, length: int) -> Pdu:
        try:
            kind = PduType(number)
        except ValueError:
            raise ProtocolError(f"unrecognized PDU type {number}", AbortReason.UNRECOGNIZED_PDU) from None
        associate = kind in (PduType.ASSOCIATE_RQ, PduType.ASSOCIATE_AC)
        if not 4 <= length <= (MAXIMUM_ASSOCIATE_BYTES if associate else 4):
            raise ProtocolError(f"{kind.name} PDU of {length} bytes")
        if kind is PduType.ABORT:
            by = _ABORTED_BY.get(self._header[8], "an unknown part of it")
            raise AbortedError(f"the other side aborted the association ({by})", "its log says why")
        body = bytearray(length)
        body[:4] = self._header[6:]
        if length > 4:
            self._receive([memoryview(body)[4:]])
        return Pdu(kind, bytes(body))

    def _read_fragment(self, length: int) -> Fragment:
        """The rest of a presentation data value whose length was read: context ID, control header, payload."""
        self._left_bytes -= 4 + length
        if length < 2 or self._left_bytes < 0 or 0 < self._left_bytes < 6:
            raise ProtocolError(f"a presentation data value of {length} bytes does not fit its P-DATA-TF")
        if not len(self._buffer):
            self._buffer = memoryview(bytearray(MAXIMUM_LENGTH_BYTES))
        payload = self._buffer[: length - 2]
        self._receive([memoryview(self._control), payload])
        context_id, control = self._control
        return Fragment(context_id, bool(control & 1), bool(control & 2), payload)

    def _receive_header(self) -> None:
        """The first ten bytes of a PDU. Not MSG_WAITALL: a peer with Nagle on may hold the rest until our ACK."""
        view, deadline = memoryview(self._header), time.monotonic() + self._timeout_s
        while len(view):
            if time.monotonic() > deadline:
                raise _lost(BlockingIOError(), self._timeout_s)
            view = view[self._receive_once([view], 0) :]

    def _receive(self, views: list[memoryview]) -> None:
        """Fill the views within one time-out; a trickle is a time-out too (MSG_WAITALL gives what came until then)."""
        wanted = sum(len(view) for view in views)
        if self._receive_once(views, socket.MSG_WAITALL) != wanted:
            raise AssociationLostError("the connection ended or stalled within a PDU", _LOST_HINT)

    def _receive_once(self, views: list[memoryview], flags: int) -> int:
        if self._stopped.is_set():
            raise StoppedError("this node is stopping")
        try:
            self._acknowledge_at_once()
            received = self._socket.recvmsg_into(views, 0, flags)[0]
            self._acknowledge_at_once()
        except OSError as error:
            raise _lost(error, self._timeout_s) from None
        if not received:
            if self._stopped.is_set():
                raise StoppedError("this node is stopping")
            raise AssociationLostError("the other side closed the connection", _LOST_HINT)
        return received

    def _acknowledge_at_once(self) -> None:
        """A peer with Nagle on holds its next write until our ACK: 40 ms each. Linux forgets it after each receive."""
        if _QUICKACK is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def fragments(context_id: int, is_command: bool, payload: bytes, maximum_bytes: int) -> Sequence[bytes]:
    """A message as P-DATA-TF PDUs of one fragment each: header, payload, header, payload, ..."""
    size = fragment_bytes(maximum_bytes)
    parts = []
    for start in range(0, len(payload), size):
        piece = payload[start : start + size]
        parts += [data_header(context_id, is_command, start + size >= len(payload), len(piece)), piece]
    return parts


def fragment_bytes(maximum_bytes: int) -> int:
    """How much payload fits a P-DATA-TF of the agreed maximum length (0: no maximum, PS3.8 D.1.1)."""
    limit = min(maximum_bytes or MAXIMUM_LENGTH_BYTES, MAXIMUM_LENGTH_BYTES)
    return (limit - 6) & ~1


def data_header(context_id: int, is_command: bool, is_last: bool, payload_bytes: int) -> bytes:
    """Header of a P-DATA-TF and of its only presentation data value (PS3.8 9.3.5, E.2)."""
    control = is_command | is_last << 1
    return _DATA_HEADER.pack(PduType.DATA, payload_bytes + 6, payload_bytes + 2, context_id, control)


_LOST_HINT: Final = "look at the other side's log; the network or a firewall may cut idle connections"


def _lost(error: OSError, timeout_s: float) -> AssociationLostError:
    if isinstance(error, BlockingIOError):
        return AssociationLostError(f"nothing came or went for {timeout_s:g} s", _LOST_HINT)
    return AssociationLostError(f"the connection broke: {error.strerror or type(error).__name__}", _LOST_HINT)
