"""What runs beside the workflows, as the configuration wants it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicomnode.config import Config, load_config
from dicomnode.core.disk import Marks
from dicomnode.core.retention import RetentionPolicy
from dicomnode.errors import DiskFullError
from dicomnode.serve import wiring
from dicomnode.serve.care import keeping, watched
from dicomnode.serve.checks import check_routes
from dicomnode.store.files import FileStore
from dicomnode.testing.node import toml

GB = 10**9
PEERS = {"pacs": {"ae_title": "PACS", "host": "10.0.0.2", "port": 104}}


def site(folder: Path, **tables: Any) -> Config:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "dicomnode.toml").write_text(toml({"node": {"ae_title": "NODE"}, **tables}))
    return load_config(folder / "dicomnode.toml")


def test_nothing_is_deleted_by_default(tmp_path: Path) -> None:
    found = keeping(site(tmp_path))
    assert found.policy == RetentionPolicy()
    assert not found.policy.deletes
    assert found.withheld_results_days == 30.0


def test_every_number_of_retention_is_followed(tmp_path: Path) -> None:
    numbers = {
        "originals_days": 1, "derived_days": 2, "min_free": "15%", "delete_unconfirmed_after_days": 3,
        "delete_unrouted_after_days": 4, "delete_quarantined_after_days": 5, "withheld_results_days": 6,
    }  # fmt: skip
    found = keeping(site(tmp_path, retention=numbers))
    assert found.policy == RetentionPolicy(1, 2, 3, 4, 5, True)
    assert found.withheld_results_days == 6


@pytest.mark.parametrize(
    ("limits", "marks"),
    [
        ({}, Marks(200 * GB, 100 * GB)),
        ({"disk_warning": "5%"}, Marks(100 * GB, 100 * GB)),
        ({"disk_warning": "300 GB", "disk_reserve": "50 GB"}, Marks(300 * GB, 50 * GB)),
    ],
)
def test_the_warning_comes_before_the_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any], marks: Marks
) -> None:
    monkeypatch.setattr("dicomnode.serve.care.free_bytes", lambda _: (0, 1000 * GB))
    (found,) = watched(site(tmp_path, limits=limits))
    assert (found.name, found.marks) == ("files", marks)


def test_an_index_on_another_disk_has_its_own_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").mkdir()
    config = site(tmp_path, node={"ae_title": "NODE", "files": tmp_path / "files"}, limits={"disk_reserve": "50 GB"})
    assert wiring.other_disks(config) == (), "they are on one disk here"
    real: Callable[..., os.stat_result] = Path.stat

    def on_two_disks(path: Path, **options: Any) -> Any:
        status = real(path, **options)
        return SimpleNamespace(st_dev=2) if path == config.files else status

    monkeypatch.setattr(Path, "stat", on_two_disks)
    monkeypatch.setattr(wiring.shutil, "disk_usage", lambda _: SimpleNamespace(total=100 * GB))
    assert wiring.other_disks(config) == ((config.node.data, 10 * GB),)


def test_no_room_for_the_index_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FileStore(tmp_path, 5 * GB, sync=False)
    free = {files.path("x").parent: 50 * GB, tmp_path / "index": 50 * GB}
    monkeypatch.setattr("dicomnode.store.files.free_bytes", lambda folder: (free[folder], 100 * GB))
    files.require_space()
    files.also = ((tmp_path / "index", 51 * GB),)
    with pytest.raises(DiskFullError):
        files.require_space()


def test_destinations_are_asked_about_patients_where_that_is_wanted(tmp_path: Path) -> None:
    destinations = {
        "no": {"peer": "pacs"},
        "yes": {"peer": "pacs", "check_patient": True},
        "maybe": {"peer": "pacs", "check_patient": "if-possible"},
    }
    config = site(tmp_path, peer=PEERS, destination=destinations)
    assert [(route.name, route.if_possible) for route in check_routes(config)] == [("yes", False), ("maybe", True)]
    policies = wiring.routing(config).destinations
    assert {name: policy.check_patient for name, policy in policies.items()} == {
        "no": "no", "yes": "yes", "maybe": "if-possible",
    }  # fmt: skip
    assert check_routes(config) == check_routes(load_config(config.source)), "a reload leaves them running"


def test_what_is_tried_out_is_known_to_the_routing(tmp_path: Path) -> None:
    rule = {"name": "a", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"], "commissioning": True}
    config = site(tmp_path, peer=PEERS, destination={"pacs": {"peer": "pacs"}}, rule=[rule])
    assert wiring.routing(config).withholds("pacs", ["a"], []) == "commissioning"
    assert not wiring.routing(config).commissioning
    assert replace(wiring.routing(config), commissioning=True).withholds("pacs", ["b"], []) == "commissioning"
