"""A small storage SCU of the benchmark's own, over plain sockets, that knows nothing of the node's code.

It opens associations, stores, echoes, releases, and does what no good sender does: it can cut anything short.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VERIFICATION: Final = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")
"""SOP class and transfer syntax of C-ECHO."""

_APPLICATION_CONTEXT: Final = b"1.2.840.10008.3.1.1.1"
_IMPLEMENTATION: Final = b"2.25.131902684016350198423170514207690144521"
_USUAL_PDU: Final = 1 << 17
_TIMEOUT_S: Final = 120.0
_ASSOCIATE_AC, _DATA, _RELEASE_RP = 2, 4, 6
_RELEASE_RQ: Final = bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0))
_ABORT: Final = bytes((7, 0, 0, 0, 0, 4, 0, 0, 0, 0))


class BrokenError(Exception):
    """The association was refused, aborted or lost."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One object as it is sent."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes

    @property
    def context(self) -> tuple[str, str]:
        return self.sop_class_uid, self.transfer_syntax_uid

    def renamed(self, old: str, new: str) -> Sent:
        """The same object with `new` in the place of `old`, of the same length, in all its UIDs."""
        return Sent(
            self.sop_class_uid,
            self.sop_instance_uid.replace(old, new),
            self.transfer_syntax_uid,
            self.data_set.replace(old.encode(), new.encode()),
        )


def read(path: Path) -> Sent:
    """A Part 10 file (PS3.10 7.1)."""
    content, at, meta = path.read_bytes(), 132, {}
    while content[at : at + 2] == b"\x02\x00":
        _, number, vr, short = struct.unpack_from("<HH2sH", content, at)
        length, start = (struct.unpack_from("<L", content, at + 8)[0], at + 12) if vr == b"OB" else (short, at + 8)
        meta[number] = content[start : start + length].rstrip(b"\0 ").decode("ascii", "replace")
        at = start + length
    return Sent(meta[0x0002], meta[0x0003], meta[0x0010], content[at:])


class Association:
    """One association as its requestor. Raises BrokenError from everything that waits for an answer."""

    def __init__(self, port: int, called_ae: str, calling_ae: str, contexts: Iterable[tuple[str, str]]) -> None:
        self._numbers = {context: 2 * index + 1 for index, context in enumerate(sorted(set(contexts)))}
        self._message = 0
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
        except OSError as error:
            raise BrokenError("no connection") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._send(_request(called_ae, calling_ae, self._numbers))
            accepted, self._largest_pdu = _accepted(self._receive(_ASSOCIATE_AC))
            if missing := set(self._numbers.values()) - accepted:
                raise BrokenError(f"{len(missing)} presentation contexts were refused")
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether nobody on this side has ended it."""
        return self._socket.fileno() >= 0

    def echo(self) -> int:
        """C-ECHO; its status."""
        self._message += 1
        elements = text_element(0x0002, VERIFICATION[0]) + _number(0x0100, 0x0030) + _number(0x0110, self._message)
        self._send(command(self._numbers[VERIFICATION], elements + _number(0x0800, 0x0101)))
        return _status(self._receive(_DATA))

    def store(self, sent: Sent) -> int:
        """C-STORE; its status."""
        for pdu in self.pdus(sent):
            self._send(pdu)
        return _status(self._receive(_DATA))

    def store_part(self, sent: Sent, share: float) -> None:
        """The first bytes of a C-STORE, `share` of 1, cut wherever that is."""
        whole = b"".join(self.pdus(sent))
        self._send(whole[: int(len(whole) * share)])

    def pdus(self, sent: Sent) -> Sequence[bytes]:
        """A C-STORE request, command and data set."""
        self._message = self._message % 65535 + 1
        number = self._numbers[sent.context]
        elements = text_element(0x0002, sent.sop_class_uid) + _number(0x0100, 0x0001) + _number(0x0110, self._message)
        elements += _number(0x0700, 0x0000) + _number(0x0800, 0x0001) + text_element(0x1000, sent.sop_instance_uid)
        step = (self._largest_pdu - 6) & ~1
        pieces = [sent.data_set[at : at + step] for at in range(0, len(sent.data_set), step)] or [b""]
        data = [_data(number, 0, piece) for piece in pieces[:-1]]
        return [command(number, elements), *data, _data(number, 2, pieces[-1])]

    def release(self) -> None:
        self._send(_RELEASE_RQ)
        self._receive(_RELEASE_RP)
        self.close()

    def abort(self) -> None:
        """A-ABORT, and gone."""
        self._send(_ABORT)
        self.close()

    def close(self) -> None:
        """Only the connection, as a machine that is switched off."""
        self._socket.close()

    def _send(self, content: bytes) -> None:
        try:
            self._socket.sendall(content)
        except OSError as error:
            raise BrokenError("the connection broke while sending") from error

    def _receive(self, expected: int) -> bytes:
        header = self._exactly(6)
        body = self._exactly(int.from_bytes(header[2:6], "big"))
        if header[0] != expected:
            raise BrokenError(f"PDU type {header[0]} came where {expected} was expected")
        return body

    def _exactly(self, length: int) -> bytes:
        try:
            return receive_exactly(self._socket, length)
        except OSError as error:
            raise BrokenError("no answer") from error
        except EOFError as error:
            raise BrokenError("the connection was closed") from error


def receive_exactly(connection: socket.socket, length: int) -> bytes:
    """So many bytes; raises EOFError where the other side closed the connection before."""
    content = bytearray()
    while len(content) < length:
        more = connection.recv(length - len(content))
        if not more:
            raise EOFError("the connection was closed")
        content += more
    return bytes(content)


def _request(called_ae: str, calling_ae: str, numbers: dict[tuple[str, str], int]) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    proposals = b"".join(
        item(0x20, bytes((number, 0, 0, 0)) + item(0x30, abstract.encode()) + item(0x40, syntax.encode()))
        for (abstract, syntax), number in numbers.items()
    )
    user = item(0x51, struct.pack(">L", _USUAL_PDU)) + item(0x52, _IMPLEMENTATION) + item(0x55, b"BENCH")
    titles = f"{called_ae:<16}{calling_ae:<16}".encode("ascii")
    body = struct.pack(">H2x", 1) + titles + bytes(32) + item(0x10, _APPLICATION_CONTEXT) + proposals
    return pdu(1, body + item(0x50, user))


def _accepted(body: bytes) -> tuple[frozenset[int], int]:
    """The numbers of the accepted contexts, and the largest PDU that the peer takes."""
    accepted, largest = set(), _USUAL_PDU
    for kind, value in items(body[68:]):
        if kind == 0x21 and value[2] == 0:
            accepted.add(value[0])
        if kind == 0x50:
            largest = next((int.from_bytes(each, "big") for sub, each in items(value) if sub == 0x51), 0) or largest
    return frozenset(accepted), min(largest, 1 << 20)


def items(content: bytes) -> Iterable[tuple[int, bytes]]:
    """Items and sub-items of an association PDU, by type (PS3.8 9.3)."""
    at = 0
    while at + 4 <= len(content):
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        yield content[at], content[at + 4 : at + 4 + length]
        at += 4 + length


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def _data(number: int, control: int, fragment: bytes) -> bytes:
    """One P-DATA-TF with one presentation data value (PS3.8 9.3.5, E.2)."""
    return pdu(_DATA, struct.pack(">LBB", len(fragment) + 2, number, control) + fragment)


def command(number: int, elements: bytes) -> bytes:
    return _data(number, 3, _element(0x0000, struct.pack("<L", len(elements))) + elements)


def text_element(number: int, text: str) -> bytes:
    value = text.encode("ascii")
    return _element(number, value + b"\0" * (len(value) % 2))


def _number(number: int, value: int) -> bytes:
    return _element(number, struct.pack("<H", value))


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def elements_of(content: bytes) -> dict[int, bytes]:
    """The elements of a command set by their number in group 0000 (PS3.7 6.3.1)."""
    found, at = {}, 0
    while at + 8 <= len(content):
        number, length = struct.unpack_from("<HL", content, at + 2)
        found[number] = content[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def _status(body: bytes) -> int:
    """Status (0000,0900) of a response that comes in one PDU."""
    try:
        return int.from_bytes(elements_of(body[6:])[0x0900], "little")
    except KeyError as error:
        raise BrokenError("an answer without a status") from error
