"""Schema migrations (alembic)."""

from __future__ import annotations

from typing import Final

REVISIONS: Final = frozenset({"0001"})
"""Those that a database may have which this software can use: it brings older ones up to the newest itself."""
