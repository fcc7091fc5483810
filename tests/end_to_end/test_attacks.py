"""A running node under attacks from outside: its memory stays bounded, nothing is left behind, others are served."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomnode.net import pdu
from dicomnode.net.contexts import ProposedContext
from dicomnode.net.dimse import Element, parse_command
from dicomnode.testing.node import NODE_AE, SCANNER_AE, Node, settings
from dicomnode.testing.processes import wait_until
from dicomnode.testing.sender import RawObject, echo, send_verbatim
from tests.end_to_end.observation import is_clear
from tests.end_to_end.studies import phantom_series
from tests.net.clients import CT_IMAGE, EXPLICIT, Client, fragment, store_request

MOST_MEMORY_BYTES = 250 << 20
"""Of one process, at its highest: one that is left alone has about 120 MiB, with all that it imports."""
DEFLATED = "1.2.840.10008.1.2.1.99"
CT = ProposedContext(CT_IMAGE, (EXPLICIT,))


@pytest.fixture(name="node", scope="module")
def _node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One for all attacks; it has to survive them together."""
    tree = settings({}, [], limits={"per_address": 60, "idle_s": 10.0, "max_dataset_bytes": "64 MB"})
    with Node(tmp_path_factory.mktemp("attacked"), tree) as node:
        yield node
        assert node.stop() == 0
        assert "thread_failed" not in node.log()
        assert "process_ended" not in node.log()


@contextlib.contextmanager
def connection(node: Node) -> Iterator[Client]:
    with socket.create_connection(("127.0.0.1", node.port), timeout=30) as connected:
        yield Client(connected)


@contextlib.contextmanager
def association(node: Node, context: ProposedContext = CT) -> Iterator[Client]:
    with connection(node) as client:
        assert client.associate(context, called_ae=NODE_AE, calling_ae=SCANNER_AE)[0] == pdu.PduType.ASSOCIATE_AC
        yield client


def peak_bytes(session: int) -> int:
    """The highest resident memory that any process of a session has had (proc(5): VmHWM)."""
    peaks = [0]
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if os.getsid(int(status.parent.name)) == session:
                lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
                peaks.append(int(lines.get("VmHWM", "0 kB").split()[0]) * 1024)
    return max(peaks)


def left_behind(node: Node) -> list[Path]:
    """Files of transfers that were not recorded, and what lies in the folder for temporary files."""
    objects = node.data / "objects"
    with contextlib.closing(sqlite3.connect(f"{(node.data / 'node.sqlite').as_uri()}?mode=ro", uri=True)) as index:
        recorded = {objects / f"{key}.dcm" for (key,) in index.execute("SELECT file FROM instance")}
    places = (objects, node.folder / "tmp", node.folder / "work")
    return [path for place in places for path in place.rglob("*") if path.is_file() and path not in recorded]


def tag(number: int, vr: bytes, length: int) -> bytes:
    long = b"\0\0" + struct.pack("<L", length) if vr in (b"SQ", b"UN", b"OB") else struct.pack("<H", length)
    return struct.pack("<HH", number >> 16, number & 0xFFFF) + vr + long


def uids(sop_instance_uid: str) -> bytes:
    """The elements that say what an object is."""
    values = ((0x00080016, CT_IMAGE), (0x00080018, sop_instance_uid), (0x0020000D, "1.2.5"), (0x0020000E, "1.2.5.1"))
    padded = ((number, value + "\0" * (len(value) % 2)) for number, value in values)
    return b"".join(tag(number, b"UI", len(value)) + value.encode() for number, value in padded)


def nested(depth: int) -> bytes:
    """Sequences in sequences, in the middle of a data set: undefined lengths, delimited."""
    opened = tag(0x00081140, b"SQ", 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    closed = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    whole = uids(f"1.2.5.1.{depth}")
    split = whole.index(struct.pack("<HH", 0x0020, 0x000D))
    return whole[:split] + opened * depth + closed * depth + whole[split:]


def deflated_bomb(size_bytes: int) -> bytes:
    """A private element of zeros that is nearly nothing on the wire, before the UIDs that a node looks for."""
    packing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(1 << 20)
    parts = [packing.compress(uids("1.2.5.1.999")[:66] + tag(0x00091010, b"UN", size_bytes))]
    parts += [packing.compress(zeros) for _ in range(size_bytes >> 20)]
    return b"".join((*parts, packing.compress(uids("1.2.5.1.999")[66:]), packing.flush()))


@pytest.mark.parametrize("kind", [pdu.PduType.ASSOCIATE_RQ, pdu.PduType.DATA, pdu.PduType.RELEASE_RQ])
def test_an_endless_pdu_is_cut_off_before_it_is_kept(node: Node, kind: int) -> None:
    with connection(node) as client, contextlib.suppress(OSError):
        client.send(struct.pack(">BxL", kind, 0xFFFFFFF0))
        for _ in range(64):
            client.send(bytes(1 << 20))
    assert peak_bytes(node.pid) < MOST_MEMORY_BYTES
    assert echo(node.call())


def test_transfers_that_are_cut_leave_nothing(node: Node) -> None:
    for _ in range(20):
        with association(node) as client:
            client.send(fragment(store_request(), is_command=True))
            for _ in range(64):
                client.send(fragment(bytes(60_000), is_last=False))
    wait_until(lambda: left_behind(node) == [], 30, "what had begun to arrive was removed")
    assert peak_bytes(node.pid) < MOST_MEMORY_BYTES
    assert echo(node.call())


def test_a_data_set_beyond_the_limit_is_refused_and_not_kept(node: Node) -> None:
    with association(node) as client:
        client.send(fragment(store_request(), is_command=True))
        piece = fragment(bytes(120_000), is_last=False)
        for _ in range(600):
            client.send(piece)
        client.send(fragment(b""))
        assert parse_command(client.read_pdu()[12:]).number(Element.STATUS) == 0xA700
    wait_until(lambda: left_behind(node) == [], 30, "what had begun to arrive was removed")
    assert peak_bytes(node.pid) < MOST_MEMORY_BYTES


def test_connections_that_say_nothing_keep_nobody_out(node: Node) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(connection(node))
        assert echo(node.call())
        assert peak_bytes(node.pid) < MOST_MEMORY_BYTES


@pytest.mark.parametrize(
    ("transfer_syntax_uid", "content"),
    [
        (EXPLICIT, lambda: nested(65)),
        (EXPLICIT, lambda: nested(1_000)),
        (EXPLICIT, lambda: nested(100_000)),
        (DEFLATED, lambda: deflated_bomb(512 << 20)),
        (DEFLATED, lambda: b"\0" * 100_000),
        (EXPLICIT, lambda: tag(0x00091010, b"UN", 0xFFFFFFF0) + bytes(1000)),
        (EXPLICIT, lambda: b""),
    ],
    ids=["65 deep", "1,000 deep", "100,000 deep", "deflated zeros", "no deflate", "overlong element", "nothing"],
)
def test_bombs_are_answered(node: Node, transfer_syntax_uid: str, content: Callable[[], bytes]) -> None:
    """In what is kept, or refused; what is kept is what was sent, and nobody has to decode it to keep it."""
    encoded = content()
    with association(node, ProposedContext(CT_IMAGE, (transfer_syntax_uid,))) as client:
        client.send(fragment(store_request("1.2.5.1.1"), is_command=True))
        for start in range(0, max(1, len(encoded)), 100_000):
            piece = encoded[start : start + 100_000]
            client.send(fragment(piece, is_last=start + 100_000 >= len(encoded)))
        assert is_clear(parse_command(client.read_pdu()[12:]).number(Element.STATUS))
    assert peak_bytes(node.pid) < MOST_MEMORY_BYTES
    assert echo(node.call())
    assert left_behind(node) == []


@pytest.mark.parametrize("uid", ["../../../../tmp/pwned", "/etc/passwd", "1.2\0.3", "1.2/../3", "." * 64, "1" * 64])
def test_a_uid_is_never_a_path(node: Node, uid: str) -> None:
    with association(node) as client:
        data_set = uids(uid)
        client.send(fragment(store_request(uid), is_command=True) + fragment(data_set))
        status = parse_command(client.read_pdu()[12:]).number(Element.STATUS)
    assert is_clear(status)
    assert not any("pwned" in path.name or "passwd" in path.name for path in node.folder.rglob("*"))
    assert not Path("/tmp/pwned").exists()


def test_after_all_that_a_study_is_stored_as_ever(node: Node, tmp_path: Path) -> None:
    sent = [RawObject.read(path) for path in phantom_series(tmp_path, slices=3)]
    assert set(send_verbatim(node.call(), sent).values()) == {0}
    assert left_behind(node) == []
