"""Where an original instance goes, judged as it arrives; and how long its series may be waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce

from dicomnode.core.rules.explain import RuleExplanation, explain, nearest, stops_forwarding
from dicomnode.core.rules.facts import Facts
from dicomnode.core.rules.ruleset import Priority, Rule, RuleSet
from dicomnode.core.types import CompletenessPolicy, LatePolicy, OnDeadline


@dataclass(frozen=True)
class Target:
    """One destination, the rules that named it, and the highest of their priorities."""

    destination: str
    rules: tuple[str, ...]
    priority: Priority = "normal"


@dataclass(frozen=True)
class Suppressed:
    """One destination that rules named and the loop protection kept out."""

    destination: str
    rules: tuple[str, ...]
    peer: str

    def __str__(self) -> str:
        return (
            f"not to {self.destination}: it came from its peer {self.peer}, and no rule that names it says "
            f"echo = true ({_quoted(self.rules)})"
        )


@dataclass(frozen=True)
class Forwarding:
    """What becomes of one original instance.

    matched     the rules it matches, as far as no `stop` kept them out
    targets     where it goes, each destination once
    suppressed  where the loop protection does not let it go
    nearest     where it is unrouted: the rule that comes nearest, if there is any rule
    """

    matched: tuple[str, ...]
    targets: tuple[Target, ...]
    suppressed: tuple[Suppressed, ...] = ()
    nearest: RuleExplanation | None = None

    @property
    def unrouted(self) -> bool:
        """No rule matches: it is kept, and goes nowhere."""
        return not self.matched

    def lines(self) -> tuple[str, ...]:
        """The decision, to be read by a person. Quotes header values where nothing matched: never for a log."""
        if self.unrouted:
            return unrouted_lines(self.nearest)
        sent = tuple(f"to {target.destination}: {_quoted(target.rules)}" for target in self.targets)
        kept = () if self.targets or self.suppressed else (f"{_quoted(self.matched)}: no originals are sent",)
        return (*sent, *map(str, self.suppressed), *kept)


def forward(ruleset: RuleSet, facts: Facts) -> Forwarding:
    """Judge one original instance: the union of what the rules it matches send."""
    rules = tuple(_matching(ruleset, facts))
    if not rules:
        return Forwarding((), (), (), nearest(explain(ruleset, facts)))
    targets, suppressed = aim(ruleset, ((rule, rule.originals) for rule in rules), facts.sender.peer)
    return Forwarding(tuple(rule.name for rule in rules), targets, suppressed)


def tightened(policy: CompletenessPolicy, ruleset: RuleSet, facts: Facts) -> CompletenessPolicy:
    """The policy with the waiting times that matching rules lower, and the tightest of their ways with incomplete
    series and late instances; a rule never makes it looser."""
    if not any(_tightens(rule) for rule in ruleset.rules):
        return policy
    rules = tuple(_matching(ruleset, facts))
    quiet_s = [rule.quiet_s for rule in rules if rule.quiet_s is not None]
    return replace(
        policy,
        quiet_s=min([policy.quiet_s, *quiet_s]),
        quiet_max_s=min([policy.quiet_max_s, *quiet_s]),
        deadline_s=min([policy.deadline_s, *(rule.deadline_s for rule in rules if rule.deadline_s is not None)]),
        longest_s=min([policy.longest_s, *(rule.longest_s for rule in rules if rule.longest_s is not None)]),
        on_deadline=reduce(OnDeadline.tightened, (rule.on_deadline for rule in rules), policy.on_deadline),
        late=reduce(LatePolicy.tightened, (rule.late for rule in rules), policy.late),
    )


def _tightens(rule: Rule) -> bool:
    limits = (rule.quiet_s, rule.deadline_s, rule.longest_s, rule.on_deadline, rule.late)
    return any(limit is not None for limit in limits)


def aim(
    ruleset: RuleSet, claims: Iterable[tuple[Rule, tuple[str, ...]]], came_from: str
) -> tuple[tuple[Target, ...], tuple[Suppressed, ...]]:
    """Each destination that (rule, destinations) pairs name, once; and those that the loop protection keeps out.

    came_from  name of the peer that sent the object, or "": nothing goes back there unless a rule says `echo`
    """
    claimed: dict[str, list[Rule]] = {}
    for rule, destinations in claims:
        for destination in destinations:
            claimed.setdefault(destination, []).append(rule)
    targets, suppressed = [], []
    for destination, rules in claimed.items():
        names = tuple(rule.name for rule in rules)
        back = bool(came_from) and ruleset.destination_peers[destination] == came_from
        if back and not any(rule.echo for rule in rules):
            suppressed.append(Suppressed(destination, names, came_from))
        else:
            targets.append(Target(destination, names, highest(rules)))
    return tuple(targets), tuple(suppressed)


def highest(rules: Iterable[Rule]) -> Priority:
    """The highest priority among the rules."""
    return "urgent" if any(rule.priority == "urgent" for rule in rules) else "normal"


def unrouted_lines(near: RuleExplanation | None) -> tuple[str, ...]:
    """What to say of an object that no rule matches."""
    if near is None:
        return ("unrouted: there are no rules",)
    return (
        f"unrouted: no rule matches; the nearest is {near.rule!r}",
        *(f"  fails {clause}" for clause in near.failed),
    )


def _matching(ruleset: RuleSet, facts: Facts) -> Iterator[Rule]:
    """The rules that the object matches, up to one that ends forwarding. Reads no further than the first clause that
    fails: this runs for every instance received."""
    for rule in ruleset.rules:
        if all(clause.holds(facts.values(clause.key)) for clause in rule.clauses):
            yield rule
            if stops_forwarding(rule):
                return


def _quoted(names: tuple[str, ...]) -> str:
    return f"rule{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
