"""Engine results at rest: folders of arrays with a manifest, named by what they were computed from.

A result is written aside, made durable and renamed into place, so one that is there is whole. It saves a second run of
the engines after a crash, and is removed once its derived objects are stored.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_Stamp = tuple[tuple[int, int, int], ...]

MANIFEST: Final = "manifest.json"
"""Written last: a folder that has one is whole."""


def stage_folder(folder: Path, key: str, stage: str) -> Path:
    """Where what one stage made lies in the result `key` of the store below `folder`, if it is here."""
    return folder / "results" / key / stage


class ResultStore:
    """Results below one folder; scratch space beside them, emptied at each start.

    machine  whose scratch space it is: machines that share the folder must not empty each other's; "" where none do
    """

    def __init__(self, folder: Path, machine: str = "") -> None:
        self._results = folder / "results"
        self._scratch = folder / "scratch" / machine
        self._whole: dict[str, _Stamp] = {}
        shutil.rmtree(self._scratch, ignore_errors=True)
        for made in (self._results, self._scratch):
            made.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            yield Path(folder)

    def find(self, key: str) -> tuple[Path, dict[str, Any]] | None:
        """The folder and the report of a result that is there and whole."""
        folder = self._results / key
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            stamp = _stamp(folder, manifest["files"])
            if self._whole.get(key) != stamp:  # neither made nor checked here, or changed since
                if any(_digest(folder / name) != digest for name, digest in manifest["files"].items()):
                    return None
                self._whole[key] = stamp
            return folder, manifest["report"]
        except (OSError, ValueError, TypeError, LookupError):
            return None

    def has_of(self, prefix: str) -> bool:
        """Whether there may be a result whose key begins so."""
        return any(self._results.glob(f"{prefix}*"))

    def keep(self, made: Path, key: str, report: Mapping[str, Any]) -> Path:
        """Move a folder of files into the store under `key`, durably; its place. What is there, and whole, stays."""
        files = {str(path.relative_to(made)): _digest(path) for path in sorted(made.rglob("*")) if path.is_file()}
        (made / MANIFEST).write_text(json.dumps({"files": files, "report": report}))
        for path in made.rglob("*"):
            _sync(path)
        _sync(made)
        target = self._results / key
        if self.find(key) is None:  # another machine, which took us for dead, may have computed the same meanwhile
            shutil.rmtree(target, ignore_errors=True)  # a damaged one
            made.rename(target)
            _sync(self._results)
            self._whole[key] = _stamp(target, files)
        return target

    def forget(self, key: str) -> None:
        self._whole.pop(key, None)
        shutil.rmtree(self._results / key, ignore_errors=True)


def result_key(digests: list[str], chain: list[Mapping[str, Any]]) -> str:
    """The name of a result: from the digests of its source slices and the chain (engine digests and settings)."""
    return hashlib.sha256(json.dumps([digests, chain], sort_keys=True).encode()).hexdigest()


def input_of(key: str) -> str:
    """Of a result's name JOB-KEY, the part that tells what it was computed from, whoever computed or released it."""
    return key.partition("-")[2].removesuffix("-released")


def _stamp(folder: Path, names: Iterable[str]) -> _Stamp:
    """What changes where one of the files is written to or exchanged."""
    found = [(folder / name).stat() for name in sorted(names)]
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
