"""Looking at a database file without opening it as the node does: nothing is made, changed or locked."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from dicomnode.errors import StoreError
from dicomnode.store.migrations import REVISIONS


def inspect(file: Path) -> None:
    """Raise StoreError where an existing database file is damaged, or of another version of this software.

    An empty file is none of both: the node makes its tables in it.
    """
    try:
        with closing(sqlite3.connect(_read_only(file), uri=True)) as database:
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            versions = (
                database.execute("SELECT * FROM alembic_version").fetchall() if "alembic_version" in tables else []
            )
    except sqlite3.Error as error:  # its text may quote rows
        raise StoreError(f"{file} cannot be read as a database ({type(error).__name__})", _REPLACE) from None
    if found != "ok":
        raise StoreError(f"{file} is damaged", _REPLACE)
    unknown = {version for (version,) in versions} - REVISIONS
    if unknown:
        raise StoreError(f"{file} was made by another version of dicomnode", "run that version, or a newer one")


_REPLACE = "put the last backup in its place; docs/operations.md tells how"


def _read_only(file: Path) -> str:
    """Without a log beside it nobody has it open, and as immutable it is read without making one."""
    in_use = file.with_name(f"{file.name}-wal").exists()
    return f"{file.absolute().as_uri()}?{'mode=ro' if in_use else 'immutable=1'}"
