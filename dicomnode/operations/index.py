"""The node's index, opened for a question that is asked beside the node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.errors import NotFoundError
from dicomnode.store.database import Database, index_url


def has_index(config: Config) -> bool:
    """Whether there is one yet; a database on a server is taken to be there."""
    return config.database is not None or (config.node.data / "node.sqlite").exists()


@contextmanager
def reading(config: Config) -> Iterator[Session]:
    """A session that reads the index. Raises NotFoundError where there is none yet."""
    data = config.node.data
    if not has_index(config):
        raise NotFoundError(f"nothing has been stored in {data} yet", "start the node with: dicomnode serve")
    with closing(Database(index_url(config.database, data))) as database, database.read() as session:
        yield session


@contextmanager
def writing(config: Config) -> Iterator[Session]:
    """One transaction that changes the index, beside a running node or without one. Raises NotFoundError where there
    is none yet."""
    data = config.node.data
    if not has_index(config):
        raise NotFoundError(f"nothing has been stored in {data} yet", "start the node with: dicomnode serve")
    url = index_url(config.database, data)
    with closing(Database(url, config.node.durability)) as database, database.write() as session:
        yield session
