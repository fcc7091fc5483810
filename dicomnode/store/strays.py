"""Files without a row that were set aside (`strays/`), and those of them that a person wants taken in after all.

Names of files are never taken from outside: what is asked for is looked up among those that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomnode.store.files import storage_errors

_REQUEUED: Final = "requeued"


@dataclass(frozen=True, slots=True)
class Stray:
    """A file that no row names. `at` is when it was last written."""

    name: str
    path: Path
    size_bytes: int
    at: float


class Strays:
    """The strays below a data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "strays"
        self._requeued = self._folder / _REQUEUED

    def found(self) -> list[Stray]:
        """Those that nobody has asked for, the oldest first."""
        return sorted(_in(self._folder), key=lambda stray: (stray.at, stray.name))

    def requeue(self, stray: Stray) -> None:
        """Ask for one to be taken in; the node does so."""
        with storage_errors():
            self._requeued.mkdir(exist_ok=True)
            stray.path.rename(self._requeued / stray.path.name)

    def requeued(self) -> list[Stray]:
        """Those that were asked for."""
        return sorted(_in(self._requeued), key=lambda stray: stray.name)

    def put_back(self, stray: Stray) -> None:
        """Leave one where it was."""
        with storage_errors():
            stray.path.rename(self._folder / stray.path.name)

    def forget(self, stray: Stray) -> None:
        """Remove one that was taken in."""
        with storage_errors():
            stray.path.unlink(missing_ok=True)


def _in(folder: Path) -> Iterator[Stray]:
    if not folder.is_dir():
        return
    for path in folder.glob("*.dcm"):
        try:
            status = path.lstat()
        except FileNotFoundError:  # another process took it in meanwhile
            continue
        if not path.is_symlink():
            yield Stray(path.stem, path, status.st_size, status.st_mtime)
