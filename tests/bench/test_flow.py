"""The parts of the benchmark of the flow: figures mean nothing here, only that they are of what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import func, select

from bench import flow
from bench.__main__ import main
from bench.sink import Sink
from bench.stored import grow, patterns
from bench.studies import CT, Kind, written
from bench.wire import VERIFICATION, Association, BrokenError, read
from dicomnode.store.schema import Instance, Outbox, Series
from tests.store.receiving import ct_header, open_database, receiving

TINY = Kind("CT 32 x 32", CT.sop_class_uid, 32)


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


def test_what_is_stored_is_copied_whole_and_more_can_come(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        for number in range(1, 5):
            reception.receive(ct_header(number, SeriesInstanceUID=f"1.2.3.{number % 2}"))
        copied = patterns(reception.database.engine)
        assert [grow(reception.database.engine, copied, wanted) for wanted in (10, 25)] == [10, 26]
        reception.receive(ct_header(9))
        with reception.database.read() as session:
            counts = [session.scalar(select(func.count()).select_from(table)) for table in (Series, Instance, Outbox)]
            uids = session.scalars(select(Instance.sop_instance_uid)).all()
        assert counts == [27, 53, 53]
        assert len(set(uids)) == 53


def test_nothing_stored_cannot_be_copied(tmp_path: Path) -> None:
    with open_database(tmp_path) as database, pytest.raises(RuntimeError, match="no series"):
        patterns(database.engine)


def test_latencies_and_rates_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "DATABASES", (flow.SQLITE,))
    monkeypatch.setattr(flow, "WORKERS", (1,))
    assert main(["--only", "flow", "--series", "2", "--stored", "20", "--results", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("*/results.json")
    (row,) = json.loads(file.read_text())["rows"]["flow"]
    assert (row["database"], row["series stored"], row["workers"]) == (flow.SQLITE, "20", 1)
    assert all(row[name] > 0 for name in row if name.endswith(("ms", "/s")))
