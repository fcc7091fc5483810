"""Files in folders and archives, as folders of plain files. Archives are not trusted: no name in one is ever a path."""

from __future__ import annotations

import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from trainers.errors import SourceError

_SUFFIXES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_MOST_FILES: Final = 200_000
_LARGEST_FILE_BYTES: Final = 1 << 30
_LARGEST_BYTES: Final = 64 << 30
_BLOCK_BYTES: Final = 1 << 20


def is_archive(path: Path) -> bool:
    """Whether its name is that of an archive that can be opened."""
    return path.name.lower().endswith(_SUFFIXES)


@contextmanager
def opened(path: Path, largest_bytes: int = _LARGEST_BYTES) -> Iterator[Path]:
    """A folder that holds the files of `path`: itself, or for an archive a temporary one.

    Its files are numbered in their order within the archive; links and devices are left out. Raises SourceError
    where the archive is damaged, or unpacks to more than `largest_bytes`.
    """
    if not is_archive(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="trainers-") as folder:
        try:
            _unpack(path, Path(folder), largest_bytes)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError,
                NotImplementedError, ValueError) as error:  # fmt: skip
            raise SourceError(f"{path.name} cannot be unpacked ({type(error).__name__})", "fetch it again") from None
        yield Path(folder)


def files_below(folder: Path) -> list[Path]:
    """Every plain file below a folder, by name; links are not followed. A file alone is itself."""
    if folder.is_file():
        return [folder]
    found = []
    for at, path in enumerate(sorted(folder.rglob("*"))):
        if at >= 10 * _MOST_FILES:
            raise SourceError(f"{folder.name} holds too many files", f"{10 * _MOST_FILES} are read")
        if path.is_file() and not path.is_symlink():
            found.append(path)
    return found


def _unpack(path: Path, folder: Path, left_bytes: int) -> None:
    for at, source in enumerate(_members(path)):
        if at >= _MOST_FILES:
            raise SourceError(f"{path.name} holds too many files", f"{_MOST_FILES} are unpacked")
        with source, (folder / f"{at:06d}").open("wb") as target:
            left_bytes -= _copied(source, target, min(left_bytes, _LARGEST_FILE_BYTES), path.name)


def _members(path: Path) -> Iterator[IO[bytes]]:
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    yield archive.open(member)
        return
    with tarfile.open(path, "r|*") as tape:
        for entry in tape:
            if entry.isreg() and (held := tape.extractfile(entry)) is not None:
                yield held


def _copied(source: IO[bytes], target: IO[bytes], most_bytes: int, name: str) -> int:
    """Copies to the end; counts what truly comes, whatever the archive declares."""
    copied = 0
    while block := source.read(_BLOCK_BYTES):
        copied += len(block)
        if copied > most_bytes:
            raise SourceError(f"{name} unpacks to more than is allowed", "unpack it yourself, and give the folder")
        target.write(block)
    return copied
