"""Where images come from: a table beside them, CSV or TOML, a row for each file or folder.

Columns `file` (path from the table's folder), `licence` and `collection` are needed; `attribution`, `repo`, `commit`
and `path` are taken in where they are there; what known collections ask to be said is known
(`trainers.data.attributions`). In TOML the rows are `[[image]]` tables of the same keys. Whatever the
licence, what is trained on an image carries its credit.
"""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from trainers.data.attributions import attribution_of
from trainers.data.series import Credit
from trainers.errors import SourceError

_LARGEST_BYTES: Final = 16 << 20
_NEEDED: Final = ("file", "licence", "collection")


class Provenance:
    """The credits of a table; `credit_of` finds a file's."""

    def __init__(self, folder: Path, credits: Mapping[str, Credit]) -> None:
        self._folder = folder.resolve()
        self._credits = credits

    def credit_of(self, path: Path) -> Credit:
        """Of a file, or of the nearest folder above it that the table names.

        Raises SourceError where there is none: nothing is trained on images of unknown licence.
        """
        resolved = path.resolve()
        if resolved.is_relative_to(self._folder):
            relative = resolved.relative_to(self._folder)
            for candidate in (relative, *relative.parents):
                if found := self._credits.get(candidate.as_posix()):
                    return found
        raise SourceError(f"{path.name} is not in the provenance table", "add a row with its licence and collection")


def read_provenance(table: Path) -> Provenance:
    """A table of credits. Raises SourceError where it cannot be read or a row lacks what is needed."""
    try:
        if table.stat().st_size > _LARGEST_BYTES:
            raise SourceError(f"{table.name} is too large for a table", f"{_LARGEST_BYTES >> 20} MiB are read")
        text = table.read_text()
        rows = tomllib.loads(text).get("image") if table.suffix == ".toml" else csv.DictReader(io.StringIO(text))
        credits = dict(_row(row, table.name, at) for at, row in enumerate(_tables(rows, table.name), 1))
    except OSError as error:
        raise SourceError(
            f"{table} cannot be read: {error.strerror}", "give the table of licences, CSV or TOML"
        ) from None
    except (UnicodeDecodeError, csv.Error, tomllib.TOMLDecodeError) as error:
        raise SourceError(f"{table.name} cannot be read ({type(error).__name__})", "give a CSV or TOML table") from None
    return Provenance(table.parent, credits)


def _tables(rows: object, name: str) -> Iterable[Mapping[str, Any]]:
    found = list(rows) if isinstance(rows, csv.DictReader | list) else []
    if not found or not all(isinstance(row, dict) for row in found):
        raise SourceError(f"{name} has no rows", "in TOML each is an [[image]] table")
    return found


def _row(row: Mapping[str, Any], name: str, at: int) -> tuple[str, Credit]:
    words = {str(key): value.strip() for key, value in row.items() if isinstance(value, str)}
    for needed in _NEEDED:
        if not words.get(needed):
            raise SourceError(f"{name}, row {at}, lacks {needed!r}", "every image needs its licence and collection")
    source = " ".join(filter(None, (words.get("repo"), words.get("commit"), words.get("path"))))
    attribution = words.get("attribution") or attribution_of(words["collection"])
    credit = Credit(words["collection"], words["licence"], attribution, source)
    return Path(words["file"]).as_posix(), credit
