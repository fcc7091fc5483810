"""A damaged engine keeps no node from its work; an engine that is not there is a mistake in the configuration."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomnode.config import Config, load_config
from dicomnode.errors import ConfigError
from dicomnode.operations.check import check
from dicomnode.store import bundles
from dicomnode.store.bundles import By
from dicomnode.testing.bundles import made_bundle
from engines.bundle.folder import Bundle

NAME = "random-adjacent"
SITE = """
[node]
port = 11119
[peer.pacs]
ae_title = "PACS"
host = "127.0.0.1"
port = 104
[destination.pacs]
peer = "pacs"
"""
RULE = """
[[rule]]
name = "{name}"
match = {{ Modality = "CT" }}
engines = ["{engine}"]
send = ["pacs"]
settings = {settings}
"""

Damage = Callable[[Path], object]


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return made_bundle(tmp_path_factory.mktemp("made"), "adjacent")


@pytest.fixture(name="site")
def _site(made: Bundle, tmp_path: Path) -> Path:
    """A configuration, and where its bundles are installed."""
    path = tmp_path / "dicomnode.toml"
    path.write_text(SITE)
    bundles.add(load_config(path).bundles, made, "", By("physicist", 1.7e9))
    return path


def with_rules(site: Path, *engines: str, settings: str = "{}") -> Config:
    rules = [RULE.format(name=f"with {one}", engine=one, settings=settings) for one in engines]
    site.write_text(SITE + "".join(rules))
    return load_config(site)


@pytest.mark.parametrize("engine", [NAME, f"{NAME}@1.0.0"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "1.0.0" / "net.onnx").write_bytes(b""),
        lambda folder: (folder / "1.0.0" / "card.toml").unlink(),
        lambda folder: shutil.rmtree(folder / "1.0.0"),
        lambda folder: (folder / "state.json").write_text("{"),
        lambda folder: (folder / "state.json").unlink(),
    ],
)
def test_a_damaged_engine_leaves_the_configuration_as_it_is(site: Path, engine: str, damage: Damage) -> None:
    assert with_rules(site, engine, "ct-nlm").unusable_engines() == ()
    damage(load_config(site).bundles / NAME)
    config = load_config(site)
    assert [rule.engines for rule in config.rules().rules] == [(engine,), ("ct-nlm",)]
    (unusable,) = config.unusable_engines()
    assert (unusable.engine, unusable.rules) == (engine, (f"with {engine}",))
    assert unusable.reason and "add" in unusable.hint
    assert any(engine in warning and "cannot be used" in warning for warning in check(site).warnings)


def test_its_settings_are_not_judged_and_those_of_others_are(site: Path) -> None:
    (load_config(site).bundles / NAME / "state.json").write_text("{")
    with_rules(site, NAME, settings='{ "random-adjacent" = { strength = 0.5 } }')
    with pytest.raises(ConfigError, match="no setting 'sharpness'"):
        with_rules(site, "ct-nlm", settings='{ "ct-nlm" = { sharpness = 0.5 } }')


@pytest.mark.parametrize("engine", ["random-adjacend", f"{NAME}@1.0.1", "ct-nlm@7.0.0"])
def test_an_engine_that_was_never_installed_is_a_mistake(site: Path, engine: str) -> None:
    with pytest.raises(ConfigError, match=engine.partition("@")[0]):
        with_rules(site, engine)


def test_mended_it_is_used_again(site: Path, made: Bundle) -> None:
    config = with_rules(site, f"{NAME}@1.0.0")
    (config.bundles / NAME / "1.0.0" / "net.onnx").write_bytes(b"")
    assert load_config(site).unusable_engines()
    bundles.add(config.bundles, made, "", By("physicist", 1.7e9))
    assert load_config(site).unusable_engines() == ()
