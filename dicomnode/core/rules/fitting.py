"""Whether a rule's engines can do what it asks: known once their cards are read, before any series comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dicomnode.core.rules.ruleset import Leaving, Rule
from dicomnode.errors import ConfigError
from engines.card import EngineCard
from engines.chaining import IMAGE, Link, check_links, first_output
from engines.errors import EngineInputError


def fitted(rule: Rule, cards: Mapping[str, EngineCard]) -> Rule:
    """The rule with each output that leaves named in one way: the first of an engine by the engine alone.

    cards  of its engines by reference, of the version that it tries out too. Raises ConfigError where an input is given
           by nothing, or an output is not there or no image.
    """
    given = tuple(need.name for need in rule.needs)
    try:
        check_links([_link(one, cards[one], rule.deliver) for one in rule.engines], given)
        check_links([_link(one, cards[one], ()) for one in rule.shadow_chain], given)
    except EngineInputError as error:
        raise ConfigError(f"rule {rule.name!r}: {error}", error.hint) from None
    return replace(rule, deliver=tuple(dict.fromkeys(_plain(one, cards[one.engine]) for one in rule.deliver)))


def fitted_unseen(rule: Rule) -> Rule:
    """The same as far as it can be told without cards: what is called "image" is the first series, and the first output
    of its engine. Raises ConfigError."""
    if rule.engines and IMAGE in [need.name for need in rule.needs][1:]:
        raise ConfigError(f"rule {rule.name!r}: {IMAGE!r} is not the first series", f"name {IMAGE!r} first in `needs`")
    plain = (Leaving(one.engine) if one.output == IMAGE else one for one in rule.deliver)
    return replace(rule, deliver=tuple(dict.fromkeys(plain)))


def _link(reference: str, card: EngineCard, deliver: Sequence[Leaving]) -> Link:
    leaving = tuple(one.output for one in deliver if one.engine == reference)
    return Link.of(reference, card, leaving)


def _plain(leaving: Leaving, card: EngineCard) -> Leaving:
    return Leaving(leaving.engine) if leaving.output == first_output(card.outputs) else leaving
