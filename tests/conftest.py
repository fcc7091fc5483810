"""What all tests share: the `peer` marker and free ports."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom.config
import pytest
from sqlalchemy import create_engine

from dicomnode.store.database import index_url, migrate
from dicomnode.testing.peers import PEERS, PostgreSql, missing_programs
from dicomnode.testing.processes import free_port


def pytest_configure() -> None:
    """An undeclared log event is an error, here and in every process that a test starts.

    SIGTERM unwinds the tests as Ctrl-C does: else the servers that they started would outlive them.
    """
    os.environ["DICOMNODE_STRICT_EVENTS"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _pydicom_as_it_was() -> Iterator[None]:
    """Undo what reading data sets sets for its process (`dicomnode.pixels.read.quiet_pydicom`): this one tests on."""
    logger, mode = logging.getLogger("pydicom"), pydicom.config.settings.reading_validation_mode
    disabled = logger.disabled
    with warnings.catch_warnings():
        yield
    logger.disabled, pydicom.config.settings.reading_validation_mode = disabled, mode


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("peer"):
        (name,) = marker.args
        missing = missing_programs(name)
        if not missing:
            continue
        reason = f"needs {name}: apt-get install {PEERS[name].package} (not found: {', '.join(missing)})"
        if os.environ.get("DICOMNODE_REQUIRE_PEERS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(name="postgresql", scope="session")
def _postgresql() -> Iterator[PostgreSql]:
    """A PostgreSQL server; tests that use it are marked `peer("postgresql")`."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-") as folder, PostgreSql(Path(folder)) as server:
        yield server


@pytest.fixture(name="new_postgresql_url", scope="session")
def _new_postgresql_url(postgresql: PostgreSql) -> Callable[[], str]:
    """Makes an index on the server, and gives its URL: a copy of one that was migrated once."""
    server = create_engine(index_url(postgresql.url(), Path()), isolation_level="AUTOCOMMIT")
    numbers = itertools.count()

    def make(name: str, template: str) -> str:
        with server.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        server.dispose()
        return index_url(postgresql.url(name), Path())

    migrate(make("migrated", "template1"))
    return lambda: make(f"index{next(numbers)}", "migrated")


@pytest.fixture(name="port")
def _port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on."""
    return free_port()
