"""The engines that rules name, as they are installed on this machine.

A rule that names an engine which is not installed, or gives it what it does not take, is a mistake in the
configuration. An engine that is installed and damaged is none: the node starts, says so, receives and sends originals;
the jobs of that engine fail until it is added again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dicomnode.core.rules import Rule, RuleSet, fitted, fitted_unseen
from dicomnode.errors import BundleError, ConfigError, EngineError
from engines.card import EngineCard
from engines.registry import Registry


@dataclass(frozen=True, slots=True)
class UnusableEngine:
    """An installed engine that cannot be opened, the rules that name it, why, and what to do next."""

    engine: str
    rules: tuple[str, ...]
    reason: str
    hint: str


def held_to_engines(ruleset: RuleSet, registry: Registry) -> RuleSet:
    """The rules, each held to the cards of its engines; of those that are damaged nothing is known.

    Raises ConfigError with the first problem.
    """
    for rule in ruleset.rules:
        _check_settings(rule, registry)
    return replace(ruleset, rules=tuple(_fitted(rule, registry) for rule in ruleset.rules))


def unusable_engines(ruleset: RuleSet, registry: Registry) -> tuple[UnusableEngine, ...]:
    """The damaged ones."""
    users: dict[str, list[str]] = {}
    for rule in ruleset.rules:
        for reference in dict.fromkeys((*rule.engines, *rule.shadow_chain)):
            users.setdefault(reference, []).append(rule.name)
    damage = {reference: _damage(reference, registry) for reference in users}
    return tuple(
        UnusableEngine(reference, tuple(users[reference]), str(error), error.hint)
        for reference, error in damage.items()
        if error is not None
    )


def _damage(reference: str, registry: Registry) -> EngineError | None:
    try:
        registry.bundle(reference)
    except EngineError as error:
        return error
    return None


def _check_settings(rule: Rule, registry: Registry) -> None:
    shadows = zip(rule.engines, rule.shadow_chain, strict=True) if rule.shadow else ()
    given = [(reference, rule.settings.get(reference, {})) for reference in rule.engines]
    given += [(shadow, rule.settings.get(own, {})) for own, shadow in shadows if shadow != own]
    for reference, settings in given:
        if not settings and "@" not in reference:
            continue  # its name is known; the engine itself is slow to import
        try:
            registry.card(reference).resolve(settings)
        except BundleError:
            continue
        except EngineError as error:
            raise ConfigError(f"rule {rule.name!r}: {error}", error.hint) from None


def _fitted(rule: Rule, registry: Registry) -> Rule:
    """The rule, held to what its engines take and give."""
    cards = _cards(rule, registry)
    return fitted_unseen(rule) if cards is None else fitted(rule, cards)


def _cards(rule: Rule, registry: Registry) -> Mapping[str, EngineCard] | None:
    """The cards of a rule's engines; None where one is damaged, or where they need not be read: engines that come along
    are slow to import, and take and give one image unless they stand beside a bundle, or an output is named."""
    references = dict.fromkeys((*rule.engines, *rule.shadow_chain))
    try:
        bundles = [registry.bundle(reference) for reference in references]
        if not any(bundles) and not any(leaving.output for leaving in rule.deliver):
            return None
        return {reference: registry.card(reference) for reference in references}
    except BundleError:
        return None
