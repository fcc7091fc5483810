"""Tests marked `both_databases` run on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomnode.store.bucket import Bucket
from dicomnode.testing.s3 import new_bucket, s3_server

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


@pytest.fixture(name="s3", scope="session")
def _s3() -> Iterator[str]:
    """The endpoint of an S3 server."""
    with s3_server() as endpoint:
        yield endpoint


_buckets = itertools.count()


@pytest.fixture(name="bucket")
def _bucket(s3: str) -> Bucket:
    """An empty bucket."""
    return Bucket(new_bucket(s3, f"hospital{next(_buckets)}"))


@pytest.fixture(name="bucket_of", params=["folder", "bucket"])
def _bucket_of(request: pytest.FixtureRequest) -> Bucket | None:
    """Each kind of place for files: None is a folder."""
    return request.getfixturevalue("bucket") if request.param == "bucket" else None
