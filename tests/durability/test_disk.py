"""The disk that the proofs of durability are built on, by what POSIX promises and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.durability import disk
from tests.durability.disk import Disk, Fate, Model
from tests.durability.recording import Kind, Record

TOP, ROOT, FILE, OTHER = 1, 2, 3, 4


def call(kind: Kind, inode: int, folder: int = 0, **given: object) -> Record:
    fields = {"process": 1, "other_folder": 0, "offset": 0, "token": 0, "first": b"", "second": b"", **given}
    return Record(kind, inode=inode, folder=folder, **fields)  # type: ignore[arg-type]


def create(name: bytes, inode: int = FILE, folder: int = ROOT) -> Record:
    return call(Kind.CREATE, inode, folder, first=name)


def write(content: bytes, offset: int = 0, inode: int = FILE) -> Record:
    return call(Kind.WRITE, inode, offset=offset, first=content)


def sync(inode: int, token: int = 1) -> list[Record]:
    return [call(Kind.SYNC_BEGUN, inode, token=token), call(Kind.SYNC_DONE, inode, token=token)]


def rename(old: bytes, new: bytes, folder: int = ROOT, to: int = ROOT) -> Record:
    return call(Kind.RENAME, FILE, folder, other_folder=to, first=old, second=new)


MADE = [call(Kind.MAKE_FOLDER, ROOT, TOP, first=b"root"), *sync(TOP)]


def left(
    folder: Path, records: list[Record], fate: Fate = disk.nothing, model: Model = Model.STRICT
) -> dict[str, bytes | None]:
    """What a cut after these calls leaves below the recorded folder, which is safe itself."""
    played = Disk(TOP, model)
    for record in [*MADE, *records]:
        played.play(record)
    (folder / "left").mkdir()
    played.materialise(folder / "left", fate)
    return dict(disk.tree(folder / "left" / "root"))


def test_a_synced_file_without_a_synced_name_is_gone(tmp_path: Path) -> None:
    assert left(tmp_path, [create(b"a"), write(b"xy"), *sync(FILE)]) == {}


def test_a_synced_name_without_synced_bytes_is_empty(tmp_path: Path) -> None:
    assert left(tmp_path, [create(b"a"), write(b"xy"), *sync(ROOT)]) == {"a": b""}


def test_a_synced_file_with_a_synced_name_is_whole(tmp_path: Path) -> None:
    assert left(tmp_path, [create(b"a"), write(b"xy"), *sync(ROOT), *sync(FILE)]) == {"a": b"xy"}


def test_a_sync_covers_only_what_was_written_before_it_began(tmp_path: Path) -> None:
    begun, done = sync(FILE)
    records = [create(b"a"), *sync(ROOT), write(b"xy"), begun, write(b"z", 2), done]
    assert left(tmp_path, records) == {"a": b"xy"}


def test_a_sync_that_never_ended_covers_nothing(tmp_path: Path) -> None:
    begun, _ = sync(FILE)
    assert left(tmp_path, [create(b"a"), *sync(ROOT), write(b"xy"), begun]) == {"a": b""}


def test_a_rename_is_safe_once_its_folder_is(tmp_path: Path) -> None:
    records = [create(b"a"), write(b"xy"), *sync(FILE), *sync(ROOT), rename(b"a", b"b")]
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    assert left(tmp_path / "one", records) == {"a": b"xy"}
    assert left(tmp_path / "other", [*records, *sync(ROOT)]) == {"b": b"xy"}


def test_a_rename_to_another_folder_needs_that_folder(tmp_path: Path) -> None:
    records = [
        call(Kind.MAKE_FOLDER, OTHER, ROOT, first=b"folder"),
        create(b"a"),
        *sync(FILE),
        *sync(ROOT),
        rename(b"a", b"b", to=OTHER),
    ]
    assert left(tmp_path, [*records, *sync(OTHER)]) == {"a": b"", "folder": None, "folder/b": b""}


def test_a_reused_inode_is_another_file(tmp_path: Path) -> None:
    records = [create(b"a"), write(b"old"), *sync(FILE), *sync(ROOT), call(Kind.UNLINK, FILE, ROOT, first=b"a")]
    assert left(tmp_path, [*records, create(b"b"), write(b"new")], disk.everything) == {"b": b"new"}


def test_a_truncation_may_be_lost(tmp_path: Path) -> None:
    records = [create(b"a"), write(b"xyz"), *sync(FILE), *sync(ROOT), call(Kind.TRUNCATE, FILE, offset=1)]
    (tmp_path / "one").mkdir()
    assert left(tmp_path / "one", records) == {"a": b"xyz"}
    assert left(tmp_path, records, disk.everything) == {"a": b"x"}


def test_an_ordered_journal_commits_names_with_a_new_file_and_not_with_bytes_written_over(tmp_path: Path) -> None:
    new = [create(b"a"), write(b"xy"), *sync(FILE)]
    (tmp_path / "one").mkdir()
    assert left(tmp_path / "one", new, model=Model.ORDERED) == {"a": b"xy"}
    over = [*new, create(b"b", OTHER), write(b"z"), *sync(FILE)]
    assert left(tmp_path, over, model=Model.ORDERED) == {"a": b"zy"}


@pytest.mark.parametrize(
    ("fate", "expected"),
    [
        (disk.names_only, {"a": b"\0\0", "n.sqlite": b"\0"}),
        (disk.index_only, {"a": b"", "n.sqlite": b"i"}),
        (disk.files_only, {"n.sqlite": b"", "a": b"xy"}),
    ],
)
def test_fates_keep_what_they_are_named_for(tmp_path: Path, fate: Fate, expected: dict[str, bytes]) -> None:
    index = [create(b"n.sqlite", OTHER), write(b"i", inode=OTHER)]
    assert left(tmp_path, [create(b"a"), write(b"xy"), *index], fate) == expected


def test_chance_tears_a_write(tmp_path: Path) -> None:
    content = bytes([1]) * 8192
    torn = left(tmp_path, [create(b"a"), *sync(ROOT), write(content)], disk.chance(1))["a"]
    assert torn is not None
    assert {0, 1} == set(torn)
