"""Many series that a node has stored before: copies of rows that it wrote itself, made by the database alone.

What the node wrote of a few series is copied as often as is wanted, with other row ids and other UIDs; their files are
not. So whatever columns there are have values that belong together, and what has an end has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Column, Connection, Engine, Table, func, select, text

from dicomnode.store.schema import Base

TABLES: Final = (
    "patient", "study", "series", "association", "instance", "outbox", "receipt", "plan", "job", "derivation",
)  # fmt: skip
"""What is copied, each before what refers to it."""

_UNDECLARED: Final = frozenset({("job", "supersedes"), ("job", "superseded_by"), ("series", "job_row")})
"""Columns that hold row ids without being foreign keys."""

_DISTINCT: Final = ("_instance_uid", "patient_id", "accession_number")
"""Ends of the names of columns in which each copy has its own value."""

_DRAWN: Final = "association"
"""Its ids are drawn from 63 bits."""

_AT_ONCE: Final = 20_000


Patterns = Mapping[str, Sequence[int]]
"""The row ids of what is copied, by table."""


def patterns(engine: Engine) -> Patterns:
    """All that is stored now. Raises RuntimeError where there is no series."""
    with engine.begin() as connection:
        found = {name: list(connection.scalars(select(Base.metadata.tables[name].c.id))) for name in TABLES}
    if not found["series"]:
        raise RuntimeError("there is no series to copy")
    return found


def grow(engine: Engine, copied: Patterns, series: int) -> int:
    """Add copies until there are at least so many series; how many there are."""
    with engine.begin() as connection:
        there = connection.scalar(select(func.count()).select_from(Base.metadata.tables["series"])) or 0
        base = _highest_id(connection) + 1
    step = max(max(rows, default=0) for name, rows in copied.items() if name != _DRAWN) + 1
    copies = max(0, -(-(series - there) // len(copied["series"])))
    for first in range(0, copies, _AT_ONCE):
        share = range(first, min(first + _AT_ONCE, copies))
        with engine.begin() as connection:
            for name, rows in copied.items():
                if rows:
                    table = Base.metadata.tables[name]
                    connection.exec_driver_sql(_copying(engine, table, rows, f"{base} + copy.n * {step}", share))
    _settle(engine)
    return there + copies * len(copied["series"])


def _highest_id(connection: Connection) -> int:
    tables = (Base.metadata.tables[name] for name in TABLES if name != _DRAWN)
    return max(connection.scalar(select(func.max(table.c.id))) or 0 for table in tables)


def _copying(engine: Engine, table: Table, rows: Sequence[int], distance: str, copies: range) -> str:
    """A statement that adds copies of rows, as many as `copies` has; `distance` is what is added to their ids."""
    numbers = (
        f"SELECT generate_series({copies.start}, {copies.stop - 1}) AS n"
        if engine.dialect.name == "postgresql"
        else f"WITH RECURSIVE numbers(n) AS (SELECT {copies.start} UNION ALL SELECT n + 1 FROM numbers "
        f"WHERE n < {copies.stop - 1}) SELECT n FROM numbers"
    )
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    values = ", ".join(_value(table, column, distance) for column in table.columns)
    originals = f'SELECT * FROM "{table.name}" WHERE id IN ({", ".join(map(str, rows))})'
    return f'INSERT INTO "{table.name}" ({columns}) SELECT {values} FROM ({originals}) AS old, ({numbers}) AS copy'


def _value(table: Table, column: Column[object], distance: str) -> str:
    name = f'old."{column.name}"'
    if column.primary_key or column.foreign_keys or (table.name, column.name) in _UNDECLARED:
        return f"{name} + {distance}"
    if column.name.endswith(_DISTINCT):
        return f"{name} || '.' || ({distance})"
    return name


def _settle(engine: Engine) -> None:
    """Go on with ids where the copies end; and what a database does by itself in time (SQLite counts no rows)."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "postgresql":
            for name in TABLES:
                if name != _DRAWN:
                    connection.execute(
                        text(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), (SELECT max(id) FROM {name}))")
                    )
            connection.execute(text("VACUUM ANALYZE"))
        else:
            connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
