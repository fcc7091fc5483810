"""Closers of several machines at once: each series is closed, and routed, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from dicomnode.flow.closing import Closer
from dicomnode.flow.port import Call
from dicomnode.store.database import Database
from dicomnode.store.files import FileStore
from dicomnode.store.intake import StoreIntake
from tests.store.receiving import TO_PACS, Reception, ct_header, routing

pytestmark = pytest.mark.peer("postgresql")

SERIES = 12
MACHINES = 3
TIMEOUT_S = 60.0


def test_a_series_that_several_find_due_is_closed_by_one(tmp_path: Path, new_postgresql_url: Callable[[], str]) -> None:
    url = new_postgresql_url()
    calls: list[str] = []
    closed: list[int] = []
    begin = threading.Barrier(MACHINES)

    def enqueue(_: Session, call: Call) -> None:
        calls.append(call.id)

    def judge() -> None:
        with closing(Database(url, "none")) as database:
            closer = Closer(database, enqueue)
            begin.wait(TIMEOUT_S)
            closed.append(closer.judge_due(9e9))

    with closing(Database(url, "none")) as database:
        files = FileStore(tmp_path, 0, sync=False)
        reception = Reception(tmp_path, database, files, StoreIntake(database, files, routing(TO_PACS)))
        for number in range(SERIES):
            reception.receive(ct_header(1, StudyInstanceUID=f"1.2.{number}", SeriesInstanceUID=f"1.2.{number}.1",
                                        SOPInstanceUID=f"1.2.{number}.1.1"))  # fmt: skip
    threads = [threading.Thread(target=judge) for _ in range(MACHINES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert sum(closed) == SERIES
    assert len(calls) == len(set(calls)) == SERIES
