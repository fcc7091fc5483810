"""Tests marked `both_databases` run on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.peer("postgresql"))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("both_databases"):
        metafunc.parametrize("_database", DATABASES, indirect=True)


@pytest.fixture(autouse=True)
def _database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `tests.store.receiving` makes its indexes."""
    if getattr(request, "param", "sqlite") == "postgresql":
        new_url: Callable[[], str] = request.getfixturevalue("new_postgresql_url")
        urls: dict[Path, str] = {}

        def migrated_url(folder: Path) -> str:
            if folder not in urls:
                urls[folder] = new_url()
            return urls[folder]

        monkeypatch.setattr("tests.store.receiving.migrated_url", migrated_url)
