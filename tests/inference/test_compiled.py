"""Compiled networks that nobody needs any more."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dicomnode.inference.compiled import remove_unused

DAY_S = 24 * 3600


def compiled(folder: Path, name: str, *, made_days: int, read_days: int) -> Path:
    file = folder / name
    file.write_bytes(b"network")
    now = time.time()
    os.utime(file, (now - read_days * DAY_S, now - made_days * DAY_S))
    return file


def test_what_was_not_read_for_thirty_days_is_removed(tmp_path: Path) -> None:
    old = compiled(tmp_path, "1.blob", made_days=90, read_days=31)
    kept = [
        compiled(tmp_path, "2.blob", made_days=90, read_days=29),
        compiled(tmp_path, "3.blob", made_days=1, read_days=90),
        compiled(tmp_path, "key", made_days=90, read_days=90),
    ]
    (tmp_path / "plans").mkdir()
    kept.append(compiled(tmp_path / "plans", "a.plan", made_days=90, read_days=90))
    assert remove_unused(tmp_path) == 1
    assert not old.exists()
    assert all(file.exists() for file in kept), "plans are built by people, and take minutes"
    assert remove_unused(tmp_path) == 0


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert remove_unused(tmp_path / "compiled") == 0
