"""Run by alembic: connects to the URL that `dicomnode.store.database.migrate` gives and applies the versions."""

from __future__ import annotations

from alembic import context

from dicomnode.store.compatibility import note_readers
from dicomnode.store.database import Database
from dicomnode.store.schema import Base

_MIGRATING = 0x6D696772  # "migr"
"""Number of the advisory lock."""


def run() -> None:
    database = Database(context.config.attributes["url"])
    connection = database.engine.connect().execution_options(immediate=True)
    with connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            render_as_batch=True,
            on_version_apply=note_readers,
            include_name=lambda name, kind, _parents: kind != "table" or name in Base.metadata.tables,
        )
        with context.begin_transaction():
            if connection.dialect.name == "postgresql":  # of machines that start at once, one makes the tables
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
            context.run_migrations()
    database.close()


run()
