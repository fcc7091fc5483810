"""Folders of arrays in memory, their budget, and what their owner leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dicomnode.inference.memory import SharedFolders


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """What stands for a file system in memory, and the disk."""
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    return memory, disk


def test_a_folder_is_in_memory_while_the_budget_lasts_and_gone_afterwards(places: tuple[Path, Path]) -> None:
    memory, disk = places
    with closing(SharedFolders(memory, disk, 100)) as shared:
        with shared.folder(60) as first, shared.folder(60) as second:
            assert (first.is_relative_to(memory), second.is_relative_to(disk)) == (True, True)
            assert shared.used_bytes == 60
            assert first.stat().st_mode & 0o077 == 0, "pixels of patients are for nobody else"
        assert shared.used_bytes == 0
        with shared.folder(100) as third:
            assert third.is_relative_to(memory)
        assert not any(folder.exists() for folder in (first, second, third))
    assert [path.name for path in (memory / f"dicomnode-{os.getuid()}").iterdir()] == [".claiming"]


def test_without_memory_everything_is_on_the_disk(places: tuple[Path, Path]) -> None:
    memory, disk = places
    for shared in (SharedFolders(None, disk, 100), SharedFolders(memory, disk, 0), SharedFolders(disk / "no", disk, 9)):
        with closing(shared), shared.folder(1) as folder:
            assert folder.is_relative_to(disk)


def test_a_full_memory_file_system_is_left_alone(places: tuple[Path, Path]) -> None:
    memory, disk = places
    with closing(SharedFolders(memory, disk, 1 << 60)) as shared, shared.folder(1 << 59) as folder:
        assert folder.is_relative_to(disk)


def test_a_folder_that_others_may_read_or_own_is_not_used(places: tuple[Path, Path]) -> None:
    memory, disk = places
    (memory / f"dicomnode-{os.getuid()}").mkdir()
    (memory / f"dicomnode-{os.getuid()}").chmod(0o777)
    with closing(SharedFolders(memory, disk, 100)) as shared, shared.folder(1) as folder:
        assert folder.is_relative_to(disk)


OWNER = """
import sys, time
from pathlib import Path
from dicomnode.inference.memory import SharedFolders
shared = SharedFolders(Path(sys.argv[1]), Path(sys.argv[2]), 100)
with shared.folder(10) as folder:
    (folder / "voxels.npy").write_bytes(b"pixels")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_owner_left_is_cleared_away_and_what_a_living_one_has_is_not(
    places: tuple[Path, Path],
) -> None:
    memory, disk = places
    command = [sys.executable, "-c", OWNER, str(memory), str(disk)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        assert folder.is_relative_to(memory)
        SharedFolders(memory, disk, 100).close()
        assert (folder / "voxels.npy").exists()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert (folder / "voxels.npy").exists()
    SharedFolders(memory, disk, 100).close()
    assert not folder.parent.exists()
