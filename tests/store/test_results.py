"""Engine results at rest: whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicomnode.store.bucket import Bucket, BucketResults
from dicomnode.store.results import ResultStore, result_key

REPORT = {"state": "done", "stages": [{"folder": "0-ct-nlm-image"}]}


@pytest.fixture(name="results")
def _results(tmp_path: Path, bucket_of: Bucket | None) -> ResultStore:
    return ResultStore(tmp_path) if bucket_of is None else BucketResults(tmp_path, bucket_of)


def keep(results: ResultStore, key: str = "key") -> Path:
    with results.scratch() as scratch:
        made = scratch / "out"
        (made / "0-ct-nlm-image").mkdir(parents=True)
        (made / "0-ct-nlm-image" / "voxels.npy").write_bytes(b"voxels")
        return results.keep(made, key, REPORT)


def test_what_was_kept_is_found_with_its_report(results: ResultStore, tmp_path: Path) -> None:
    folder = keep(results)
    assert results.find("key") == (folder, REPORT)
    assert ResultStore(tmp_path).find("key") == (folder, REPORT), "after a restart, too"
    assert (folder / "0-ct-nlm-image" / "voxels.npy").read_bytes() == b"voxels"


def test_what_was_not_kept_or_was_forgotten_is_not_found(results: ResultStore) -> None:
    assert results.find("key") is None
    keep(results)
    results.forget("key")
    results.forget("key")
    assert results.find("key") is None


@pytest.mark.parametrize("bucket_of", ["folder"], indirect=True)  # a bucket's cache is brought anew
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "0-ct-nlm-image" / "voxels.npy").write_bytes(b"voxelz"),
        lambda folder: (folder / "0-ct-nlm-image" / "voxels.npy").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text('{"files"'),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: (folder / "manifest.json").write_text('{"files": {}}'),
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xff"),
    ],
    ids=["changed", "lost", "no manifest", "half a manifest", "no table", "no report", "no text"],
)  # fmt: skip
def test_a_damaged_result_is_not_found_and_can_be_kept_anew(
    results: ResultStore, damage: object, tmp_path: Path
) -> None:
    damage(keep(results))  # type: ignore[operator]
    results = ResultStore(tmp_path)  # as after a restart: times of files are too coarse to tell of this
    assert results.find("key") is None
    keep(results)
    assert results.find("key") is not None


@pytest.mark.parametrize("bucket_of", ["folder"], indirect=True)
def test_what_was_kept_here_is_read_again_only_where_it_was_touched(
    results: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = keep(results) / "0-ct-nlm-image" / "voxels.npy"
    read: list[Path] = []
    monkeypatch.setattr("dicomnode.store.results._digest", read.append)
    assert results.find("key") is not None
    assert read == []
    os.utime(voxels, (1, 1))
    results.find("key")
    assert read == [voxels]


def test_a_result_has_its_name_only_once_it_is_on_the_disk(
    results: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        told.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        assert (tmp_path / "results" / "key").exists() == (told[-1] == "results")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    keep(results)
    assert told[-1] == "results"
    assert {"voxels.npy", "manifest.json", "0-ct-nlm-image", "out"} <= set(told)


def test_scratch_space_is_gone_afterwards_and_after_a_kill(results: ResultStore, tmp_path: Path) -> None:
    with results.scratch() as scratch:
        (scratch / "file").write_text("x")
    assert not scratch.exists()
    (tmp_path / "scratch" / "left").mkdir()
    ResultStore(tmp_path)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_key_changes_with_each_source_the_engine_and_its_settings() -> None:
    chain = [{"engine": "ct-nlm", "settings": {"strength": 0.6}, "digest": "e"}]
    keys = {
        result_key(["a", "b"], chain),
        result_key(["b", "a"], chain),
        result_key(["a"], chain),
        result_key(["a", "b"], [{**chain[0], "digest": "f"}]),
        result_key(["a", "b"], [{**chain[0], "settings": {"strength": 0.7}}]),
        result_key(["a", "b"], [*chain, *chain]),
    }
    assert len(keys) == 6
    assert result_key(["a", "b"], [dict(reversed(chain[0].items()))]) in keys


def test_a_machine_that_starts_leaves_the_scratch_space_of_the_others_alone(tmp_path: Path) -> None:
    one = ResultStore(tmp_path, "one")
    with one.scratch() as scratch:
        (scratch / "voxels.npy").touch()
        ResultStore(tmp_path, "two")
        assert (scratch / "voxels.npy").exists()
        ResultStore(tmp_path, "one")
        assert not scratch.exists(), "its own is what a former life left"
        scratch.mkdir()  # for the end of the block


def test_of_two_machines_that_compute_the_same_the_first_result_stays(tmp_path: Path) -> None:
    """One was taken for dead, and is not: who derives from the first result must not lose it."""
    stores = [ResultStore(tmp_path, machine) for machine in ("one", "two")]
    for store in stores:
        with store.scratch() as made:
            (made / "volume").write_text("the same")
            place = store.keep(made, "key", {"by": "one" if store is stores[0] else "two"})
        assert (place / "volume").read_text() == "the same"
    found = stores[1].find("key")
    assert found is not None
    assert found[1] == {"by": "one"}
