"""The database: how it is opened, migrated, read and written.

SQLite in WAL mode by default. One writer at a time: `write` waits for its turn (`dicomnode.store.turns`) and takes the
write lock at its start (BEGIN IMMEDIATE), so that a transaction which reads first can never fail half way for want of
the lock.

PostgreSQL for several machines that share one index. `write` is alone there too (a lock of the whole database's, held
until the commit), so that what is right on SQLite is right on it; `statements`, by which receivers record arrivals,
runs beside others of its kind, never beside a `write`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.orm import Session

from dicomnode.store.reach import Reach
from dicomnode.store.turns import WriteTurns

BUSY_TIMEOUT_S: Final = 60
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_PAGES_IN_LOG: Final = 4000  # 16 MB: a page that changes with every instance is written back less often
_SYNCHRONOUS: Final = {"power": "FULL", "process": "NORMAL", "none": "OFF"}
"""WAL with NORMAL survives a killed process but not a power cut: commits since the last checkpoint may be lost."""

_LOOKED_AT: Final = 400
"""Rows of each index that SQLite looks at to know it (its manual's advice)."""

_REOPENED_S: Final = 1800
"""A connection knows what was known of the tables when it was opened."""

_WRITERS: Final = 0x6469636F6D  # "dicom"
"""Number of the advisory lock that writers take on PostgreSQL: alone, or together with others of their kind."""

_NETWORK: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # ms
}
"""How long a PostgreSQL that does not answer is waited for (libpq's words)."""

_SERVER: Final = {
    "idle_in_transaction_session_timeout": 60_000,  # ms
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # ms
}
"""How long the server waits for us (its words): a machine that vanished must keep nobody from writing."""


class Database:
    """One database, opened. `durability` is the node's setting: power, process or none.

    is_shared  whether other machines may use it too
    """

    def __init__(self, url: str, durability: str = "power") -> None:
        self.url = url
        self.engine = _open(url, durability)
        self.is_shared = self.engine.dialect.name == "postgresql"
        self._snapshots = self.engine.execution_options(isolation_level="REPEATABLE READ") if self.is_shared else None
        file = self.engine.url.database if self.engine.dialect.name == "sqlite" else None
        self._turns = WriteTurns(Path(file)) if file else None  # one in memory has a single process
        self._reach = Reach()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the database and writes nothing."""
        with self._reach.watched(), Session(self._snapshots or self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self, *, alone: bool = True) -> Iterator[Session]:
        """A session that commits at its end, or rolls back if the block raises.

        alone  False: for rows that nobody else writes; a server then lets it pass by all that write at the time
        """
        with (
            self._reach.watched(),
            self._turn(),
            self.engine.connect().execution_options(immediate=True) as connection,
            Session(connection, expire_on_commit=False) as session,
            session.begin(),
        ):
            if self.is_shared and alone:
                session.execute(text(f"SELECT pg_advisory_xact_lock({_WRITERS})"))
            yield session

    @contextmanager
    def statements(self) -> Iterator[DBAPICursor]:
        """A transaction like `write`, for prepared statements (`dicomnode.store.index.statements`): the driver's own
        cursor, which costs a tenth of a session. Its errors are the driver's."""
        with self._reach.watched(), self._turn(), closing(self.engine.raw_connection()) as connection:
            try:
                cursor = connection.cursor()
                cursor.execute(
                    f"SELECT pg_advisory_xact_lock_shared({_WRITERS})" if self.is_shared else "BEGIN IMMEDIATE"
                )
                yield cursor
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    def tend(self) -> None:
        """Have SQLite look how its tables have grown, which takes milliseconds; a server does so by itself. Else it
        takes an index in which all values are alike for as good as one in which none are, and reads every row."""
        if self.is_shared:
            return
        with self.write() as session:
            session.execute(text(f"PRAGMA analysis_limit={_LOOKED_AT}"))
            session.execute(text("ANALYZE"))

    def close(self) -> None:
        self.engine.dispose()
        if self._turns is not None:
            self._turns.close()

    def _turn(self) -> AbstractContextManager[None]:
        return nullcontext() if self._turns is None else self._turns.turn()


def sqlite_url(folder: Path) -> str:
    """The URL of the database file in a data folder."""
    return f"sqlite:///{folder / 'node.sqlite'}"


def index_url(database: str | None, folder: Path) -> str:
    """The URL of the index: the setting `node.database`, else the file in the data folder."""
    if database is None:
        return sqlite_url(folder)
    return make_url(database).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def migrate(url: str, scripts: Path = _MIGRATIONS) -> None:
    """Bring the schema to this version; a new database is created whole. One that a newer version has migrated is left
    alone.

    Raises ConfigError where that newer one is too new for us (`dicomnode.store.compatibility`).
    """
    import alembic.command  # slow to import, and needed once
    import alembic.config
    from alembic.script import ScriptDirectory

    from dicomnode.store.compatibility import is_newer

    config = alembic.config.Config()
    config.set_main_option("script_location", str(scripts))
    config.attributes["url"] = url
    with closing(Database(url)) as database, database.engine.connect() as connection:
        newer = is_newer(connection, ScriptDirectory.from_config(config))
    if not newer:
        alembic.command.upgrade(config, "head")
        with closing(Database(url)) as database:
            database.tend()


def _open(url: str, durability: str) -> Engine:
    return _open_sqlite(url, durability) if url.startswith("sqlite") else _open_postgresql(url, durability)


def _open_postgresql(url: str, durability: str) -> Engine:
    """A server with a standby may be told more than we ask for (synchronous_commit): we only ever lower it."""
    options = " ".join(f"-c {name}={value}" for name, value in _SERVER.items())
    if durability == "none":  # else a server that is killed would lose what was answered with success
        options += " -c synchronous_commit=off"
    return create_engine(
        url, pool_pre_ping=True, isolation_level="READ COMMITTED", connect_args={**_NETWORK, "options": options}
    )


def _open_sqlite(url: str, durability: str) -> Engine:
    engine = create_engine(
        url, pool_recycle=_REOPENED_S, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={_SYNCHRONOUS[durability]}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA wal_autocheckpoint={_PAGES_IN_LOG}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
