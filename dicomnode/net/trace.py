"""A trace of what goes over associations with one peer: what was negotiated, PDUs and their times, never a payload.

Lines of JSON in `FOLDER/PEER.jsonl`, the older ones in `PEER.jsonl.1`: two files of at most 4 MiB. A trace is on while
`FOLDER/PEER.on` is there: it can be switched without a restart, and holds for associations that begin afterwards.
"""

from __future__ import annotations

import json
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from dicomnode.net.negotiation import Item, printable, read_items
from dicomnode.net.pdu import PduType, ProtocolError, Wire

TRACES: Final = "trace"
"""The folder below the data folder."""

MAXIMUM_BYTES: Final = 4 << 20
_FIXED_BYTES: Final = 68  # of A-ASSOCIATE-RQ and -AC, before the items
_PDU_HEADER: Final = struct.Struct(">BxL")
_NUMBERS: Final = {Item.MAXIMUM_LENGTH: "maximum_length", Item.OPERATIONS_WINDOW: "operations_window"}
_TEXTS: Final = {
    Item.APPLICATION_CONTEXT: "application_context",
    Item.IMPLEMENTATION_CLASS_UID: "implementation_class_uid",
    Item.IMPLEMENTATION_VERSION_NAME: "implementation",
}

Role = Literal["requestor", "acceptor"]
Direction = Literal["sent", "received"]


@dataclass(frozen=True, slots=True)
class PeerTrace:
    """Where the associations with one peer are traced, if they are."""

    folder: Path
    peer: str

    @property
    def path(self) -> Path:
        return self.folder / f"{self.peer}.jsonl"

    @property
    def switch(self) -> Path:
        return self.folder / f"{self.peer}.on"

    def follow(self, wire: Wire, role: Role) -> Trace | None:
        """Trace this connection from here on; None where the trace is off."""
        if not self.switch.exists():
            return None
        wire.observer = trace = Trace(self.path, role)
        return trace


@dataclass(slots=True)
class _Run:
    """P-DATA-TF of one direction, context and kind, one after the other."""

    key: tuple[Direction, int, str]
    began: float
    ended: float
    pdus: int = 0
    size_bytes: int = 0


class Trace:
    """One connection's lines. What happens to the file (a full disk) never reaches the association: lines are lost."""

    def __init__(self, path: Path, role: Role) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._association = uuid.uuid4().hex[:12]
        self._start = time.monotonic()
        self._run: _Run | None = None
        self._skip_bytes = 0  # of the PDU being sent
        self._length = 0  # of the P-DATA-TF being received
        self._write({"event": "opened", "role": role, "at": round(time.time(), 3)})

    def sent(self, part: bytes | memoryview) -> None:
        """See `dicomnode.net.pdu.Observer`."""
        view = memoryview(part)
        while len(view):
            if not self._skip_bytes:
                number, self._skip_bytes = _PDU_HEADER.unpack_from(view)
                self._pdu("sent", number, self._skip_bytes, view[6:])
                view = view[6:]
            taken = min(self._skip_bytes, len(view))
            self._skip_bytes -= taken
            view = view[taken:]

    def sent_file(self, size_bytes: int) -> None:
        """See `dicomnode.net.pdu.Observer`."""
        self._skip_bytes -= size_bytes

    def received_data(self, length: int) -> None:
        """See `dicomnode.net.pdu.Observer`."""
        self._length = length

    def received_fragment(self, context_id: int, control: int) -> None:
        """See `dicomnode.net.pdu.Observer`."""
        self._data("received", context_id, control, self._length)
        self._length = 0  # of several fragments in one PDU the first counts it

    def received_pdu(self, number: int, body: bytes) -> None:
        """See `dicomnode.net.pdu.Observer`."""
        self._pdu("received", number, len(body), memoryview(body))

    def ended(self) -> None:
        """See `dicomnode.net.pdu.Observer`."""
        self._write({"event": "closed"})

    def associate(self, direction: Direction, items: bytes) -> None:
        """The items of an A-ASSOCIATE-RQ or -AC."""
        self._write({"event": "negotiation", "direction": direction, **_described(items)})

    def _pdu(self, direction: Direction, number: int, length: int, body: memoryview) -> None:
        if number == PduType.DATA:
            if len(body) >= 6:
                self._data(direction, body[4], body[5], length)
            return
        name = PduType(number).name if number in set(PduType) else f"type {number}"
        told: dict[str, Any] = {"event": "pdu", "direction": direction, "pdu": name, "bytes": length}
        if number == PduType.ABORT and len(body) >= 4:
            told |= {"source": body[2], "reason": body[3]}
        if number == PduType.ASSOCIATE_RJ and len(body) >= 4:
            told |= {"result": body[1], "source": body[2], "reason": body[3]}
        self._write(told)
        if number in (PduType.ASSOCIATE_RQ, PduType.ASSOCIATE_AC) and len(body) >= length:
            self.associate(direction, bytes(body[_FIXED_BYTES:length]))

    def _data(self, direction: Direction, context_id: int, control: int, length: int) -> None:
        now = time.monotonic()
        kind = "command" if control & 1 else "data"
        with self._lock:
            run = self._run
            if run is None or run.key != (direction, context_id, kind):
                self._end_run()
                run = self._run = _Run((direction, context_id, kind), now, now)
            run.ended = now
            run.pdus += 1
            run.size_bytes += length

    def _end_run(self) -> None:
        if (run := self._run) is None:
            return
        self._run = None
        direction, context_id, kind = run.key
        self._append({"event": "pdu", "direction": direction, "pdu": "DATA", "context": context_id, "kind": kind,
                      "pdus": run.pdus, "bytes": run.size_bytes, "t": self._since(run.began),
                      "until": self._since(run.ended)})  # fmt: skip

    def _write(self, told: dict[str, Any]) -> None:
        with self._lock:
            self._end_run()
            self._append({**told, "t": self._since(time.monotonic())})

    def _since(self, moment: float) -> float:
        return round(moment - self._start, 6)

    def _append(self, told: dict[str, Any]) -> None:
        line = json.dumps({"association": self._association, **told}).encode() + b"\n"
        try:
            with self._path.open("ab") as file:
                full = file.tell() + len(line) > MAXIMUM_BYTES
                file.write(line)
            if full:
                self._path.replace(self._path.with_suffix(".jsonl.1"))
        except OSError:
            return


def _described(items: bytes) -> dict[str, Any]:
    """The items in words, UIDs and numbers."""
    told: dict[str, Any] = {"contexts": []}
    try:
        for kind, content in _all_items(items):
            if kind in (Item.PROPOSED_CONTEXT, Item.CONTEXT_RESULT):
                told["contexts"].append(_context(kind, content))
            elif kind in _NUMBERS:
                told[_NUMBERS[Item(kind)]] = content[:4].hex()
            elif kind in _TEXTS:
                told[_TEXTS[Item(kind)]] = _text(content)
    except ProtocolError:
        told["malformed"] = True
    return told


def _all_items(items: bytes) -> Iterator[tuple[int, bytes]]:
    for kind, content in read_items(items):
        if kind == Item.USER_INFORMATION:
            yield from read_items(content)
        else:
            yield kind, content


def _context(kind: int, content: bytes) -> dict[str, Any]:
    if len(content) < 4:
        raise ProtocolError("a presentation context item without its fields")
    told: dict[str, Any] = {"id": content[0]}
    if kind == Item.CONTEXT_RESULT:
        told["result"] = content[2]
    for sub_kind, value in read_items(content[4:]):
        if sub_kind == Item.ABSTRACT_SYNTAX:
            told["abstract_syntax"] = _text(value)
        elif sub_kind == Item.TRANSFER_SYNTAX:
            told.setdefault("transfer_syntaxes", []).append(_text(value))
    return told


def _text(content: bytes) -> str:
    return printable(content.rstrip(b"\0 ").decode("ascii", "replace"))[:64]
