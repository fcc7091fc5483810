"""Folders that appear whole, beside processes that work in the same place or were killed there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainers.data.making import clear_abandoned, filled_at_once, workplace
from trainers.errors import SourceError

_ROOT = Path(__file__).resolve().parents[3]
_WORKER = """
import sys
from pathlib import Path
from trainers.data.making import workplace
with workplace(Path(sys.argv[1])) as place:
    (place / "half").write_bytes(b"half")
    print(place, flush=True)
    sys.stdin.read()
"""


def _aged(place: Path) -> None:
    """As if nothing had been written there for two hours."""
    then = time.time() - 7200
    for path in (*place.rglob("*"), place):
        os.utime(path, (then, then))


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WORKER, str(tmp_path)]
    worker = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None and worker.stdin is not None
    place = Path(worker.stdout.readline().strip())
    _aged(place)
    clear_abandoned(tmp_path)
    assert (place / "half").exists()
    worker.kill()
    worker.communicate()
    clear_abandoned(tmp_path)
    assert not place.exists()


def test_what_was_written_lately_is_left_alone(tmp_path: Path) -> None:
    """The lock of another machine may not be seen on a network's disk."""
    left = tmp_path / "making-elsewhere"
    (left / "whole").mkdir(parents=True)
    _aged(left)
    (left / "whole" / "noise.npy").write_bytes(b"now")
    clear_abandoned(tmp_path)
    assert left.exists()
    _aged(left)
    clear_abandoned(tmp_path)
    assert not left.exists()


def test_nothing_else_is_removed_and_no_link_followed(tmp_path: Path) -> None:
    kept, cache = tmp_path / "kept", tmp_path / "cache"
    for folder in (kept, cache / "0123abcd"):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"here")
        _aged(folder)
    (cache / "making-link").symlink_to(kept)
    clear_abandoned(cache)
    assert (kept / "file").exists() and (cache / "0123abcd" / "file").exists()


def test_the_first_of_two_that_make_the_same_wins(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        if not (tmp_path / "place").exists():
            filled_at_once(tmp_path / "place", lambda other: (other / "by").write_text("the other"))
        (folder / "by").write_text("me")

    filled_at_once(tmp_path / "place", fill)
    assert (tmp_path / "place" / "by").read_text() == "the other"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_disk_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(SourceError, match="No space left"):
        filled_at_once(tmp_path / "place", full)
    assert list(tmp_path.iterdir()) == []


def test_a_workplace_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="over"), workplace(tmp_path):
        raise ValueError("over")
    assert list(tmp_path.iterdir()) == []
