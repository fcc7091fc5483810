"""The rooms that the steps of a series work with, and what several steps ask of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dicomnode.core.ports import Engines, Worker
from dicomnode.inference.memory import SharedFolders
from dicomnode.store.database import Database
from dicomnode.store.files import FileStore
from dicomnode.store.results import ResultStore
from dicomnode.store.schema import Instance

_HEADERS_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True)
class Rooms:
    """What the steps work with; `deadline_s`: how long a job may take in the engines."""

    database: Database
    files: FileStore
    results: ResultStore
    pixels: Worker
    engines: Engines
    shared: SharedFolders
    deadline_s: float

    def paths(self, instances: Sequence[Instance]) -> list[str]:
        """Where the files of instances lie, here."""
        self.files.bring([instance.file for instance in instances])
        return [str(self.files.path(instance.file)) for instance in instances]

    def headers(self, paths: Sequence[str], keywords: Iterable[str]) -> list[dict[str, Any]]:
        """Of each file its `header` (keyword -> values), or the `reason` why it cannot be read."""
        answer = self.pixels.call("read_headers", _HEADERS_TIMEOUT_S, paths=list(paths), keywords=sorted(keywords))
        headers: list[dict[str, Any]] = answer["headers"]
        return headers

    def cards(self, engines: Sequence[str]) -> list[dict[str, Any]]:
        """The cards of engines as they are installed now, with `digest` and `runtime`."""
        return [dict(self.engines.describe(engine)) for engine in engines]
