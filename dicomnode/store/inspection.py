"""Looking at a database without opening it as the node does: nothing is made, changed or locked."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import sqlalchemy
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dicomnode.errors import StoreError
from dicomnode.store.database import Database
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
    _require_known(str(file), {version for (version,) in versions})


def inspect_server(url: str) -> None:
    """Raise StoreError where a database server does not answer, or its tables are of another version."""
    try:
        with closing(Database(url)) as database, database.read() as session:
            made = sqlalchemy.inspect(session.connection()).has_table("alembic_version")
            versions = set(session.scalars(text("SELECT version_num FROM alembic_version"))) if made else set()
    except SQLAlchemyError as error:  # its text may quote a password
        raise StoreError(
            f"the server cannot be used ({type(error).__name__})", "is it up, and may we in? psql URL says more"
        ) from None
    _require_known("its index", versions)


_LOST_WITHOUT: Final = {
    "synchronous_commit": ("when the server is killed", "none"),
    "fsync": ("at a power cut", "process"),
}
_NEEDED: Final = {"power": ("fsync", "synchronous_commit"), "process": ("synchronous_commit",), "none": ()}
"""Which settings of a database server each durability needs."""


def require_durable(url: str, durability: str) -> None:
    """Raise StoreError where a database server says that a commit does not survive what it is to survive."""
    with closing(Database(url)) as database, database.read() as session:
        for setting in _NEEDED[durability]:
            if session.scalar(text(f"SHOW {setting}")) == "off":
                when, less = _LOST_WITHOUT[setting]
                raise StoreError(
                    f"the server's {setting} is off: what it commits may be lost {when}",
                    f'set {setting} = on there, or be content with less here: durability = "{less}"',
                )


def _require_known(what: str, versions: set[str]) -> None:
    if versions - REVISIONS:
        raise StoreError(f"{what} was made by another version of dicomnode", "run that version, or a newer one")


_REPLACE = "put the last backup in its place; docs/operations.md tells how"


def _read_only(file: Path) -> str:
    """Without a log beside it nobody has it open, and as immutable it is read without making one."""
    in_use = file.with_name(f"{file.name}-wal").exists()
    return f"{file.absolute().as_uri()}?{'mode=ro' if in_use else 'immutable=1'}"
