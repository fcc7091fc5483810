"""One run of the chaos, and its small disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chaos.site import fill, small_disk


def test_a_small_disk_is_filled_and_emptied(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    with small_disk(folder) as why_not:
        if why_not:
            pytest.skip(why_not)
        ballast = fill(folder)
        with pytest.raises(OSError, match="No space left"):
            (folder / "more").write_bytes(bytes(10**6))
        ballast.unlink()
        (folder / "more").write_bytes(bytes(10**6))


@pytest.mark.peer("postgresql")
@pytest.mark.peer("orthanc")
@pytest.mark.peer("dcmtk")
def test_nothing_is_lost_or_doubled_whatever_breaks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chaos", "--seeds", "1", "--series", "20", "--results", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr + tails(tmp_path)
    assert "1 runs: 0 instances lost, 0 doubled." in ended.stdout


def tails(folder: Path) -> str:
    """The end of what happened, and what was left to do."""
    told = [*folder.rglob("timeline.txt"), *folder.rglob("to_do.txt")]
    return "\n".join(f"{path}:\n{path.read_text()[-6000:]}" for path in told)
