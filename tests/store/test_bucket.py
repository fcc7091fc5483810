"""Files in a bucket: what counts is what the bucket has confirmed; the folder in front of it is a cache."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.errors import ConfigError, StoreError
from dicomnode.store.bucket import Bucket, BucketAddress, BucketResults, BucketStore, shrink
from dicomnode.store.files import part10_header
from dicomnode.testing.processes import free_port
from dicomnode.testing.s3 import new_bucket, s3_server
from tests.store.test_files import files_in, offer, stored
from tests.store.test_results import REPORT, keep


def store_at(folder: Path, bucket: Bucket, cache_bytes: int = 1 << 30) -> BucketStore:
    return BucketStore(folder, 0, bucket, cache_bytes, owner="node/receive-1")


def test_another_machine_reads_what_was_stored_here(tmp_path: Path, bucket: Bucket) -> None:
    ours, others = store_at(tmp_path / "a", bucket), store_at(tmp_path / "b", bucket)
    keys = [stored(ours, f"content {number}".encode()) for number in range(20)]
    others.bring(keys)
    assert [others.path(key).read_bytes() for key in keys] == [ours.path(key).read_bytes() for key in keys]
    assert others.path(keys[3]).read_bytes() == part10_header(offer()) + b"content 3"
    others.remove(keys[0])
    assert not ours.same_content(keys[1], keys[2])
    (tmp_path / "c").mkdir()
    third = store_at(tmp_path / "c", bucket)
    third.bring([keys[0]])
    assert not third.path(keys[0]).exists(), "what is not in the bucket stays away"


def test_nothing_is_stored_before_the_bucket_has_it(tmp_path: Path) -> None:
    with s3_server() as endpoint:
        bucket = Bucket(new_bucket(endpoint, "hospital"))
        store = store_at(tmp_path, bucket)
        stored(store, b"content")
        writing = store.begin(offer())
        writing.write([b"content"])
    with pytest.raises(StoreError, match="the bucket failed") as caught:
        writing.finish()
    assert "reachable" in caught.value.hint
    writing.discard()  # and that the bucket cannot be asked to forget it is no error


def test_a_bucket_that_is_not_there_is_told(tmp_path: Path, s3: str) -> None:
    store = store_at(tmp_path, Bucket(BucketAddress("s3://nowhere", s3, access_key="k", secret_key="s")))
    with pytest.raises(StoreError, match="is not there"):
        stored(store, b"content")


def test_nobody_listening_is_told_without_the_servers_words(tmp_path: Path) -> None:
    address = BucketAddress("s3://b", f"http://127.0.0.1:{free_port()}", access_key="k", secret_key="hush")
    with pytest.raises(StoreError) as caught:
        stored(store_at(tmp_path, Bucket(address)), b"content")
    assert "hush" not in f"{caught.value} {caught.value.hint}"


def test_a_missing_extra_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ConfigError) as caught:
        Bucket(replace(BucketAddress("s3://b"), endpoint="http://127.0.0.1:1")).put("name", tmp_path)
    assert "dicomnode-router[s3]" in caught.value.hint


def test_what_was_left_without_a_row_is_found_and_set_aside_here(tmp_path: Path, bucket: Bucket) -> None:
    ours = store_at(tmp_path / "a", bucket)
    other = BucketStore(tmp_path / "b", 0, bucket, 1 << 30, owner="node/receive-2")
    key, _ = stored(ours, b"content"), stored(other, b"another's")
    again = store_at(tmp_path / "c", bucket)
    assert again.own_latest() == [key], "also where the cache is lost"
    again.set_aside(key)
    assert again.own_latest() == []
    assert [path.read_bytes()[-7:] for path in again.strays.iterdir()] == [b"content"]
    assert len(bucket.names("objects/")) == 1


def test_the_cache_lets_go_of_what_was_not_used_for_longest(tmp_path: Path, bucket: Bucket) -> None:
    store = store_at(tmp_path, bucket)
    keys = [stored(store, bytes(1000)) for _ in range(4)]
    size = store.path(keys[0]).stat().st_size
    for age, key in enumerate(keys):
        os.utime(store.path(key), (0, time.time() - 5000 + age))
    store.bring([keys[0]])  # used just now
    assert shrink(tmp_path, 2 * size, time.time()) == 2
    assert [store.path(key).exists() for key in keys] == [True, False, False, True]
    assert shrink(tmp_path, 0, time.time()) == 1, "what was used lately stays whatever it takes"
    store.bring(keys)
    assert all(store.path(key).exists() for key in keys)
    assert len(files_in(tmp_path)) == len(keys), "nothing half brought is left"


def test_the_cache_is_kept_to_its_size_while_files_come(tmp_path: Path, bucket: Bucket) -> None:
    store = store_at(tmp_path, bucket, cache_bytes=5000)
    old = [stored(store, bytes(1000)) for _ in range(3)]
    for key in old:
        if store.path(key).exists():
            os.utime(store.path(key), (0, 0))
    for _ in range(3):
        stored(store, bytes(1000))
    assert not any(store.path(key).exists() for key in old)


def test_another_machine_derives_from_a_result_made_here(tmp_path: Path, bucket: Bucket) -> None:
    ours, others = BucketResults(tmp_path / "a", bucket), BucketResults(tmp_path / "b", bucket)
    assert others.find("key") is None
    keep(ours)
    found = others.find("key")
    assert found is not None
    assert found[1] == REPORT
    assert (found[0] / "0-ct-nlm-image" / "voxels.npy").read_bytes() == b"voxels"
    others.forget("key")
    assert bucket.names("results/") == []
