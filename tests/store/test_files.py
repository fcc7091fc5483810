"""Files at rest: bytes verbatim behind our own group 2, named by content, durable before they count as stored."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomnode.core.identity import IMPLEMENTATION_CLASS_UID
from dicomnode.core.types import Offer
from dicomnode.errors import DiskFullError, StoreError
from dicomnode.store.files import FileStore, part10_header
from tests.store.receiving import SCANNER, ct_header, encoded


def offer(sop_instance_uid: str = "1.2.3.4.1", transfer_syntax_uid: str = ExplicitVRLittleEndian) -> Offer:
    return Offer(SCANNER, 1, CTImageStorage, sop_instance_uid, transfer_syntax_uid)


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path, 0, sync=False)


def stored(store: FileStore, content: bytes) -> str:
    writing = store.begin(offer())
    writing.write(content)
    return writing.finish()


def test_pydicom_reads_the_header_and_the_data_set(store: FileStore) -> None:
    read = dcmread(store.path(stored(store, encoded(ct_header()))))
    assert read.file_meta.MediaStorageSOPClassUID == CTImageStorage
    assert read.file_meta.MediaStorageSOPInstanceUID == "1.2.3.4.1"
    assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert read.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert read.file_meta.FileMetaInformationVersion == b"\x00\x01"
    assert read.PatientName == "Doe^Jane"


@given(length=st.integers(1, 64), syntax=st.sampled_from(["1.2.840.10008.1.2", "1.2.840.10008.1.2.4.90"]))
@settings(deadline=None)
def test_the_group_length_is_right_whatever_the_lengths_of_the_uids(length: int, syntax: str) -> None:
    header = part10_header(offer("1" * length, syntax))
    assert header[:132] == bytes(128) + b"DICM"
    assert int.from_bytes(header[140:144], "little") == len(header) - 144
    meta = dcmread(BytesIO(header)).file_meta
    assert (meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == ("1" * length, syntax)


@given(content=st.binary(max_size=300), cut=st.integers(0, 300))
@settings(deadline=None, max_examples=30)
def test_the_data_set_is_kept_byte_for_byte_whatever_it_is(content: bytes, cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = FileStore(Path(folder), 0, sync=False)
        writing = store.begin(offer())
        writing.write(content[:cut])
        writing.write(memoryview(content)[cut:])
        kept = store.path(writing.finish()).read_bytes()
    assert kept == part10_header(offer()) + content
    assert writing.size_bytes == len(kept)


def test_a_file_is_named_by_its_content(store: FileStore, tmp_path: Path) -> None:
    digest = stored(store, b"content")
    path = store.path(digest)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert path.relative_to(tmp_path).parts == ("objects", digest[:2], digest[2:4], f"{digest}.dcm")


def test_storing_twice_is_storing_once(store: FileStore, tmp_path: Path) -> None:
    assert stored(store, b"content") == stored(store, b"content")
    assert len(list(tmp_path.rglob("*.dcm"))) == 1
    assert list((tmp_path / "incoming").iterdir()) == []


def test_what_is_discarded_leaves_nothing(store: FileStore, tmp_path: Path) -> None:
    writing = store.begin(offer())
    writing.write(b"half")
    assert len(list((tmp_path / "incoming").iterdir())) == 1
    writing.discard()
    writing.discard()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_sweep_removes_half_files_and_nothing_else(store: FileStore, tmp_path: Path) -> None:
    digest = stored(store, b"whole")
    store.begin(offer()).write(b"half")
    assert store.sweep() == 1
    assert store.sweep() == 0
    assert store.path(digest).exists()


def test_below_the_reserve_nothing_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path, 5_000_000, sync=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 6, 4_999_999))  # type: ignore[attr-defined]
    with pytest.raises(DiskFullError, match="4 MB are left"):
        store.begin(offer())
    assert list((tmp_path / "incoming").iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 5, 5_000_000))  # type: ignore[attr-defined]
    store.begin(offer()).discard()


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EIO, StoreError)]
)
@pytest.mark.parametrize("place", ["tempfile.mkstemp", "os.fdatasync", "os.fsync"])
def test_a_failing_disk_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: int, kind: type[StoreError]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    store = FileStore(tmp_path, 0, sync=True)
    monkeypatch.setattr(place, fail)
    with pytest.raises(StoreError) as caught:
        stored(store, b"content")
    assert type(caught.value) is kind


def test_a_disk_that_takes_only_a_part_is_full(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    class Partly:
        def write(self, chunk: bytes) -> int:
            return len(chunk) - 1

    writing = store.begin(offer())
    monkeypatch.setattr(writing, "_file", Partly())
    with pytest.raises(DiskFullError):
        writing.write(b"content")


@pytest.fixture(name="told")
def _told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the disk, in order; of a file the folder it lies in, of a folder its path below the data's."""
    told: list[str] = []

    def record(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if isinstance(arguments[0], int):
                path = Path(f"/proc/self/fd/{arguments[0]}").readlink().relative_to(tmp_path)
                told.append(f"{name} {path if name == 'fsync' else path.parent}")
            else:
                told.append(name)
            return real(*arguments)

        return call

    monkeypatch.setattr(os, "fdatasync", record("fdatasync", os.fdatasync))
    monkeypatch.setattr(os, "fsync", record("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", record("rename", Path.replace))
    return told


def synced_folders(digest: str) -> list[str]:
    """Every folder that may have a new entry, from the file upwards."""
    inner, outer = f"objects/{digest[:2]}/{digest[2:4]}", f"objects/{digest[:2]}"
    return [f"fsync {inner}", f"fsync {outer}", "fsync objects", "fsync ."]


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_success(tmp_path: Path, told: list[str]) -> None:
    store = FileStore(tmp_path, 0, sync=True)
    told.clear()
    digest = stored(store, b"content")
    assert told == ["fdatasync incoming", "rename", *synced_folders(digest)]


def test_a_folder_that_another_process_made_is_made_durable_as_well(tmp_path: Path, told: list[str]) -> None:
    """It may have been killed, or still be about to, before it told the disk."""
    store = FileStore(tmp_path, 0, sync=True)
    digest = hashlib.sha256(part10_header(offer()) + b"content").hexdigest()
    store.path(digest).parent.mkdir(parents=True)
    told.clear()
    stored(store, b"content")
    assert told[2:] == [*synced_folders(digest)]
    told.clear()
    stored(store, b"content")
    assert told == ["fdatasync incoming", "rename", synced_folders(digest)[0]], "once is enough for the folders above"


def test_without_durability_nothing_is_forced(tmp_path: Path, told: list[str]) -> None:
    stored(FileStore(tmp_path, 0, sync=False), b"content")
    assert told == ["rename"]


def test_a_finished_file_of_ours_is_adopted_durably(tmp_path: Path, told: list[str]) -> None:
    store = FileStore(tmp_path, 0, sync=True)
    told.clear()
    (tmp_path / "made").mkdir()
    made = tmp_path / "made" / "one.dcm"
    made.write_bytes(b"derived")
    digest, size_bytes = store.adopt(made)
    assert (digest, size_bytes) == (hashlib.sha256(b"derived").hexdigest(), 7)
    assert store.path(digest).read_bytes() == b"derived"
    assert not made.exists()
    assert told[:3] == ["fdatasync made", "rename", synced_folders(digest)[0]]
