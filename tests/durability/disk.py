"""A disk that keeps only what it was told to keep: what a power cut may leave of a recorded program's files.

Two models. STRICT is POSIX and no more: a file's bytes are safe once fsync or fdatasync of it has succeeded that began
after they were written; a name is safe once fsync of its folder has. ORDERED adds what ext4 and XFS do besides: where a
sync has to commit the file system's journal, all names given before it are committed too.

What is not safe may be there or not, each name and each block of each write by itself: a `Fate` says which. A cut must
leave the node whole under every fate, so the tests try those that are likely to hurt, and random ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from tests.durability.recording import Kind, Record

_BLOCK_BYTES: Final = 512
"""The smallest part of a write that a disk keeps or loses as a whole."""


class Model(Enum):
    STRICT = "strict"
    ORDERED = "ordered"


@dataclass(frozen=True, slots=True)
class Write:
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    size: int


@dataclass(frozen=True, slots=True)
class Entries:
    """Names of a folder that change at once; None is a name that goes."""

    names: dict[str, Inode | None]


Change = Write | Resize | Entries


@dataclass(eq=False)
class Inode:
    """A file or folder: what of it is safe, and the changes since.

    name   the last one it got, for a fate to know it by
    count  of all changes that are safe
    """

    is_folder: bool
    name: str
    content: bytearray = field(default_factory=bytearray)
    entries: dict[str, Inode] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)
    count: int = 0

    @property
    def last(self) -> int:
        return self.count + len(self.pending)

    def keep(self, count: int) -> None:
        """Make the changes up to that count safe."""
        while self.count < count:
            self.apply(self.pending.pop(0))
            self.count += 1

    def apply(self, change: Change) -> None:
        match change:
            case Entries(names):
                for name, inode in names.items():
                    self.entries.pop(name, None)
                    if inode is not None:
                        self.entries[name] = inode
            case Resize(size):
                del self.content[size:]
                self.content.extend(bytes(size - len(self.content)))
            case Write(offset, content):
                self.content.extend(bytes(max(0, offset - len(self.content))))
                self.content[offset : offset + len(content)] = content

    @property
    def is_index(self) -> bool:
        return ".sqlite" in self.name


Fate = Callable[[Inode, Change], Sequence[Change]]
"""What is left of a change that was not safe."""


def nothing(_inode: Inode, _change: Change) -> Sequence[Change]:
    """Only what is safe."""
    return ()


def everything(_inode: Inode, change: Change) -> Sequence[Change]:
    """As after a killed process: the system lived on."""
    return (change,)


def names_only(inode: Inode, change: Change) -> Sequence[Change]:
    """Every name and size, but zeros where bytes were not safe: journals that order no data leave this."""
    if not isinstance(change, Write):
        return (change,)
    return (Resize(change.offset + len(change.content)),) if _grows(inode, change) else ()


def index_only(inode: Inode, change: Change) -> Sequence[Change]:
    """The database got further than the files it tells of."""
    return (change,) if inode.is_index or isinstance(change, Entries) else ()


def files_only(inode: Inode, change: Change) -> Sequence[Change]:
    """The files got further than the database."""
    return () if inode.is_index else (change,)


def chance(seed: int) -> Fate:
    """Each name and each block by chance."""
    draw = random.Random(seed)

    def fate(_inode: Inode, change: Change) -> Sequence[Change]:
        if not isinstance(change, Write):
            return (change,) if draw.random() < 0.5 else ()
        starts = range(0, len(change.content), _BLOCK_BYTES)
        kept = (start for start in starts if draw.random() < 0.5)
        return [Write(change.offset + start, change.content[start : start + _BLOCK_BYTES]) for start in kept]

    return fate


class Disk:
    """The folder above the recorded one, as the records that were played leave it."""

    def __init__(self, top_inode: int, model: Model = Model.STRICT) -> None:
        self.top = Inode(is_folder=True, name="")
        self._inodes = {top_inode: self.top}
        self._begun: dict[int, list[tuple[Inode, int]]] = {}
        self._model = model

    def play(self, record: Record) -> None:
        """Do what was done."""
        match record.kind:
            case Kind.CREATE | Kind.MAKE_FOLDER:
                self._inodes[record.inode] = Inode(record.kind is Kind.MAKE_FOLDER, record.first.decode())
                self._link(record.inode, record.folder, record.first)
            case Kind.LINK:
                self._link(record.inode, record.other_folder, record.second)
            case Kind.RENAME:
                self._rename(record)
            case Kind.UNLINK:
                self._inodes[record.folder].pending.append(Entries({record.first.decode(): None}))
            case Kind.WRITE:
                self._inodes[record.inode].pending.append(Write(record.offset, record.first))
            case Kind.TRUNCATE:
                self._inodes[record.inode].pending.append(Resize(record.offset))
            case Kind.SYNC_BEGUN:
                self._begun[record.token] = self._covered(self._inodes[record.inode])
            case Kind.ALL_BEGUN:
                self._begun[record.token] = [(inode, inode.last) for inode in self._inodes.values()]
            case Kind.SYNC_DONE | Kind.ALL_DONE:
                for inode, count in self._begun.pop(record.token):
                    inode.keep(count)

    def _link(self, inode: int, folder: int, name: bytes) -> None:
        if folder:  # O_TMPFILE has none
            linked = self._inodes[inode]
            linked.name = name.decode()
            self._inodes[folder].pending.append(Entries({linked.name: linked}))

    def _rename(self, record: Record) -> None:
        """Within one folder it happens at once; between two, each folder has its own part of it to lose."""
        if record.folder == record.other_folder:
            renamed = self._inodes[record.inode]
            renamed.name = record.second.decode()
            self._inodes[record.folder].pending.append(Entries({record.first.decode(): None, renamed.name: renamed}))
        else:
            self._link(record.inode, record.other_folder, record.second)
            self._inodes[record.folder].pending.append(Entries({record.first.decode(): None}))

    def _covered(self, synced: Inode) -> list[tuple[Inode, int]]:
        """What a sync that begins now makes safe."""
        covered = [(synced, synced.last)]
        if self._model is Model.ORDERED and _commits_journal(synced):
            covered += [(inode, inode.last) for inode in self._inodes.values() if inode.is_folder]
        return covered

    def materialise(self, folder: Path, fate: Fate = nothing) -> None:
        """Write what is left after a cut now into a folder, in the place of the folder above the recorded one."""
        for name, inode in _left(self.top, fate).entries.items():
            _write(folder / name, inode, fate)


def _commits_journal(inode: Inode) -> bool:
    """Whether its sync needs more than its blocks written: new names, or a size that changed."""
    if inode.is_folder:
        return bool(inode.pending)
    return not inode.count or any(isinstance(change, Resize) or _grows(inode, change) for change in inode.pending)


def _grows(inode: Inode, change: Change) -> bool:
    return isinstance(change, Write) and change.offset + len(change.content) > len(inode.content)


def _left(inode: Inode, fate: Fate) -> Inode:
    """The inode with what its fate leaves of it."""
    left = Inode(inode.is_folder, inode.name, bytearray(inode.content), dict(inode.entries))
    for change in inode.pending:
        for kept in fate(left, change):
            left.apply(kept)
    return left


def _write(path: Path, inode: Inode, fate: Fate) -> None:
    left = _left(inode, fate)
    if not left.is_folder:
        path.write_bytes(left.content)
        return
    path.mkdir()
    for name, below in left.entries.items():
        _write(path / name, below, fate)


def tree(folder: Path) -> Iterator[tuple[str, bytes | None]]:
    """Every path below a folder with its bytes, None for folders. Without SQLite's -shm, which lives in memory."""
    for path in sorted(folder.rglob("*")):
        if not path.name.endswith("-shm"):
            yield str(path.relative_to(folder)), path.read_bytes() if path.is_file() else None
