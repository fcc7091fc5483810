"""The metrics process: shows what the others have counted, and what can be found out when it is asked for."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, cast

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy.exc import SQLAlchemyError

from dicomnode.config import Config
from dicomnode.core.disk import Sample, days_left
from dicomnode.core.figures import TRENDED
from dicomnode.errors import ConfigError
from dicomnode.metrics import METRICS, STRANGER
from dicomnode.net.certificates import validity
from dicomnode.net.scp.slots import Slots
from dicomnode.serve import wiring
from dicomnode.store.database import Database
from dicomnode.store.files import free_bytes
from dicomnode.store.index import disk as disk_index
from dicomnode.store.index import quality as quality_index
from dicomnode.store.index import reviews
from dicomnode.store.schema import QualityRow

_TIMEOUT_S: Final = 10.0
_LINEAGES: Final = 50
"""Trends that are shown: a scanner that writes another protocol name each time must not make endless time series."""


class MetricsRole:
    """`GET /metrics` for Prometheus. It knows no patient, and takes nothing but that one request."""

    def __init__(self, config: Config, slots: Slots) -> None:
        self._gauges = _Gauges(config, slots)
        registry = CollectorRegistry(auto_describe=False)
        MultiProcessCollector(registry, path=str(wiring.metrics_folder(config)))  # type: ignore[no-untyped-call]
        registry.register(self._gauges)
        settings = config.metrics
        assert settings.port is not None  # else there is no such process
        try:
            self._server = _Server((settings.host, settings.port), registry)
        except OSError as error:
            raise ConfigError(
                f"[metrics] port: cannot listen on {settings.host} port {settings.port}: {error.strerror}",
                "choose another, or remove it to have none",
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def reload(self, config: Config) -> None:
        self._gauges.config = config

    def stop(self) -> None:
        if self._thread.ident is not None:
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        self.registry = registry
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT_S
    server_version = sys_version = ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        shown = generate_latest(cast(_Server, self.server).registry)
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(shown)))
        self.end_headers()
        self.wfile.write(shown)

    def log_message(self, format: str, *_: object) -> None:
        """What strangers ask for stays out of the log."""


class _Gauges:
    """What is so at the moment (a custom collector of `prometheus_client`)."""

    def __init__(self, config: Config, slots: Slots) -> None:
        self.config = config
        self._slots = slots

    def collect(self) -> Iterator[GaugeMetricFamily]:
        open_now = self._slots.of_peers(self.config.peer)
        yield _gauge("dicomnode_associations_open", ((peer or STRANGER, count) for peer, count in open_now.items()))
        connections = enumerate(self._slots.connections(), start=1)
        yield _gauge("dicomnode_connections_open", ((f"receive-{index}", count) for index, count in connections))
        free, total = free_bytes(self.config.files)
        yield _gauge("dicomnode_disk_free_bytes", [("", free)])
        yield _gauge("dicomnode_disk_reserve_bytes", [("", self.config.limits.disk_reserve_bytes(total))])
        yield _gauge("dicomnode_disk_warning_bytes", [("", self.config.limits.disk_warning_bytes(total))])
        yield from self._of_index(Sample(time.time(), free, total))
        yield _gauge("dicomnode_certificate_end_timestamp_seconds", self._certificate_end())

    def _of_index(self, now: Sample) -> Iterator[GaugeMetricFamily]:
        """What the index tells; nothing where it is out of reach, or not there yet."""
        reserve_bytes = self.config.limits.disk_reserve_bytes(now.total_bytes)
        try:
            with closing(Database(wiring.database_url(self.config))) as database, database.read() as session:
                known = disk_index.samples(session, wiring.machine(self.config), disk_index.FILES)
                quarantine = reviews.quarantine_counts(session)
                withheld = Counter[str]()
                for one in reviews.withheld_deliveries(session, self.config.destination):
                    withheld[one.destination] += one.instances
                measured = quality_index.latest_of_lineages(session, _LINEAGES)
        except SQLAlchemyError:
            return
        days = days_left([*known, now], reserve_bytes)
        yield _gauge("dicomnode_disk_days_left", [] if days is None else [("", days)])
        yield _gauge("dicomnode_quarantine", quarantine.items())
        yield _gauge("dicomnode_withheld", withheld.items())
        yield from _quality(measured)

    def _certificate_end(self) -> Iterator[tuple[str, float]]:
        certificate = self.config.tls.certificate
        if certificate is not None:
            try:
                yield "", validity(certificate)[1]
            except ConfigError:  # the log and `status` say so
                return


def _quality(latest: Sequence[QualityRow]) -> Iterator[GaugeMetricFamily]:
    """The trends: figures and drifts of each scanner, protocol and engine. All labels are ours, numbers or hashes."""
    figures, drifting = _family("dicomnode_quality_figure"), _family("dicomnode_quality_drifting")
    for row in latest:
        labels = [row.peer or STRANGER, row.device, row.protocol, row.engine or "constancy", row.preset]
        drifting.add_metric(labels, len(row.drifts))
        for name in (name for name in TRENDED if name in row.figures):
            figures.add_metric([*labels, name], row.figures[name])
    yield from (figures, drifting)


def _family(name: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, METRICS[name].meaning, labels=METRICS[name].labels)


def _gauge(name: str, values: Iterable[tuple[str, float]]) -> GaugeMetricFamily:
    """A gauge with one label or none."""
    family = _family(name)
    for label, value in values:
        family.add_metric([label] if METRICS[name].labels else [], value)
    return family
