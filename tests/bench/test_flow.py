"""The parts of the benchmark of the flow: figures mean nothing here, only that they are of what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, inspect, text

from bench import flow
from bench.__main__ import main
from bench.sink import Sink
from bench.stored import TABLES, grow, patterns
from bench.studies import CT, MARKER, Kind, written
from bench.wire import VERIFICATION, Association, BrokenError, read
from dicomnode.store.database import Database, migrate, sqlite_url
from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import StoreScp
from dicomnode.testing.processes import wait_until
from dicomnode.testing.sender import RawObject, send_verbatim

TINY = Kind("CT 32 x 32", CT.sop_class_uid, 32)
SERIES = 7


def test_the_sink_notes_when_each_instance_began_to_arrive(tmp_path: Path) -> None:
    sent = [read(path) for path in written(tmp_path / "send", TINY, 3)]
    with Sink() as sink:
        association = Association(sink.port, sink.ae_title, "TEST", [VERIFICATION, sent[0].context])
        assert association.echo() == 0
        assert [association.store(each) for each in sent] == [0, 0, 0]
        assert association.store(sent[0]) == 0
        association.release()
    assert list(sink.arrivals) == [each.sop_instance_uid for each in sent]
    assert list(sink.arrivals.values()) == sorted(sink.arrivals.values())


def test_the_sink_takes_storage_only() -> None:
    with Sink() as sink, pytest.raises(BrokenError, match="refused"):
        Association(sink.port, sink.ae_title, "TEST", [("1.2.840.10008.1.20.1", "1.2.840.10008.1.2")])


def test_latencies_and_rates_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "DATABASES", (flow.SQLITE,))
    monkeypatch.setattr(flow, "WORKERS", (1,))
    assert main(["--only", "flow", "--series", "2", "--stored", "20", "--results", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("*/results.json")
    (row,) = json.loads(file.read_text())["rows"]["flow"]
    assert (row["database"], row["series stored"], row["workers"]) == (flow.SQLITE, "20", 1)
    assert all(row[name] > 0 for name in row if name.endswith(("ms", "/s")))
