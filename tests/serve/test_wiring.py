"""From the configuration to what rooms take, and from roles to processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicomnode.config import Config, load_config
from dicomnode.core.routing import DestinationPolicy, PeerPolicy
from dicomnode.core.types import CompletenessPolicy, RejectsPolicy, SameUidPolicy
from dicomnode.deliver.forms import Allowed
from dicomnode.net.scu import Timeouts
from dicomnode.serve.deliver import delivery_settings, retry_policy
from dicomnode.serve.flow import deriving
from dicomnode.serve.receive import scp_settings
from dicomnode.serve.supervisor import _changed_until_restart
from dicomnode.serve.wiring import former_receivers, open_store, receivers, routing
from dicomnode.store.index.retrying import RetryPolicy
from dicomnode.store.locks import exclusive
from dicomnode.testing.node import toml

TREE: dict[str, Any] = {
    "node": {"ae_title": "NODE", "ae_titles": ["OTHER"], "port": 11113, "durability": "process"},
    "limits": {
        "associations": 7,
        "per_address": 3,
        "idle_s": 9.0,
        "max_dataset_bytes": "1 GiB",
        "disk_reserve": "1 MB",
    },
    "completeness": {"quiet_s": 40.0, "released_quiet_s": 4.0, "deadline_s": 400.0},
    "peer": {
        "ct1": {"ae_title": "CT1", "host": "10.0.0.1", "quiet_s": 20.0},
        "pacs": {"ae_title": "PACS", "host": "10.0.0.2", "port": 104},
    },
    "destination": {
        "pacs": {"peer": "pacs"},
        "late": {"peer": "pacs", "forward": "when-complete", "calling_ae": "sender"},
        "named": {"peer": "pacs", "calling_ae": "GATEWAY", "retry": {"initial_s": 1, "maximum_s": 2, "patience_h": 3}},
    },
    "derived": {"description_prefix": "X ", "series_number_offset": 500, "institution": "Hospital"},
    "rule": [{"name": "all", "match": {"Modality": "*"}, "send": ["pacs", "late", "named"]}],
}


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Config:
    (tmp_path / "dicomnode.toml").write_text(toml(TREE))
    return load_config(tmp_path / "dicomnode.toml")


def test_how_a_destination_is_dealt_with(config: Config) -> None:
    plain = delivery_settings(config, "pacs")
    assert (plain.associations, plain.maximum_bytes, plain.allowed) == (4, 131072, Allowed(None, None))
    narrow = {
        "peer": "pacs",
        "associations": 2,
        "max_pdu": "16 KiB",
        "response_s": 9,
        "sop_classes": ["CTImageStorage", "1.2.3.4"],
        "transfer_syntaxes": ["*VRLittleEndian"],
    }
    changed = {"pacs": config.destination["pacs"].model_validate(narrow)}
    settings = delivery_settings(config.model_copy(update={"destination": changed}), "pacs")
    assert (settings.associations, settings.maximum_bytes) == (2, 16384)
    assert settings.timeouts == Timeouts(10.0, 30.0, 9.0)
    assert settings.allowed.sop_classes == {"1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"}
    assert settings.allowed.transfer_syntaxes is not None
    assert settings.allowed.transfer_syntaxes >= {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"}


def test_how_destinations_are_fed_and_called(config: Config) -> None:
    routes = routing(config)
    assert routes.destinations == {
        "pacs": DestinationPolicy(when_complete=False, calling_ae="NODE"),
        "late": DestinationPolicy(when_complete=True, calling_ae=""),
        "named": DestinationPolicy(when_complete=False, calling_ae="GATEWAY"),
    }
    assert [routes.calling_ae(name, "CT1") for name in ("pacs", "late", "named")] == ["NODE", "CT1", "GATEWAY"]
    assert routes.destinations_of_peer("pacs") == ("pacs", "late", "named")
    assert routes.destinations_of_peer("") == ()


def test_what_peers_may_change_and_destinations_are_told(config: Config) -> None:
    own = {"same_uid": "first", "rejects": "any"}
    peers = {**config.peer, "ct1": config.peer["ct1"].model_validate({"ae_title": "CT1", **own})}
    told = {"pacs": config.destination["pacs"].model_validate({"peer": "pacs", "withdraw": True})}
    routes = routing(config.model_copy(update={"peer": peers, "destination": {**config.destination, **told}}))
    assert routes.peer_policy("ct1") == PeerPolicy(SameUidPolicy.FIRST, RejectsPolicy.ANY)
    assert routes.peer_policy("pacs") == PeerPolicy(SameUidPolicy.NEWEST, RejectsPolicy.OWN)
    assert routes.peer_policy("") == PeerPolicy(SameUidPolicy.NEWEST, RejectsPolicy.NONE)
    assert routes.withdrawing == ("pacs",)


def test_how_long_series_are_waited_for(config: Config) -> None:
    routes = routing(config)
    assert routes.completeness == CompletenessPolicy(40.0, 4.0, 400.0)
    assert routes.completeness_of_peer["ct1"] == CompletenessPolicy(20.0, 4.0, 400.0)


def test_what_the_receiver_listens_to(config: Config) -> None:
    settings = scp_settings(config)
    assert settings.ae_titles == ("NODE", "OTHER")
    assert (settings.port, settings.accept_unknown) == (11113, False)
    assert {(caller.ae_title, caller.peer, caller.host) for caller in settings.callers} == {
        ("CT1", "ct1", "10.0.0.1"),
        ("PACS", "pacs", "10.0.0.2"),
    }
    limits = settings.limits
    assert (limits.associations, limits.per_address, limits.idle_s, limits.max_dataset_bytes) == (7, 3, 9.0, 1 << 30)


def test_how_patient_a_destination_is(config: Config) -> None:
    assert retry_policy(config, "named") == RetryPolicy(1.0, 2.0, 3 * 3600.0)
    assert retry_policy(config, "pacs") == RetryPolicy(30.0, 1800.0, 72 * 3600.0)


def test_what_derived_objects_say(config: Config) -> None:
    told = deriving(config)
    assert told.ae_title == "NODE"
    assert told.series == {"description_prefix": "X ", "number_offset": 500}
    assert told.equipment["institution"] == "Hospital"
    assert told.content_qualification == "RESEARCH"


def test_the_store_is_opened_at_the_durability_asked_for(config: Config) -> None:
    store = open_store(config, "receive-1")
    try:
        assert not store.files.syncs, "only power cuts need the files' bytes forced to the disk"
        with store.database.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    finally:
        store.database.close()


def test_what_takes_effect_at_a_restart_only_is_named(config: Config, tmp_path: Path) -> None:
    changed = {
        **TREE,
        "node": {**TREE["node"], "port": 11114},
        "completeness": {"quiet_s": 1.0, "released_quiet_s": 1.0},
    }
    (tmp_path / "changed.toml").write_text(toml(changed))
    assert _changed_until_restart(config, load_config(tmp_path / "changed.toml")) == ["node.port"]
    assert _changed_until_restart(config, config) == []


def test_one_receiver_clears_away_what_those_left_that_there_are_no_more(config: Config) -> None:
    data = config.node.data
    data.mkdir(parents=True)
    for name in ("receive-1", "receive-3", "receive-4", "deliver"):
        (data / f"{name}.lock").touch()
    with exclusive(data, "receive-4.lock"):
        fewer = config.model_copy(update={"node": config.node.model_copy(update={"receivers": 1})})
        assert former_receivers(fewer) == ("receive-3",)
    assert former_receivers(fewer) == ("receive-3", "receive-4")


@pytest.mark.parametrize(
    ("cores", "wanted", "expected"), [(1, "auto", 1), (2, "auto", 1), (4, "auto", 2), (64, "auto", 4), (1, 3, 3)]
)
def test_how_many_receive(
    config: Config, monkeypatch: pytest.MonkeyPatch, cores: int, wanted: str | int, expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    asked = config.model_copy(update={"node": config.node.model_copy(update={"receivers": wanted})})
    assert receivers(asked) == expected
