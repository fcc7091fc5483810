"""Whether the database answers. An outage is told once at its start and once at its end, and waited for."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicomnode.telemetry import event

_DRIVER_ERRORS: Final = frozenset({"OperationalError", "InterfaceError"})
"""Classes of PEP 249 that every driver has; those about rows, and about our SQL, are others on PostgreSQL."""

_NO_ROWS_FAULT: Final = frozenset({"08", "53", "57", "58"})
"""Classes of PostgreSQL's errors: connection, resources, operator intervention, system (its appendix A)."""

_NO_SQLS_FAULT: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL,
    }
)  # fmt: skip
_PRIMARY_CODE: Final = 0xFF  # of SQLite's extended result codes


def is_out_of_reach(error: BaseException) -> bool:
    """Whether an error, a driver's or SQLAlchemy's, is about no row and no statement: the database is locked, full or
    gone."""
    if isinstance(error, PoolTimeoutError):  # every connection waits for the server
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not any(kind.__name__ in _DRIVER_ERRORS for kind in type(cause).__mro__):
        return False
    state = getattr(cause, "sqlstate", None)  # None: on SQLite, or where there is no server to tell one
    if state is not None:
        return str(state)[:2] in _NO_ROWS_FAULT
    code = getattr(cause, "sqlite_errorcode", None)
    return code is None or (code & _PRIMARY_CODE) in _NO_SQLS_FAULT


class Reach:
    """What one process knows of its database. Whichever thread notices an outage, or its end, tells it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost_at: float | None = None  # monotonic, as the next
        self._missed_at = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A use of the database: its success and its failure tell whether the database answers. The success of one that
        began before another failed tells nothing: it may have had all that it asked for."""
        began_at = time.monotonic()
        try:
            yield
        except Exception as error:
            if is_out_of_reach(error):
                self._lose(error)
            raise
        if self._lost_at is not None:
            self._find(began_at)

    def _lose(self, error: Exception) -> None:
        with self._lock:
            self._missed_at = time.monotonic()
            if self._lost_at is not None:
                return
            self._lost_at = self._missed_at
        event("database_lost", error=type(error).__name__, hint="what needs it waits, and goes on by itself")

    def _find(self, began_at: float) -> None:
        with self._lock:
            if began_at < self._missed_at:
                return
            lost_at, self._lost_at = self._lost_at, None
        if lost_at is not None:
            event("database_found", seconds=time.monotonic() - lost_at)


class _Enduring:
    """Type checkers take a class for what may swallow an error, a generator not: what follows the block needs that."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return error is not None and is_out_of_reach(error)


def enduring() -> _Enduring:
    """Let pass that the database is out of reach: who repeats the block does so until it answers again."""
    return _Enduring()
