"""The whole way of a series, from the scanner to a destination, on SQLite and PostgreSQL, with few series stored before
and with many.

Latencies are of series that come one after the other; the rate is of series that come by four associations at once.
The engine's own time is taken off: it is the model's, not the node's.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydicom import dcmread
from sqlalchemy import Engine, text

from bench.results import Results
from bench.rounds import FlowExtent, Surroundings, fresh, noted
from bench.sink import Sink
from bench.stored import grow, patterns
from bench.studies import CT, MARKER, Kind, written
from bench.wire import Association, Sent, read
from dicomnode.store.database import Database, index_url
from dicomnode.testing.node import NODE_AE, SCANNER_AE, Node, settings
from dicomnode.testing.peers import PostgreSql, missing_programs
from dicomnode.testing.processes import wait_until

PART: Final = "flow"
SQLITE: Final = "SQLite"
POSTGRESQL: Final = "PostgreSQL"
DATABASES = (SQLITE, POSTGRESQL)
WORKERS = (1, 4)

_SMALL: Final = Kind("CT 128 x 128", CT.sop_class_uid, 128)
_PIXEL_MM: Final = 1.5
_SLICES: Final = 4
_PATTERNS: Final = 2
_SENDERS: Final = 4
_TIMEOUT_S: Final = 120.0
_LONGEST_PAUSE_S: Final = 0.5
"""Longer than whatever looks again and again for work sleeps: else each series would find it at the same moment."""

_DURABLE: Final = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB", "max_wal_size": "4GB"}


@dataclass(frozen=True, slots=True)
class Way:
    """What one series took.

    original_ms  from the answer to its first instance to the first byte of it at the destination
    derived_ms   from its closing to the first byte of a derived one there, less the engine's time
    """

    original_ms: float
    derived_ms: float


def run(surroundings: Surroundings, results: Results) -> None:
    extent = surroundings.flow
    with fresh(surroundings.memory) as made:
        prototypes = _prototypes(made)
    for name in DATABASES:
        with noted(results, f"{PART} on {name}"), fresh(surroundings.disk) as folder, _site(folder, name) as site:
            _Bench(site, prototypes, extent).run(results)


def _prototypes(folder: Path) -> list[Sent]:
    """A small series that the engine takes, whose UIDs hold MARKER."""
    paths = written(folder / "study", _SMALL, _SLICES)
    for path in paths:
        dataset = dcmread(path)
        dataset.PixelSpacing = [_PIXEL_MM, _PIXEL_MM]
        dataset.save_as(path, enforce_file_format=True)
    return [read(path) for path in paths]


@dataclass
class _Site:
    """A node that is not running yet, what its index is in, and where it sends to."""

    database: str
    node: Node
    tree: dict[str, Any]
    engine: Engine
    sink: Sink

    def configure(self, workers: int) -> None:
        self.node.configure({**self.tree, "limits": {**self.tree["limits"], "workers": workers}})


@contextmanager
def _site(folder: Path, database: str) -> Iterator[_Site]:
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        shared: dict[str, Any] = {}
        url = None
        if database == POSTGRESQL:
            for above in (folder, folder.parent):
                above.chmod(0o711)  # it may have to run as another user
            url = stack.enter_context(_postgresql(folder / "server")).url()
            shared = {"name": "one", "database": url, "files": folder / "files"}
        tree = _settings(sink, shared)
        node = Node(folder / "node", tree)
        stack.callback(node.kill)
        index = Database(index_url(url, node.data))
        stack.callback(index.close)
        yield _Site(database, node, tree, index.engine, sink)


def _postgresql(folder: Path) -> PostgreSql:
    """A server that forces to the disk what it commits, as one for patients does."""
    if missing := missing_programs("postgresql"):
        raise RuntimeError(f"needs PostgreSQL: apt-get install postgresql (not found: {', '.join(missing)})")
    server = PostgreSql(folder)
    server._arguments += [option for name, value in _DURABLE.items() for option in ("-c", f"{name}={value}")]
    return server


def _settings(sink: Sink, node: dict[str, Any]) -> dict[str, Any]:
    rule = {"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["sink"]}
    tree = settings({}, [rule], node=node, completeness={"released_quiet_s": 0.2}, log={"level": "warning"})
    tree["peer"]["sink"] = {"ae_title": sink.ae_title, "host": "127.0.0.1", "port": sink.port}
    tree["destination"]["sink"] = {"peer": "sink"}
    return tree


class _Bench:
    """All cases on one database."""

    def __init__(self, site: _Site, prototypes: Sequence[Sent], extent: FlowExtent) -> None:
        self._site = site
        self._prototypes = prototypes
        self._extent = extent
        self._stamps = map(str, itertools.count(10**19 + time.time_ns(), 1000))
        self._lock = threading.Lock()
        self._draw = random.Random(1)

    def run(self, results: Results) -> None:
        self._site.configure(WORKERS[0])
        self._site.node.start()
        for _ in range(_PATTERNS):
            self._one()
        self._site.node.stop()
        copied = patterns(self._site.engine)
        for stored in self._extent.stored:
            began = time.monotonic()
            there = grow(self._site.engine, copied, stored)
            print(f"  {there:,} series stored after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            for workers in WORKERS:
                self._case(results, there, workers)

    def _case(self, results: Results, stored: int, workers: int) -> None:
        self._site.configure(workers)
        with self._site.node as node:
            self._rate()  # so that what is done once is done
            ways = [self._one() for _ in range(self._extent.one_by_one)]
            series_s = self._rate()
            node.stop()
        row: dict[str, str | float] = {
            "database": self._site.database,
            "series stored": f"{stored:,}",
            "workers": workers,
            "original p50 ms": statistics.median(way.original_ms for way in ways),
            "original p99 ms": _percentile([way.original_ms for way in ways], 0.99),
            "derived p50 ms": statistics.median(way.derived_ms for way in ways),
            "derived p99 ms": _percentile([way.derived_ms for way in ways], 0.99),
            "series/s": series_s,
        }
        results.rows.setdefault(PART, []).append(row)
        print(f"  {row}", file=sys.stderr, flush=True)

    def _one(self) -> Way:
        """Send a series at a moment that nothing else sets, and wait until all that becomes of it has arrived."""
        time.sleep(self._draw.uniform(0.0, _LONGEST_PAUSE_S))
        series = self._series()
        known = len(self._site.sink.arrivals)
        association = self._association(series)
        answered = None
        for each in series:
            _store(association, each)
            answered = answered or time.time()
        association.release()
        self._await_arrivals(known + 2 * len(series))
        ours = {each.sop_instance_uid for each in series}
        new = list(self._site.sink.arrivals.items())[known:]
        original_at = min(at for uid, at in new if uid in ours)
        derived_at = min(at for uid, at in new if uid not in ours)
        closed_at, engine_s = self._asked(series[0].sop_instance_uid)
        assert answered is not None
        return Way((original_at - answered) * 1e3, (derived_at - closed_at - engine_s) * 1e3)

    def _rate(self) -> float:
        """Series a second, from the first byte sent to the last derived one's first byte."""
        share = self._extent.at_once // _SENDERS
        wanted = len(self._site.sink.arrivals) + 2 * share * _SENDERS * len(self._prototypes)
        began = time.time()
        threads = [threading.Thread(target=self._send, args=(share,)) for _ in range(_SENDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._await_arrivals(wanted)
        return share * _SENDERS / (max(self._site.sink.arrivals.values()) - began)

    def _send(self, count: int) -> None:
        for _ in range(count):
            series = self._series()
            association = self._association(series)
            for each in series:
                _store(association, each)
            association.release()

    def _series(self) -> list[Sent]:
        """The same series under UIDs that nobody has seen."""
        with self._lock:
            stamp = next(self._stamps)
        return [each.renamed(MARKER, stamp) for each in self._prototypes]

    def _association(self, series: Sequence[Sent]) -> Association:
        return Association(self._site.node.port, NODE_AE, SCANNER_AE, {each.context for each in series})

    def _await_arrivals(self, count: int) -> None:
        arrivals = self._site.sink.arrivals
        wait_until(lambda: len(arrivals) >= count, _TIMEOUT_S, f"{count} instances arrived, not {len(arrivals)}")

    def _asked(self, sop_instance_uid: str) -> tuple[float, float]:
        """When the series of an instance was closed, and how long the engine took."""
        with self._site.engine.connect() as connection:
            closed_at, stages = connection.execute(text(_CLOSED), {"uid": sop_instance_uid}).one()
        stages = json.loads(stages) if isinstance(stages, str) else stages
        return closed_at, sum(stage["seconds"] for stage in stages)


_CLOSED: Final = """
    SELECT series.closed_at, job.stages FROM instance JOIN series ON series.id = instance.series_row
    JOIN job ON job.series_row = series.id WHERE instance.sop_instance_uid = :uid
"""


def _store(association: Association, sent: Sent) -> None:
    status = association.store(sent)
    if status:
        raise RuntimeError(f"an instance was answered with 0x{status:04X}")


def _percentile(values: Sequence[float], share: float) -> float:
    """The least value that so many are not above; of few values the largest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
