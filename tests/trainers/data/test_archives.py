"""Archives from outside: no name in one becomes a path, and nothing unpacks without end."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from trainers.data.archives import files_below, opened
from trainers.errors import SourceError


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def taped(path: Path, members: dict[str, bytes], links: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return path


EVIL = {"../../outside.txt": b"one", "/etc/outside.txt": b"two", "a/b/..\\..\\c.txt": b"three"}


def test_files_of_an_archive_stay_in_its_folder(tmp_path: Path) -> None:
    inner = tmp_path / "deep" / "deeper"
    inner.mkdir(parents=True)
    for path in (zipped(inner / "evil.zip", EVIL), taped(inner / "evil.tar.gz", EVIL, {"link": "/etc/passwd"})):
        with opened(path) as folder:
            assert [file.read_bytes() for file in files_below(folder)] == [b"one", b"two", b"three"]
            assert all(file.parent == folder for file in files_below(folder))
        assert not folder.exists()
    assert {file.name for file in files_below(tmp_path)} == {"evil.zip", "evil.tar.gz"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_unpacks_without_end_is_stopped(tmp_path: Path, kind: str) -> None:
    path, bomb = tmp_path / f"bomb.{kind}", {"zeros": bytes(3 << 20)}
    _ = zipped(path, bomb) if kind == "zip" else taped(path, bomb, {})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(SourceError, match="more than is allowed"), opened(path, largest_bytes=1 << 20):
        pass


@pytest.mark.parametrize("name", ["bad.zip", "bad.tar", "bad.tgz", "bad.tar.xz"])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 but nothing more of it" * 40)
    with pytest.raises(SourceError, match="cannot be unpacked"), opened(tmp_path / name):
        pass


def test_a_folder_is_itself_and_its_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c").write_text("c")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with opened(tmp_path) as folder:
        assert folder == tmp_path
        assert [path.relative_to(tmp_path).as_posix() for path in files_below(folder)] == ["a/c", "b"]
