"""Rules that need several series of one study: which stack of a closed series fulfils which need.

A rule's `needs` are named matches, the first the one whose stack goes into the engine. A stack fulfils a need where it
meets the rule's own `match` and the need's; the first of the rule's needs that is open. What is never enhanced
(localizers) may be needed, but not as the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicomnode.core.rules.explain import explain, explain_clauses
from dicomnode.core.rules.facts import Facts, is_derived_by_us
from dicomnode.core.rules.plan import PlannedJob, merged
from dicomnode.core.rules.ruleset import Need, Rule, RuleSet
from dicomnode.core.types import Sender, Stack


@dataclass(frozen=True)
class Fulfilled:
    """What one closed series does for a rule with needs.

    stacks  the stack that fulfils each need, by the need's name
    job     what is to be computed once all are fulfilled; its stack is that of the first need, "" where it is elsewhere
    """

    rule: str
    needs: tuple[str, ...]
    stacks: Mapping[str, str]
    job: PlannedJob


def fulfilled(ruleset: RuleSet, stacks: Sequence[Stack], sender: Sender, received_hour: int) -> tuple[Fulfilled, ...]:
    """The rules with needs of which the stacks of a series fulfil at least one."""
    found = []
    for rule in ruleset.rules:
        if not rule.needs:
            continue
        by_need = _stacks_by_need(
            ruleset, rule, [(stack, Facts(stack.header, sender, received_hour)) for stack in stacks]
        )
        if by_need:
            names = tuple(need.name for need in rule.needs)
            job = merged(ruleset, by_need.get(names[0], ""), [rule], sender.peer)
            found.append(Fulfilled(rule.name, names, by_need, job))
    return tuple(found)


def explain_needs(ruleset: RuleSet, facts: Facts) -> tuple[str, ...]:
    """Each need of each rule against one object, clause by clause, to be read by a person."""
    lines = []
    for rule in ruleset.rules:
        for number, need in enumerate(rule.needs):
            clauses = explain_clauses(need.clauses, facts)
            does = "meets" if all(clause.holds for clause in clauses) else "does not meet"
            main = " (the engine's input)" if number == 0 else ""
            lines.append(f"rule {rule.name!r} {does} need {need.name!r}{main}")
            lines += [f"  {'ok   ' if clause.holds else 'fails'} {clause}" for clause in clauses]
    return tuple(lines)


def missing(needs: Sequence[str], met: Mapping[str, object]) -> tuple[str, ...]:
    """The needs that nothing fulfils yet."""
    return tuple(need for need in needs if need not in met)


def _stacks_by_need(ruleset: RuleSet, rule: Rule, stacks: Sequence[tuple[Stack, Facts]]) -> dict[str, str]:
    by_need: dict[str, str] = {}
    for stack, facts in stacks:
        own = next(one for one in explain(ruleset, facts) if one.rule == rule.name)
        if not own.matches or own.engines_stopped_by or any(is_derived_by_us(one.header) for one in stack.slices):
            continue
        for number, need in enumerate(rule.needs):
            if need.name not in by_need and _fulfils(need, facts) and not (number == 0 and stack.excluded):
                by_need[need.name] = stack.key
                break
    return by_need


def _fulfils(need: Need, facts: Facts) -> bool:
    return all(clause.holds for clause in explain_clauses(need.clauses, facts))
