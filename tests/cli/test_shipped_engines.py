"""Engines that come with the node as bundles: list, show, check, add, use, remove and export."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from dicomnode import config as configuration
from dicomnode.config import load_config
from dicomnode.operations import engines as operations
from dicomnode.testing.bundles import made_bundle
from engines.bundle.installed import read_state
from engines.registry import default_registry
from tests.cli.conftest import Command

NAME = "random-adjacent"
RULE = "[[rule]]\nname = 'thin'\nmatch = {{ Modality = 'CT' }}\nengines = ['{engine}']\nsend = ['pacs']\n"


@pytest.fixture(name="sources", scope="module")
def _sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        (folder / version).mkdir()
        made_bundle(folder / version, "adjacent", version)
    return folder


@pytest.fixture(name="zoo")
def _zoo(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What comes with this node: two versions of one engine."""
    zoo = tmp_path / "zoo"
    for version in ("1.0.0", "1.1.0"):
        shutil.copytree(sources / version, zoo / NAME / version)
    for module in (configuration, operations):
        monkeypatch.setattr(module, "default_registry", partial(default_registry, zoo=zoo))
    return zoo


@pytest.fixture(name="site")
def _site(zoo: Path, command: Command, tmp_path: Path) -> Path:
    command("init", "--yes", "--pacs", "PACS,127.0.0.1,104")
    return tmp_path / "dicomnode.toml"


def _in_use(command: Command) -> str:
    listed = {one["name"]: one["versions"] for one in command("engines", "list", "--json").json["engines"]}
    (version,) = [each["version"] for each in listed[NAME] if each["in_use"]]
    return str(version)


@pytest.mark.usefixtures("zoo")
def test_they_are_there_without_a_configuration(command: Command, tmp_path: Path) -> None:
    listed = command("engines", "list").out
    assert "version 1.0.0, not in use, comes with the node" in listed
    assert "version 1.1.0, in use, comes with the node" in listed
    shown = command("engines", "show", NAME)
    assert f"{NAME}@1.1.0" in shown.out and "its weights are under Apache-2.0" in shown.out
    assert command("engines", "show", NAME, "--json").json["comes_with_the_node"] is True
    checked = command("engines", "check", NAME, "--runtime", "onnxruntime")
    assert checked.code == 0 and "it comes with the node, and is trusted as its code is" in checked.out
    measured = command("engines", "bench", NAME, "--slices", "1", "--size", "64", "--threads", "1", "--json")
    assert [one["engine"] for one in measured.json["engines"]] == [f"{NAME}@1.1.0"]
    assert command("engines", "export", f"{NAME}@1.0.0", tmp_path / "monai").code == 0


def test_a_rule_names_one_like_any_engine(command: Command, site: Path) -> None:
    with site.open("a") as file:
        file.write(RULE.format(engine=f"{NAME}@1.0.0"))
    assert "used by rule 'thin'" in command("engines", "list").out


def test_a_bundle_of_the_site_stands_beside_it(command: Command, site: Path, sources: Path) -> None:
    refused = command("engines", "add", sources / "1.1.0", "--allow-unsigned")
    assert refused.code == 2 and "comes with the node" in refused.error_lines[0]
    added = command("engines", "add", sources / "2.0.0", "--allow-unsigned", "--json").json
    assert added["in_use"] == _in_use(command) == "1.1.0"
    used = command("engines", "use", f"{NAME}@2.0.0", "--json").json
    assert (used["before"], used["in_use"], used["kept"]) == ("1.1.0", "2.0.0", False)
    assert "came with the node, kept by" in command("engines", "show", NAME).out
    assert command("engines", "use", NAME, "--back", "--json").json["in_use"] == _in_use(command) == "1.1.0"
    assert command("engines", "remove", f"{NAME}@2.0.0").code == 0
    assert set(read_state(load_config(site).bundles / NAME).versions) == {"1.1.0"}


def test_what_was_chosen_outlives_an_upgrade(command: Command, site: Path, zoo: Path, sources: Path) -> None:
    pinned = command("engines", "use", f"{NAME}@1.1.0")
    assert "an upgrade of the node does not change that any more" in pinned.out
    assert "nothing changed" in command("engines", "use", f"{NAME}@1.1.0").out
    shutil.rmtree(zoo / NAME)
    shutil.copytree(sources / "2.0.0", zoo / NAME / "2.0.0")
    assert _in_use(command) == "1.1.0"
    assert command("engines", "use", f"{NAME}@2.0.0").code == 0
    assert _in_use(command) == "2.0.0"
    assert command("engines", "remove", f"{NAME}@1.1.0").code == 0


def test_without_a_choice_an_upgrade_brings_the_newest(command: Command, site: Path, zoo: Path, sources: Path) -> None:
    assert site.exists() and _in_use(command) == "1.1.0"
    shutil.copytree(sources / "2.0.0", zoo / NAME / "2.0.0")
    assert _in_use(command) == "2.0.0"


def test_an_older_one_is_chosen_and_given_back(command: Command, site: Path) -> None:
    used = command("engines", "use", f"{NAME}@1.0.0", "--json").json
    assert (used["before"], used["in_use"]) == ("1.1.0", "1.0.0")
    assert set(read_state(load_config(site).bundles / NAME).versions) == {"1.0.0", "1.1.0"}
    assert command("engines", "use", NAME, "--back", "--json").json["in_use"] == "1.1.0"


@pytest.mark.usefixtures("site")
def test_it_cannot_be_removed(command: Command) -> None:
    for version in ("1.0.0", "1.1.0"):
        refused = command("engines", "remove", f"{NAME}@{version}")
        assert refused.code == 2 and "comes with the node" in refused.error_lines[0]
    command("engines", "use", f"{NAME}@1.0.0")
    assert "comes with the node" in command("engines", "remove", f"{NAME}@1.1.0").error_lines[0]
    unknown = command("engines", "use", f"{NAME}@1.0.1")
    assert unknown.code != 0 and "1.0.0" in unknown.error_lines[1]
    assert "one version" in command("engines", "use", "contrast-glcae", "--back").error_lines[1]


def test_a_damaged_one_is_told_of(command: Command, site: Path, zoo: Path) -> None:
    (zoo / NAME / "1.1.0" / "net.onnx").write_bytes(b"")
    listed = command("engines", "list")
    assert listed.code == 0 and f"{NAME}: cannot be used" in listed.out and "ct-nlm@1.0.0" in listed.out
    assert "DAMAGED" in command("engines", "show", NAME).out
    with site.open("a") as file:
        file.write(RULE.format(engine=NAME))
    (unusable,) = load_config(site).unusable_engines()
    assert unusable.rules == ("thin",) and "install the node again" in unusable.hint


def test_a_kept_copy_that_was_damaged_is_mended(command: Command, site: Path) -> None:
    command("engines", "use", f"{NAME}@1.1.0")
    (load_config(site).bundles / NAME / "1.1.0" / "net.onnx").write_bytes(b"")
    damaged = command("engines", "check", NAME)
    assert damaged.code == 1 and f"dicomnode engines use {NAME}@1.1.0" in damaged.error_lines[1]
    command("engines", "use", f"{NAME}@1.1.0")
    assert command("engines", "show", f"{NAME}@1.1.0").code == 0
