"""Every metric of the node is declared here once; nothing else is measured. The counterpart of `dicomnode.telemetry`.

    metrics.count("dicomnode_instances_stored_total", peer="ct1")
    metrics.observe("dicomnode_store_seconds", 0.004)

Labels have values from a closed set only: names from our configuration, DIMSE statuses, words of this program. Nothing
that comes from outside, an AE title least of all, makes a new time series; but for the trends of quality, whose devices
and protocols are hashes and numbers of data sets: of these no more than 50 are ever shown.

The processes of a node write into files of one folder, and one of them shows the sum (the multiprocess mode of
`prometheus_client`). Files bear the names of processes, not their numbers: one that is restarted goes on counting.
Before `measure` is called, and where no port for metrics is configured, nothing is done.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

__all__ = ["METRICS", "STRANGER", "Metric", "clear", "count", "measure", "observe"]

STRANGER: Final = "(none)"
"""Label value for a caller that is no configured peer; no peer can have that name."""

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_FILE_BYTES: Final = 1 << 20  # some thousand time series
_INSTANCES: Final = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: what it counts, its labels, the bounds of a histogram's buckets.

    A gauge is found out when it is asked for, by the process that shows it.
    """

    kind: Literal["counter", "histogram", "gauge"]
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        # reception
        "dicomnode_associations_accepted_total": Metric("counter", "associations that were accepted", ("peer",)),
        "dicomnode_associations_refused_total": Metric(
            "counter", "associations that were refused, by the reason in the answer", ("reason",)
        ),
        "dicomnode_associations_open": Metric("gauge", "associations open now", ("peer",)),
        "dicomnode_connections_open": Metric(
            "gauge", "connections open now, with an association or without", ("process",)
        ),
        "dicomnode_instances_stored_total": Metric("counter", "instances answered with success", ("peer",)),
        "dicomnode_bytes_stored_total": Metric("counter", "bytes of their data sets", ("peer",)),
        "dicomnode_instances_refused_total": Metric(
            "counter", "instances answered with another status", ("peer", "status")
        ),
        "dicomnode_store_seconds": Metric(
            "histogram", "from a C-STORE request to its answer: transfer, file, commit", (), _SECONDS
        ),
        "dicomnode_commit_seconds": Metric("histogram", "time that a commit of arrivals took", (), _SECONDS),
        "dicomnode_commit_instances": Metric(
            "histogram", "arrivals that one commit took together: what waited for it", (), _INSTANCES
        ),
        "dicomnode_notifications_total": Metric(
            "counter",
            "storage commitment reports, procedure steps and availability notifications taken in",
            ("peer", "kind"),
        ),
        "dicomnode_notifications_refused_total": Metric("counter", "the same, not taken", ("peer",)),
        "dicomnode_retrievals_total": Metric(
            "counter", "retrievals that ended: complete, partial or failed", ("peer", "state")
        ),
        # delivery
        "dicomnode_deliveries_total": Metric(
            "counter", "answers of destinations, and instances given up", ("destination", "outcome")
        ),
        "dicomnode_destination_failures_total": Metric(
            "counter", "times that a destination could not be reached, or broke off", ("destination",)
        ),
        "dicomnode_confirmed_total": Metric(
            "counter", "instances that a destination was proved to hold, by the proof", ("destination", "proof")
        ),
        "dicomnode_missing_total": Metric(
            "counter", "instances that a destination did not hold though it had answered success", ("destination",)
        ),
        # engines
        "dicomnode_engine_slices_total": Metric("counter", "slices that engine processes computed"),
        "dicomnode_engine_seconds_total": Metric("counter", "seconds that engine processes worked on them"),
        "dicomnode_engine_processes_lost_total": Metric(
            "counter", "engine processes that died, or hung and were ended, at slabs that were computed again"
        ),
        # the machine
        "dicomnode_disk_free_bytes": Metric("gauge", "free space on the disk of the stored files"),
        "dicomnode_disk_reserve_bytes": Metric("gauge", "free space below which C-STORE is answered with 0xA700"),
        "dicomnode_disk_warning_bytes": Metric("gauge", "free space below which the node warns"),
        "dicomnode_disk_days_left": Metric(
            "gauge", "days until new input is refused, at the pace of the last week; missing where no end is in sight"
        ),
        "dicomnode_quarantine": Metric("gauge", "what could not be processed and nobody has decided on", ("kind",)),
        "dicomnode_withheld": Metric(
            "gauge", "derived instances that wait for a person or a check before they leave", ("destination",)
        ),
        "dicomnode_quality_figure": Metric(
            "gauge",
            "the latest figure of a scanner, protocol, engine and preset (the 50 that were measured last)",
            ("peer", "device", "protocol", "engine", "preset", "figure"),
        ),
        "dicomnode_quality_drifting": Metric(
            "gauge",
            "how many of its figures drift",
            ("peer", "device", "protocol", "engine", "preset"),
        ),
        "dicomnode_certificate_end_timestamp_seconds": Metric("gauge", "when our TLS certificate ends"),
    }
)


class _Meter:
    """The metrics of this process, made as they are first used: making one costs more than using it."""

    def __init__(self, process: str) -> None:
        from prometheus_client import values  # 30 ms, and needed only where somebody looks

        values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]
        self._making = threading.Lock()  # two of one name would write over each other
        self._counters: dict[str, Counter] = {}
        self._labelled: dict[tuple[str, ...], Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def count(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        key = (name, *labels.values())
        counter = self._labelled.get(key)
        if counter is None:
            with self._making:
                counter = self._labelled[key] = self._counter(name).labels(**labels)
        counter.inc(amount)

    def observe(self, name: str, value: float) -> None:
        histogram = self._histograms.get(name)
        if histogram is None:
            with self._making:
                histogram = self._histograms[name] = self._histogram(name)
        histogram.observe(value)

    def _counter(self, name: str) -> Counter:
        from prometheus_client import Counter

        if name not in self._counters:
            declared = METRICS[name]
            self._counters[name] = Counter(name, declared.meaning, declared.labels, registry=None)
        return self._counters[name]

    def _histogram(self, name: str) -> Histogram:
        from prometheus_client import Histogram

        declared = METRICS[name]
        return self._histograms.get(name) or Histogram(name, declared.meaning, registry=None, buckets=declared.buckets)


_meter: _Meter | None = None


def clear(folder: Path) -> None:
    """Begin anew: a node counts from its start."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def measure(folder: Path, process: str) -> None:
    """Count from here on, in files of `folder`. `process` is a name that no other has there now.

    Raises OSError where the disk has no room for them: then nothing is measured.
    """
    global _meter
    for kind in ("counter", "histogram"):
        _allocate(folder / f"{kind}_{process}.db")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    _meter = _Meter(process)


def _allocate(file: Path) -> None:
    """Make a file of which every byte has its place on the disk. They are mapped into memory: on a full disk a write to
    one that has none would kill the process (SIGBUS)."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, _FILE_BYTES)
    finally:
        os.close(descriptor)


def count(name: str, amount: float = 1, /, **labels: str) -> None:
    """Add to a counter. Labels in the order of the declaration."""
    if _meter is not None:
        _meter.count(name, amount, labels)


def observe(name: str, value: float, /) -> None:
    """Add one observation to a histogram."""
    if _meter is not None:
        _meter.observe(name, value)
