"""Files at rest: bytes verbatim behind our own group 2, under keys of ours, durable before they count as stored."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
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
from dicomnode.store.bucket import Bucket, BucketStore
from dicomnode.store.files import FileStore, part10_header
from tests.store.receiving import SCANNER, ct_header, encoded


def offer(sop_instance_uid: str = "1.2.3.4.1", transfer_syntax_uid: str = ExplicitVRLittleEndian) -> Offer:
    return Offer(SCANNER, 1, CTImageStorage, sop_instance_uid, transfer_syntax_uid)


@pytest.fixture(name="store")
def _store(tmp_path: Path, bucket_of: Bucket | None) -> FileStore:
    return store_at(tmp_path, bucket_of)


def store_at(folder: Path, bucket: Bucket | None, owner: str = "") -> FileStore:
    """A store in a folder, or in a bucket with the folder as its cache."""
    if bucket is None:
        return FileStore(folder, 0, sync=False, owner=owner)
    return BucketStore(folder, 0, bucket, cache_bytes=1 << 30, owner=owner)


def stored(store: FileStore, content: bytes) -> str:
    writing = store.begin(offer())
    writing.write([content])
    writing.finish()
    return writing.key


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
        writing.write([content[:cut]])
        writing.write([memoryview(content)[cut:]])
        writing.finish()
        kept = store.path(writing.key).read_bytes()
    assert kept == part10_header(offer()) + content
    assert writing.size_bytes == len(kept)


def test_a_data_set_in_thousands_of_pieces_is_whole(store: FileStore) -> None:
    writing = store.begin(offer())
    writing.write([bytes([number % 251]) for number in range(5000)])
    writing.finish()
    assert store.path(writing.key).read_bytes()[writing.header_bytes :] == bytes(n % 251 for n in range(5000))


def test_a_key_is_the_hour_the_owner_and_chance(tmp_path: Path) -> None:
    ours, others = (FileStore(tmp_path, 0, sync=False, owner=owner) for owner in ("node/receive-1", "node/receive-2"))
    keys = [stored(store, b"content") for store in (ours, ours, others)]
    assert all(re.fullmatch(r"\d{8}/\d\d/[0-9a-f]{32}", key) for key in keys)
    assert len(set(keys)) == 3, "the same bytes twice are two files until the index has compared them"
    assert keys[0][:20] == keys[1][:20] != keys[2][:20]
    assert ours.path(keys[0]).relative_to(tmp_path) == Path("objects") / f"{keys[0]}.dcm"


def test_two_files_are_compared_byte_by_byte(store: FileStore) -> None:
    first, same, other = (stored(store, content) for content in (b"content", b"content", b"contend"))
    assert store.same_content(first, same)
    assert not store.same_content(first, other)
    store.remove(same)
    assert not store.same_content(first, same), "what is not there is not the same"


def test_what_is_discarded_leaves_nothing(store: FileStore, tmp_path: Path) -> None:
    writing = store.begin(offer())
    assert files_in(tmp_path) == [], "before the first byte there is nothing"
    writing.write([b"half"])
    assert len(files_in(tmp_path)) == 1
    writing.discard()
    writing.discard()
    assert files_in(tmp_path) == []


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_owner_finds_what_it_wrote_last(tmp_path: Path) -> None:
    ours, others = FileStore(tmp_path, 0, sync=False, owner="a"), FileStore(tmp_path, 0, sync=False, owner="b")
    assert ours.own_latest() == []
    mine = [stored(ours, b"whole"), stored(ours, b"whole")]
    stored(others, b"another's")
    half = ours.begin(offer())
    half.write([b"half"])
    assert sorted(ours.own_latest()) == sorted([*mine, half.key])
    for hour in ("20190101/00", "20190101/01"):
        older = tmp_path / "objects" / hour / Path(mine[0]).with_suffix(".dcm").name
        older.parent.mkdir(parents=True)
        older.write_bytes(b"old")
    assert [key for key in ours.own_latest() if key.startswith("2019")] == ["20190101/01/" + Path(mine[0]).name]


def test_below_the_reserve_nothing_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path, 5_000_000, sync=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 6, 4_999_999))  # type: ignore[attr-defined]
    with pytest.raises(DiskFullError, match="4 MB are left"):
        store.begin(offer())
    assert files_in(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 5, 5_000_000))  # type: ignore[attr-defined]
    store.begin(offer()).discard()


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EIO, StoreError)]
)
@pytest.mark.parametrize("place", ["os.open", "os.writev", "os.fdatasync", "os.fsync"])
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
    writing = store.begin(offer())
    monkeypatch.setattr(os, "writev", lambda _, pieces: sum(map(len, pieces)) - 1)
    with pytest.raises(DiskFullError):
        writing.write([b"content"])


@pytest.fixture(name="told")
def _told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the disk, in order: of a file the folder that it has a name in, of a folder its path."""
    told: list[str] = []

    def record(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int) -> Any:
            path = Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path)
            told.append(f"{name} {path if name == 'fsync' else path.parent}")
            return real(descriptor)

        return call

    monkeypatch.setattr(os, "fdatasync", record("fdatasync", os.fdatasync))
    monkeypatch.setattr(os, "fsync", record("fsync", os.fsync))
    monkeypatch.setattr(time, "strftime", lambda *_: "20261121/18")
    return told


HOUR = "objects/20261121/18"
FOLDERS_ABOVE = ["fsync objects/20261121", "fsync objects", "fsync ."]


def test_bytes_and_name_reach_the_disk_before_success(tmp_path: Path, told: list[str]) -> None:
    store = FileStore(tmp_path, 0, sync=True)
    stored(store, b"content")
    assert told == [*FOLDERS_ABOVE, f"fdatasync {HOUR}", f"fsync {HOUR}"]
    told.clear()
    stored(store, b"content")
    assert told == [f"fdatasync {HOUR}", f"fsync {HOUR}"], "once is enough for the folders above"


def test_a_folder_that_another_process_made_is_made_durable_as_well(tmp_path: Path, told: list[str]) -> None:
    """It may have been killed, or still be about to, before it told the disk."""
    (tmp_path / HOUR).mkdir(parents=True)
    stored(FileStore(tmp_path, 0, sync=True), b"content")
    assert told[:3] == FOLDERS_ABOVE


def test_without_durability_nothing_is_forced(tmp_path: Path, told: list[str]) -> None:
    stored(FileStore(tmp_path, 0, sync=False), b"content")
    assert told == []


def test_a_finished_file_of_ours_is_adopted_durably(tmp_path: Path, told: list[str]) -> None:
    store = FileStore(tmp_path, 0, sync=True)
    (tmp_path / "made").mkdir()
    made = tmp_path / "made" / "one.dcm"
    made.write_bytes(b"derived")
    ((key, size_bytes),) = store.adopt([made])
    assert size_bytes == 7
    assert store.path(key).read_bytes() == b"derived"
    assert not made.exists()
    assert told == [*FOLDERS_ABOVE, f"fdatasync {HOUR}", f"fsync {HOUR}"]


def test_free_space_is_looked_at_while_a_large_object_comes(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request tells its size."""
    monkeypatch.setattr("dicomnode.store.files._LOOKED_AT_EVERY_BYTES", 1000)
    incoming = store.begin(offer())
    incoming.write([bytes(500)])
    monkeypatch.setattr("dicomnode.store.files.free_bytes", lambda _: (0, 10**12))
    store.reserve_bytes = 1
    with pytest.raises(DiskFullError):
        incoming.write([bytes(600)])
    incoming.discard()
    assert not incoming.path.exists()


def test_files_are_forgotten_for_good_whether_they_are_there_or_not(store: FileStore) -> None:
    incoming = store.begin(offer())
    incoming.finish()
    store.remove_all([incoming.key])
    store.remove_all([incoming.key])
    assert not store.path(incoming.key).exists()
