"""Two versions of the node on one database: which schema which code can work with.

Migrations only add (tables, indexes, columns that may be null or have a default), and what they make needless is
removed one release later: so the code of the release before works on the schema of this one, and both may run side by
side while machine after machine is upgraded. Each migration says in `readers_from` the oldest revision whose code can
still work on the schema that it leaves; the database keeps that of the newest that was applied.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, delete, insert, select

from dicomnode.errors import ConfigError
from dicomnode.store.schema import Compatibility

_HINT: Final = "upgrade this one as well"


def note_readers(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """Keep in the database who can work with it: alembic calls this in the transaction of each migration."""
    applied = step.up_revision
    assert ctx.connection is not None  # only printed scripts have none
    assert isinstance(applied, Script)
    ctx.connection.execute(delete(Compatibility))
    ctx.connection.execute(insert(Compatibility).values(readers_from=applied.module.readers_from))


def is_newer(connection: Connection, scripts: ScriptDirectory) -> bool:
    """Whether a newer version of the node has migrated the database, and ours can still work with it.

    Raises ConfigError where it can not. Revisions are numbers of four digits.
    """
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None or current in {script.revision for script in scripts.walk_revisions()}:
        return False
    ours = scripts.get_current_head()
    readers_from = connection.scalar(select(Compatibility.readers_from))
    if ours is None or readers_from is None or ours < readers_from:
        raise ConfigError(
            f"the index has the schema {current} of a newer dicomnode, and this one knows {ours} at most", _HINT
        )
    return True
