"""A flow that denoises; and tests marked `both_databases` run on SQLite and on PostgreSQL, as those of the store do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.rooms import DENOISE, Flow, flowing
from tests.store.conftest import _database, pytest_generate_tests
from tests.store.receiving import routing

__all__ = ["_database", "pytest_generate_tests"]


@pytest.fixture(name="flow")
def _flow(tmp_path: Path) -> Iterator[Flow]:
    with flowing(tmp_path, routing(DENOISE)) as flow:
        yield flow
