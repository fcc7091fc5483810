"""Protocol data units on a TCP connection (PS3.8 section 9.3): framing only, nothing of what they carry.

`Wire` is the only place that reads from or writes to a socket; both roles use it. It keeps one buffer and never
allocates by a length that came from outside.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import ClassVar, Final, NamedTuple, Protocol

from dicomnode.errors import AssociationLostError
from dicomnode.net.certificates import PeerCertificate

MAXIMUM_LENGTH_BYTES: Final = 131_072
"""Largest P-DATA-TF we take and send (PS3.8 D.1); larger ones were measured to be slower."""

MAXIMUM_ASSOCIATE_BYTES: Final = 512 << 10
"""Largest A-ASSOCIATE we read; 128 contexts with every known transfer syntax need 150 KB."""

_BUFFER_BYTES: Final = 1 << 20  # a CT or MR slice in one piece; larger than any PDU we read
_BLOCK_BYTES: Final = 1 << 18
_MOST_PIECES: Final = 512  # of a data set held at once: IOV_MAX is 1024

_PDU_HEADER: Final = struct.Struct(">BxL")
_PDV_HEADER: Final = struct.Struct(">LBB")
_DATA_HEADER: Final = struct.Struct(">BxLLBB")
DATA_HEADER_BYTES: Final = _DATA_HEADER.size
_QUICKACK: Final = getattr(socket, "TCP_QUICKACK", None)  # Linux only
_MORE: Final = getattr(socket, "MSG_MORE", 0)  # Linux only
_TLS_RECORDS: Final = range(20, 25)  # RFC 8446 5.1: how a record of TLS begins
_FILE_ERRORS: Final = frozenset({errno.EIO, errno.ESTALE})
"""Of sendfile(2): what no socket fails with."""


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


class Observer(Protocol):
    """Is told what goes over a connection, for a trace; payloads are not for it."""

    def sent(self, part: bytes | memoryview) -> None:
        """The next bytes of one or more PDUs."""
        ...

    def sent_file(self, size_bytes: int) -> None:
        """So many bytes, which are within a P-DATA-TF."""
        ...

    def received_data(self, length: int) -> None:
        """The header of a P-DATA-TF."""
        ...

    def received_fragment(self, context_id: int, control: int) -> None: ...

    def received_pdu(self, number: int, body: bytes) -> None:
        """A PDU that is not P-DATA-TF."""
        ...

    def ended(self) -> None: ...


class Wire:
    """One connection. Reading is for one thread; `stop` and `cut` may be called from another.

    It receives as much as there is into one buffer and finds the PDUs there: few system calls whatever their size, and
    a data set's bytes are never moved before they are written. `_receive_once`, `_transmit`, `is_silent` and
    `set_timeout` are all that knows that it is a plain TCP connection.

    sends_files  whether `send_file` may be used: the kernel can, but what it sends is not encrypted
    """

    sends_files: ClassVar[bool] = hasattr(os, "sendfile")

    is_secured: bool = False
    """Whether what goes over it is encrypted."""
    certificate: PeerCertificate | None = None
    """What the other side has proved itself with."""
    observer: Observer | None = None

    def __init__(self, connection: socket.socket, address: str) -> None:
        self.address = address
        self._socket = connection
        self._buffer = memoryview(b"")  # an idle connection holds no buffer
        self._start = self._end = 0  # of what is received and not read
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

    def secure(self) -> None:
        """Do what comes before the first PDU: nothing on a plain connection. Raises as `read` does."""

    def read(self) -> Fragment | Pdu:
        """The next fragment, or the next PDU that is not P-DATA-TF.

        Raises AbortedError, ProtocolError, StoppedError, or AssociationLostError for an end or a time-out.
        """
        other = None if self._left_bytes else self._read_pdu_header(_nothing)
        return other if other is not None else self._read_fragment(_nothing)

    def read_data(self, context_id: int, write: Callable[[Sequence[memoryview]], None]) -> None:
        """Read one data set to its end. Its payloads are handed to `write` in blocks, each valid during that call.

        Raises as `read` does; ProtocolError for anything but fragments of a data set in this presentation context.
        """
        held: list[memoryview] = []
        held_bytes = 0

        def make_room() -> None:
            nonlocal held_bytes
            write(held)
            held.clear()
            held_bytes = 0

        is_last = False
        while not is_last:
            fragment = self._fragment_at_hand()
            if fragment is None:
                other = None if self._left_bytes else self._read_pdu_header(make_room)
                if other is not None:
                    raise ProtocolError(f"{other.type.name} within a data set", AbortReason.UNEXPECTED_PDU)
                fragment = self._read_fragment(make_room)
            found_id, is_command, is_last, payload = fragment
            if is_command or found_id != context_id:
                raise ProtocolError("a fragment of another message within a data set", AbortReason.UNEXPECTED_PDU)
            if payload:
                held.append(payload)
                held_bytes += len(payload)
                if held_bytes >= _BLOCK_BYTES or len(held) == _MOST_PIECES:
                    make_room()  # more comes in while this is written
        write(held)

    def send(self, *parts: bytes | memoryview) -> None:
        """Write everything. Raises AssociationLostError."""
        if self.observer is not None:
            for part in parts:
                self.observer.sent(part)
        try:
            self._transmit(parts)
        except OSError as error:
            raise _lost(error, self._timeout_s) from None

    def is_silent(self) -> bool:
        """Whether the connection is open and nothing waits to be read, as it must be between two requests."""
        if self._start < self._end:
            return False
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
        if self.observer is not None:
            self.observer.ended()
        with self._ending:
            self._socket.close()

    def _shut_down(self, direction: int) -> None:
        self._stopped.set()
        with self._ending, contextlib.suppress(OSError):
            self._socket.shutdown(direction)

    def _read_pdu_header(self, make_room: Callable[[], None]) -> Pdu | None:
        """Begin the next PDU; None where it is a P-DATA-TF, whose fragments are to be read then."""
        self._await(_PDU_HEADER.size, make_room)
        number, length = _PDU_HEADER.unpack_from(self._buffer, self._start)
        if number != PduType.DATA:
            return self._read_pdu(number, length)
        if not 6 <= length <= MAXIMUM_LENGTH_BYTES:
            raise ProtocolError(f"P-DATA-TF of {length} bytes, {MAXIMUM_LENGTH_BYTES} were agreed")
        self._start += _PDU_HEADER.size
        self._left_bytes = length
        if self.observer is not None:
            self.observer.received_data(length)
        return None

    def _read_pdu(self, number: int, length: int) -> Pdu:
        try:
            kind = PduType(number)
        except ValueError:
            tls = ": that is TLS, and not spoken here" if number in _TLS_RECORDS else ""
            raise ProtocolError(f"unrecognized PDU type {number}{tls}", AbortReason.UNRECOGNIZED_PDU) from None
        associate = kind in (PduType.ASSOCIATE_RQ, PduType.ASSOCIATE_AC)
        if not 4 <= length <= (MAXIMUM_ASSOCIATE_BYTES if associate else 4):
            raise ProtocolError(f"{kind.name} PDU of {length} bytes")
        self._start += _PDU_HEADER.size
        self._await(length, _nothing)
        body = bytes(self._buffer[self._start : self._start + length])
        self._start += length
        if self.observer is not None:
            self.observer.received_pdu(number, body)
        if kind is PduType.ABORT:
            by = _ABORTED_BY.get(body[2], "an unknown part of it")
            raise AbortedError(f"the other side aborted the association ({by})", "its log says why")
        return Pdu(kind, body)

    def _fragment_at_hand(self) -> Fragment | None:
        """The next fragment if it is received whole and alone in its P-DATA-TF, as most are: found in one look."""
        start = self._start
        if self._left_bytes or self._end - start < DATA_HEADER_BYTES or self.observer is not None:
            return None
        number, length, item_length, context_id, control = _DATA_HEADER.unpack_from(self._buffer, start)
        end = start + _PDU_HEADER.size + length
        if number != PduType.DATA or not 6 <= length <= MAXIMUM_LENGTH_BYTES or item_length != length - 4:
            return None
        if end > self._end:
            return None
        self._start = end
        return Fragment(context_id, bool(control & 1), bool(control & 2), self._buffer[start + DATA_HEADER_BYTES : end])

    def _read_fragment(self, make_room: Callable[[], None]) -> Fragment:
        """The next presentation data value of the P-DATA-TF that is being read."""
        self._await(_PDV_HEADER.size, make_room)
        length, context_id, control = _PDV_HEADER.unpack_from(self._buffer, self._start)
        self._left_bytes -= 4 + length
        if length < 2 or self._left_bytes < 0 or 0 < self._left_bytes < 6:
            raise ProtocolError(f"a presentation data value of {length} bytes does not fit its P-DATA-TF")
        self._start += _PDV_HEADER.size
        self._await(length - 2, make_room)
        if self.observer is not None:
            self.observer.received_fragment(context_id, control)
        payload = self._buffer[self._start : self._start + length - 2]
        self._start += length - 2
        return Fragment(context_id, bool(control & 1), bool(control & 2), payload)

    def _await(self, wanted_bytes: int, make_room: Callable[[], None]) -> None:
        """Have so many bytes at the start of what is not read, within one time-out: a trickle is a time-out too.

        Where the buffer has no room for them its content moves, after `make_room` has let go of what was read.
        """
        if self._end - self._start >= wanted_bytes:
            return
        if not self._buffer:
            self._buffer = memoryview(mmap.mmap(-1, _BUFFER_BYTES))  # takes memory where it is written to, only
        if self._start == self._end and make_room is _nothing:
            self._start = self._end = 0
        elif self._start + wanted_bytes > len(self._buffer):
            make_room()
            self._move_to_front()
        deadline = time.monotonic() + self._timeout_s
        while self._end - self._start < wanted_bytes:
            self._end += self._receive(self._buffer[self._end :])
            if time.monotonic() > deadline and self._end - self._start < wanted_bytes:
                raise _lost(BlockingIOError(), self._timeout_s)

    def _move_to_front(self) -> None:
        unread = self._end - self._start
        self._buffer[:unread] = self._buffer[self._start : self._end]
        self._start, self._end = 0, unread

    def _receive(self, view: memoryview) -> int:
        if self._stopped.is_set():
            raise StoppedError("this node is stopping")
        try:
            received = self._receive_once(view)
        except OSError as error:
            raise _lost(error, self._timeout_s) from None
        if received:
            return received
        if self._stopped.is_set():
            raise StoppedError("this node is stopping")
        raise AssociationLostError("the other side closed the connection", _LOST_HINT)

    def _receive_once(self, view: memoryview) -> int:
        """What there is, at least a byte, or 0 at the end of the connection."""
        received = self._socket.recv_into(view)
        if _QUICKACK is not None:
            # A peer with Nagle on holds its next write until our ACK: 40 ms each. Linux forgets it after each receive.
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        return received

    def send_file(self, header: bytes, descriptor: int, offset: int, count: int) -> int:
        """Write a header and up to `count` bytes of an open file, copied only by the kernel (sendfile); how many went.

        They are fewer where the file ends before. Only where `sends_files`. Raises AssociationLostError, and OSError
        where it is the file that cannot be read.
        """
        if self.observer is not None:
            self.observer.sent(header)
            self.observer.sent_file(count)
        try:
            self._transmit_more(header)
            left = count
            while left and (sent := os.sendfile(self._socket.fileno(), descriptor, offset, left)):
                offset, left = offset + sent, left - sent
        except OSError as error:
            if error.errno in _FILE_ERRORS:
                raise
            raise _lost(error, self._timeout_s) from None
        return count - left

    def _transmit_more(self, header: bytes) -> None:
        """More follows at once: it leaves together with that."""
        sent = self._socket.send(header, _MORE)
        if sent < len(header):
            self._socket.sendall(header[sent:], _MORE)

    def _transmit(self, parts: Sequence[bytes | memoryview]) -> None:
        sent = self._socket.sendmsg(parts)
        if sent < sum(len(part) for part in parts):
            self._socket.sendall(memoryview(b"".join(parts))[sent:])


def _nothing() -> None:
    """Nothing read before is held."""


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
