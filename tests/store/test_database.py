"""The schema as migrations make it, and what a transaction promises."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import alembic.autogenerate
import alembic.migration
import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import IntegrityError

from dicomnode.store.database import Database, migrate, sqlite_url
from dicomnode.store.index import jobs, queues
from dicomnode.store.schema import Base, Instance, Job, JobState, Patient, Plan
from tests.store.receiving import ct_header, open_database, receiving


def test_the_migrations_make_exactly_the_schema(tmp_path: Path) -> None:
    migrate(sqlite_url(tmp_path))
    with closing(Database(sqlite_url(tmp_path))) as database, database.engine.connect() as connection:
        context = alembic.migration.MigrationContext.configure(connection, opts={"compare_type": True})
        assert alembic.autogenerate.compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() is not None


def test_the_migrated_tables_read_as_if_the_schema_had_made_them(tmp_path: Path) -> None:
    """What autogenerate does not compare: foreign keys' targets, names of constraints, order of columns."""
    migrate(sqlite_url(tmp_path))
    with closing(Database("sqlite://")) as database:
        Base.metadata.create_all(database.engine)
        with database.engine.connect() as connection:
            wanted = dict(connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all())
    with closing(sqlite3.connect(tmp_path / "node.sqlite")) as file:
        made = dict(file.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
    made.pop("alembic_version")
    made = {name: sql for name, sql in made.items() if not name.startswith("sqlite_")}  # its own statistics
    assert {name: _words(sql) for name, sql in made.items()} == {name: _words(sql) for name, sql in wanted.items()}


def _words(sql: str) -> list[str]:
    return sorted(sql.replace("\n", " ").replace("\t", " ").replace(",", " ").replace('"', "").split())


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    migrate(sqlite_url(tmp_path))
    with closing(Database(sqlite_url(tmp_path))) as database, database.write() as session:
        session.add(Patient(patient_id="P1", issuer=""))
    migrate(sqlite_url(tmp_path))
    with closing(Database(sqlite_url(tmp_path))) as database, database.read() as session:
        assert session.scalars(select(Patient.patient_id)).all() == ["P1"]


def test_the_engines_own_tables_survive_a_migration(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "node.sqlite")) as file:
        file.execute("CREATE TABLE workflow_status (workflow_uuid TEXT)")
    migrate(sqlite_url(tmp_path))
    with closing(sqlite3.connect(tmp_path / "node.sqlite")) as file:
        assert file.execute("SELECT count(*) FROM workflow_status").fetchone() == (0,)


@pytest.mark.parametrize(("durability", "level"), [("power", 2), ("process", 1), ("none", 0)])
def test_durability_is_what_was_asked_for(tmp_path: Path, durability: str, level: int) -> None:
    with closing(Database(sqlite_url(tmp_path), durability)) as database, database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_block_that_raises_writes_nothing(tmp_path: Path) -> None:
    with open_database(tmp_path) as database:
        with pytest.raises(RuntimeError), database.write() as session:
            session.add(Patient(patient_id="P1", issuer=""))
            session.flush()
            raise RuntimeError
        with database.read() as session:
            assert session.scalars(select(Patient)).all() == []


def test_a_write_that_only_reads_yet_holds_the_lock_and_readers_go_on(tmp_path: Path) -> None:
    with open_database(tmp_path) as database, closing(sqlite3.connect(tmp_path / "node.sqlite", timeout=0)) as other:
        other.isolation_level = None
        with database.write() as session:
            assert session.scalars(select(Patient)).all() == []
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            session.add(Patient(patient_id="P1", issuer=""))
            session.flush()
            assert other.execute("SELECT count(*) FROM patient").fetchone() == (0,)
        assert other.execute("SELECT count(*) FROM patient").fetchone() == (1,)


def test_rows_that_belong_to_nothing_are_refused(tmp_path: Path) -> None:
    with open_database(tmp_path) as database, pytest.raises(IntegrityError), database.write() as session:
        session.add(Plan(series_row=99, generation=1, created_at=0.0, content={}))


def test_one_version_of_an_instance_twice_is_refused() -> None:
    assert any(
        {column.name for column in getattr(constraint, "columns", ())} == {"sop_instance_uid", "version"}
        for constraint in Instance.__table__.constraints  # type: ignore[attr-defined]
    )


def test_the_first_plan_of_a_closing_holds(tmp_path: Path) -> None:
    with receiving(tmp_path) as reception:
        reception.receive(ct_header())
        with reception.database.write() as session:
            first = jobs.record_plan(session, 1, 1, {"a": 1}, [({"n": 1}, [1]), ({"n": 2}, [1])], 10.0)
        with reception.database.write() as session:
            again = jobs.record_plan(session, 1, 1, {"b": 1}, [({"n": 3}, [1])], 11.0)
            assert [job.id for job in again] == [job.id for job in first]
            assert [job.content for job in session.scalars(select(Job))] == [{"n": 1}, {"n": 2}]
            assert session.scalars(select(Plan.content)).all() == [{"a": 1}]
            assert {job.id for job in jobs.unfinished_jobs(session)} == {job.id for job in first}
            jobs.end_job(session, first[0].id, JobState.FAILED, ["why"], 12.0)
            assert [job.id for job in jobs.unfinished_jobs(session)] == [first[1].id]


def test_sqlite_knows_how_its_tables_have_grown(tmp_path: Path) -> None:
    """Else it reads every delivery of a destination to find those of one series."""
    with receiving(tmp_path) as reception:
        for number in range(1, 120):
            reception.receive(ct_header(number, SeriesInstanceUID=f"1.2.3.{number % 40}"))
        reception.database.tend()
    with open_database(tmp_path) as database, database.engine.connect() as connection:
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT outbox.id, outbox.finished_at, instance.sop_class_uid "
            "FROM outbox JOIN instance ON instance.id = outbox.instance_row WHERE instance.series_row = 3 "
            "AND instance.active = 1 AND outbox.destination = 'pacs' AND outbox.state = 'ready' "
            "AND outbox.confirmed_at IS NULL"
        )
        assert "ix_instance_series_row" in " ".join(row[3] for row in plan)


def test_what_is_to_be_planned_is_found_without_reading_what_has_a_plan(tmp_path: Path) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    with open_database(tmp_path) as database, database.read() as session:
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
        jobs.unplanned_series(session, closed_before=1000.0)
        queues.waiting(session)
        for statement, values in asked[:2]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            assert "ix_series_unplanned" in " ".join(row[3] for row in plan)
