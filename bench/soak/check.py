"""Whether everything that was answered with success is where it must be, with the bytes that were sent."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from bench.servers import BenchStoreScp
from bench.soak.senders import Acknowledged
from bench.wire import read
from dicomnode.testing.node import Node

_SHOWN: Final = 5


def problems(node: Node, destination: BenchStoreScp, acknowledged: Acknowledged) -> Iterator[str]:
    """Sentences; none where not one instance is lost, and no process of the node died."""
    stored = _digests(_files_of_the_index(node))
    yield from _missing("in the index and on the disk", acknowledged.good | acknowledged.odd, stored)
    arrived = _digests((path.name.partition(".")[2], path) for path in destination.files.iterdir())
    yield from _missing("at the destination", acknowledged.good, arrived)
    ended = node.log().count('"process_ended"')
    if ended:
        yield f"{ended} processes of the node ended"
    if list((node.data / "incoming").glob("*")):
        yield "files of cut transfers were left behind"


def _missing(where: str, acknowledged: Mapping[str, bytes], found: Mapping[str, set[bytes]]) -> Iterator[str]:
    lost = [uid for uid in acknowledged if uid not in found]
    changed = [uid for uid, digest in acknowledged.items() if uid in found and digest not in found[uid]]
    for what, uids in (("missing", lost), ("changed", changed)):
        if uids:
            yield f"{len(uids)} instances are {what} {where}: {', '.join(uids[:_SHOWN])}"


def _files_of_the_index(node: Node) -> Iterator[tuple[str, Path]]:
    address = f"{(node.data / 'node.sqlite').as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as index:
        for uid, key in index.execute("SELECT sop_instance_uid, file FROM instance"):
            yield uid, node.data / "objects" / f"{key}.dcm"


def _digests(files: Iterable[tuple[str, Path]]) -> dict[str, set[bytes]]:
    """SHA-256 of the data sets by SOP Instance UID; a file that is not there has none."""
    found: dict[str, set[bytes]] = {}
    for uid, path in files:
        if path.exists():
            found.setdefault(uid, set()).add(hashlib.sha256(read(path).data_set).digest())
    return found
