"""A loop goes on through an outage of the database, and through nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest

from dicomnode.flow.repeating import Repeating

TIMEOUT_S = 30.0


def repeating(errors: Iterator[Exception | None], through: threading.Event) -> Repeating:
    def work(_: float) -> None:
        error = next(errors, None)
        if error is not None:
            raise error
        through.set()

    return Repeating("test", 0.001, work)


def test_an_outage_is_waited_for() -> None:
    through = threading.Event()
    loop = repeating(iter([psycopg.OperationalError("gone")] * 3), through)
    loop.start()
    assert through.wait(TIMEOUT_S)
    assert loop.is_alive
    loop.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_any_other_error_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: ended.set())
    loop = repeating(iter([LookupError("a fault of ours")]), threading.Event())
    loop.start()
    assert ended.wait(TIMEOUT_S)
    loop.stop()
    assert not loop.is_alive
