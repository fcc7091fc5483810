"""A database file is looked at without a trace."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from dicomnode.errors import StoreError
from dicomnode.store import migrations
from dicomnode.store.database import Database, sqlite_url
from dicomnode.store.inspection import inspect
from dicomnode.store.schema import Patient
from tests.store.receiving import open_database


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    """The file of an index that is closed."""
    with open_database(tmp_path):
        pass
    return tmp_path / "node.sqlite"


def test_a_whole_one_is_left_as_it_is(file: Path) -> None:
    before = file.read_bytes()
    inspect(file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_one_in_use_is_read_with_what_its_log_holds(tmp_path: Path) -> None:
    with closing(Database(sqlite_url(tmp_path))) as database, database.engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('9999')")
        connection.commit()
        assert (tmp_path / "node.sqlite-wal").stat().st_size
        with pytest.raises(StoreError, match="another version"):
            inspect(tmp_path / "node.sqlite")


def test_an_empty_one_is_made_use_of(tmp_path: Path) -> None:
    (tmp_path / "node.sqlite").touch()
    inspect(tmp_path / "node.sqlite")


@pytest.mark.parametrize("damage", ["no database", "cut off", "overwritten inside"])
def test_a_damaged_one_is_told_without_its_rows(tmp_path: Path, file: Path, damage: str) -> None:
    with closing(Database(sqlite_url(tmp_path))) as database, database.write() as session:
        session.add_all(Patient(patient_id=f"PATIENT{number}", issuer="") for number in range(500))
    content = file.read_bytes()
    middle = content.rindex(b"PATIENT250") - 500
    file.write_bytes(
        {
            "no database": b"PATIENT" * 1000,
            "cut off": content[: len(content) // 2],
            "overwritten inside": content[:middle] + b"PATIENT" * 600 + content[middle + 4200 :],
        }[damage]
    )
    with pytest.raises(StoreError) as caught:
        inspect(file)
    assert "PATIENT" not in str(caught.value) + caught.value.hint
    assert caught.value.hint


def test_the_known_revisions_are_those_there_are() -> None:
    there = ScriptDirectory(str(Path(migrations.__file__).parent)).walk_revisions()
    assert {script.revision for script in there} == migrations.REVISIONS


def test_one_of_a_newer_version_is_told(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="another version"):
        inspect(file)
