"""engines list, and how `--set` becomes the setting that a card asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.errors import UsageError
from dicomnode.operations.engines import parse_settings
from engines.registry import default_registry
from tests.cli.conftest import Command


def test_every_engine_is_listed_with_its_settings(command: Command) -> None:
    registry = default_registry()
    ran = command("engines", "list", "--json")
    assert ran.code == 0
    listed = {engine["name"]: engine for engine in ran.json["engines"]}
    assert set(listed) == set(registry.names())
    for name, engine in listed.items():
        assert set(engine["settings"]) == set(registry.card(name).settings)
        assert registry.card(name).reference in command("engines", "list").out


def test_a_setting_gets_the_type_of_its_default() -> None:
    card = default_registry().get("ct-nlm").card
    pairs = [f"{name}={spec.default}" for name, spec in card.settings.items()]
    assert card.resolve(parse_settings("ct-nlm", pairs)) == card.resolve({})


def test_text_for_a_number_is_refused() -> None:
    card = default_registry().get("ct-nlm").card
    name = next(name for name, spec in card.settings.items() if isinstance(spec.default, float))
    with pytest.raises(UsageError, match=name):
        parse_settings("ct-nlm", [f"{name}=much"])


def test_the_rules_that_use_an_engine_are_named(command: Command, tmp_path: Path) -> None:
    rule = "[[rule]]\nname = 'thin'\nmatch = { Modality = 'CT' }\nengines = ['ct-nlm']\nsend = ['pacs']\n"
    command("init", "--yes", "--pacs", "PACS,127.0.0.1,104")
    with (tmp_path / "dicomnode.toml").open("a") as file:
        file.write(rule)
    ran = command("engines", "list", "--json")
    assert {engine["name"]: engine["rules"] for engine in ran.json["engines"]}["ct-nlm"] == ["thin"]
    assert "used by rule 'thin'" in command("engines", "list").out
