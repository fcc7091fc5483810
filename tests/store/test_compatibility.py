"""Code of this version on the schema of the next one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import select, text

from dicomnode.errors import ConfigError
from dicomnode.store import database as database_module
from dicomnode.store.database import migrate
from dicomnode.store.schema import Compatibility
from tests.store.receiving import TO_PACS, ct_header, receiving, routing

pytestmark = pytest.mark.both_databases

MIGRATIONS = Path(database_module.__file__).parent / "migrations"
NEXT = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9999", "{last}", None, None
readers_from = "{readers_from}"


def upgrade() -> None:
    op.create_table("novelty", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("instance", sa.Column("novelty", sa.String(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError
"""


def revisions() -> list[str]:
    return sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def next_version(folder: Path, readers_from: str) -> Path:
    """The migrations of the next version: ours, and one that adds."""
    copied = shutil.copytree(MIGRATIONS, folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    text = NEXT.format(last=revisions()[-1], readers_from=readers_from)
    (copied / "versions" / "9999_next.py").write_text(text)
    return Path(copied)


def test_code_of_this_version_works_on_the_schema_of_the_next(tmp_path: Path) -> None:
    with receiving(tmp_path / "site", routing(TO_PACS)) as reception:
        reception.receive(ct_header(1))
        url = reception.database.url
        migrate(url, next_version(tmp_path, revisions()[-1]))
        migrate(url)
        reception.receive(ct_header(2))
        with reception.database.read() as session:
            assert session.scalar(text("SELECT count(*) FROM instance WHERE novelty IS NULL")) == 2
            assert session.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
            assert session.scalars(select(Compatibility.readers_from)).all() == [revisions()[-1]]


def test_on_a_schema_that_is_too_new_it_does_not_start(tmp_path: Path) -> None:
    with receiving(tmp_path / "site", routing(TO_PACS)) as reception:
        url = reception.database.url
        migrate(url, next_version(tmp_path, "9999"))
        with pytest.raises(ConfigError, match="schema 9999 of a newer dicomnode") as caught:
            migrate(url)
        assert caught.value.hint


def test_each_migration_says_whose_code_can_go_on(tmp_path: Path) -> None:
    with receiving(tmp_path / "site", routing(TO_PACS)) as reception, reception.database.read() as session:
        (readers_from,) = session.scalars(select(Compatibility.readers_from))
    assert readers_from in revisions()


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    with receiving(tmp_path / "site", routing(TO_PACS)) as reception:
        migrate(reception.database.url)
        with reception.database.read() as session:
            assert list(session.scalars(text("SELECT version_num FROM alembic_version"))) == revisions()[-1:]
