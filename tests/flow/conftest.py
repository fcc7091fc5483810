"""Tests marked `both_databases` run on SQLite and on PostgreSQL, as those of the store do."""

from __future__ import annotations

from tests.store.conftest import _database, pytest_generate_tests

__all__ = ["_database", "pytest_generate_tests"]
