"""What only one process may do among all machines that share a database: deliver, drive workflows, bear a name.

On SQLite the locks of the data folder say so already (`dicomnode.store.locks`). On PostgreSQL a claim is an advisory
lock of a connection that does nothing else: the server drops it with the connection.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from dicomnode.errors import ConfigError
from dicomnode.store.database import Database


class Claim:
    """One thing claimed, until `close`. Raises ConfigError where another process has it.

    what  a name that all machines give it
    hint  what to do where another has it
    """

    def __init__(self, database: Database, what: str, hint: str) -> None:
        self._database = database
        self._number = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big", signed=True)
        self._connection: Connection | None = None
        if database.is_shared and not self._take():
            raise ConfigError(f"another process that shares the database is {what!r} already", hint)

    def holds(self) -> bool:
        """False where another process has it by now. A server that does not answer gives it to nobody."""
        if not self._database.is_shared:
            return True
        try:
            if self._connection is not None:
                self._connection.execute(text("SELECT 1"))
                return True
        except SQLAlchemyError:
            self.close()
        try:
            return self._take()
        except SQLAlchemyError:
            return True

    def close(self) -> None:
        """Let go of it, and of the connection."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _take(self) -> bool:
        connection = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        taken = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:number)"), {"number": self._number}))
        self._connection = connection
        if not taken:
            self.close()
        return taken
