"""Files that are there whole: who may read them, and what is left where they cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.whole_files import GIVEN_ON, write_whole


def test_what_is_private_stays_so_and_what_is_given_on_may_be_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"bundle", GIVEN_ON)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"bundle", 0o644)
    write_whole(path, b"key")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"key", 0o600)


def test_what_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "file", b"content", GIVEN_ON)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
