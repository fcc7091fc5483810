"""Real peers for the tests of the whole node, and the tools to look at what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.testing.peers import Orthanc, StoreScp


@pytest.fixture(name="pacs")
def _pacs(tmp_path: Path) -> Iterator[Orthanc]:
    """An empty Orthanc that runs."""
    with Orthanc(tmp_path / "pacs", "PACS") as orthanc:
        yield orthanc


@pytest.fixture(name="archive")
def _archive(tmp_path: Path) -> Iterator[StoreScp]:
    """A storescp that keeps the bytes it is sent."""
    with StoreScp(tmp_path / "archive", "ARCHIVE") as storescp:
        yield storescp
