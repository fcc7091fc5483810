"""engines list, and the settings that a command line gives an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicomnode.core.rules import RuleSet
from dicomnode.errors import UsageError
from engines.card import EngineCard, Setting, SettingValue
from engines.registry import default_registry

_YES_NO = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class EngineList:
    """The engines there are, by their cards; and by their names the rules that use them."""

    cards: tuple[EngineCard, ...]
    used_by: Mapping[str, Sequence[str]]

    def to_json(self) -> dict[str, Any]:
        return {"engines": [{**_card_json(card), "rules": self._rules(card)} for card in self.cards]}

    def lines(self) -> Sequence[str]:
        return [line for card in self.cards for line in (*_card_lines(card), *self._use_lines(card))]

    def _rules(self, card: EngineCard) -> list[str]:
        return list(self.used_by.get(card.name, ()))

    def _use_lines(self, card: EngineCard) -> Sequence[str]:
        return [f"    used by rule {rule!r}" for rule in self._rules(card)]


def describe_engines(ruleset: RuleSet | None) -> EngineList:
    """All engines that are installed, and which of the rules use them."""
    registry = default_registry()
    used_by: dict[str, list[str]] = {}
    for rule in ruleset.rules if ruleset else ():
        for reference in rule.engines:
            used_by.setdefault(reference.partition("@")[0], []).append(rule.name)
    return EngineList(tuple(registry.get(name).card for name in registry.names()), used_by)


def parse_settings(engine: str, pairs: Sequence[str]) -> dict[str, SettingValue]:
    """`KEY=VALUE` texts as the types that the engine's card wants. Bounds are the engine's to check.

    Raises UsageError on text of another form, EngineNotFoundError on an unknown engine.
    """
    card = default_registry().get(engine).card
    return dict(_parse(card, pair) for pair in pairs)


def _parse(card: EngineCard, pair: str) -> tuple[str, SettingValue]:
    key, separator, text = pair.partition("=")
    if not separator:
        raise UsageError(f"--set {pair}: no '=' in it", "write it as --set KEY=VALUE")
    spec = card.settings.get(key)
    if spec is None:
        return key, text  # the engine names it as unknown, with the ones it has
    try:
        return key, _value(spec, text)
    except (ValueError, KeyError):
        kind = type(spec.default).__name__
        raise UsageError(f"--set {pair}: {text!r} is no {kind}", f"write it like {key}={spec.default}") from None


def _value(spec: Setting, text: str) -> SettingValue:
    if isinstance(spec.default, bool):
        return _YES_NO[text.lower()]
    return type(spec.default)(text)


def _card_json(card: EngineCard) -> Mapping[str, Any]:
    return {
        "name": card.name,
        "version": card.version,
        "task": card.task,
        "intended_use": card.intended_use,
        "modalities": list(card.envelope.modalities),
        "influence": card.influence,
        "runtime": card.runtime,
        "digest": card.digest,
        "settings": {
            name: {"default": spec.default, "meaning": spec.meaning, "minimum": spec.minimum, "maximum": spec.maximum}
            for name, spec in card.settings.items()
        },
    }


def _card_lines(card: EngineCard) -> Sequence[str]:
    modalities = ", ".join(card.envelope.modalities) or "any modality"
    settings = [f"    {name} = {spec.default}: {spec.meaning}" for name, spec in card.settings.items()]
    return [f"{card.reference} ({modalities}): {card.intended_use}", *settings]
