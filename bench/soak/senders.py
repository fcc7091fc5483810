"""The soak's four peers, a thread each. What was answered with success is written down, all else forgotten."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Final

from bench.soak import objects
from bench.soak.objects import Study
from bench.studies import MARKER
from bench.wire import VERIFICATION, Association, BrokenError, Sent

STRANGER: Final = "stranger"
PEERS: Final = ("each", "long", "compressed", STRANGER)
"""Names of the peers; their AE titles are the same in capitals."""

_STAMPS = count(10**19 + time.time_ns(), step=1000)
_CUTS: Final = 0.15
"""Share of the images of a good peer at which its association is cut or aborted."""


@dataclass
class Acknowledged:
    """SHA-256 of the data set by SOP Instance UID: of good objects, which must reach the destination, and of others."""

    good: dict[str, bytes] = field(default_factory=dict)
    odd: dict[str, bytes] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    cuts: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, sent: Sent, status: int, odd: bool = False) -> None:
        with self._lock:
            self.statuses[f"0x{status:04X}"] += 1
            if status == 0:
                kept = self.odd if odd else self.good
                kept[sent.sop_instance_uid] = hashlib.sha256(sent.data_set).digest()

    def cut(self) -> None:
        with self._lock:
            self.cuts += 1


@dataclass
class Senders:
    """All four at once.

    rate  instances a second of each
    """

    port: int
    called_ae: str
    rate: float
    acknowledged: Acknowledged = field(default_factory=Acknowledged)
    _small: Sequence[Study] = field(default_factory=objects.small)
    _large: Sequence[Study] = field(default_factory=objects.large)
    _compressed_kinds: Sequence[Study] = field(default_factory=objects.compressed)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def start(self) -> None:
        self._stop.clear()
        kinds = dict(zip(PEERS, (self._each, self._long, self._compressed, self._stranger), strict=True))
        self._threads = [threading.Thread(target=self._run, args=(name, kind)) for name, kind in kinds.items()]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str, send: Callable[[str, random.Random], None]) -> None:
        draw = random.Random(name)
        while not self._stop.is_set():
            try:
                send(name.upper(), draw)
            except BrokenError as error:
                self.errors.append(f"{name}: {error}")
                self._stop.wait(1.0)

    def _each(self, calling_ae: str, draw: random.Random) -> None:
        """A study of small images, an association for each, some of them cut."""
        for sent in self._paced(_fresh(self._small)):
            with self._association(calling_ae, [sent]) as association:
                if draw.random() < _CUTS:
                    self._cut(association, sent, draw)
                else:
                    self.acknowledged.add(sent, association.store(sent))

    def _long(self, calling_ae: str, draw: random.Random) -> None:
        """Studies of large images over one association, which once in a while is cut."""
        with self._association(calling_ae, chain(*self._large)) as association:
            for _ in range(draw.randrange(1, 6)):
                for sent in self._paced(_fresh(self._large)):
                    if draw.random() < _CUTS / 10:
                        self._cut(association, sent, draw)
                        return
                    self.acknowledged.add(sent, association.store(sent))

    def _compressed(self, calling_ae: str, draw: random.Random) -> None:
        """Compressed and multi-frame objects, then an abort instead of a release."""
        with self._association(calling_ae, chain(*self._compressed_kinds)) as association:
            for sent in self._paced(_fresh(self._compressed_kinds)):
                self.acknowledged.add(sent, association.store(sent))
            if draw.random() < 0.5:
                association.abort()

    def _stranger(self, calling_ae: str, draw: random.Random) -> None:
        """Objects that mean harm, and bytes that are no DICOM at all. Its associations may break."""
        for good in self._paced(_fresh(self._small)):
            sent = objects.hostile(good, draw)
            with contextlib.suppress(BrokenError), self._association(calling_ae, [sent]) as association:
                self.acknowledged.add(sent, association.store(sent), odd=True)
            if draw.random() < 0.3:
                _intrude(self.port, draw)

    def _cut(self, association: Association, sent: Sent, draw: random.Random) -> None:
        """Send a part of an instance, and end as a scanner does that is switched off, or as one that thinks better."""
        self.acknowledged.cut()
        association.store_part(sent, draw.random())
        (association.abort if draw.random() < 0.5 else association.close)()

    @contextlib.contextmanager
    def _association(self, calling_ae: str, sent: Iterable[Sent]) -> Iterator[Association]:
        """Released at the end of the block, unless it was ended in it."""
        contexts = [VERIFICATION, *(each.context for each in sent)]
        association = Association(self.port, self.called_ae, calling_ae, contexts)
        try:
            yield association
            if association.is_open:
                association.release()
        finally:
            association.close()

    def _paced(self, sent: Iterable[Sent]) -> Iterator[Sent]:
        for each in sent:
            if self._stop.wait(1 / self.rate):
                return
            yield each


def _fresh(prototypes: Sequence[Study]) -> Iterator[Sent]:
    """The same studies under UIDs that nobody has seen."""
    for study, stamp in zip(prototypes, map(str, _STAMPS), strict=False):
        yield from (sent.renamed(MARKER, stamp) for sent in study)


def _intrude(port: int, draw: random.Random) -> None:
    """Connect and say something that is no association request, or only a part of one."""
    said = draw.choice(
        (
            draw.randbytes(draw.randrange(1, 4096)),
            b"\x01\x00\xff\xff\xff\xf0" + bytes(100),
            b"\x04\x00\x00\x00\x00\x10" + bytes(16),
            b"\x01\x00\x00\x00\x01\x00" + bytes(20),
            b"GET / HTTP/1.0\r\n\r\n",
            b"",
        )
    )
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(said)
        connection.settimeout(0.1)
        connection.recv(1024)
