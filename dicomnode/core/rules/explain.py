"""Why a rule applies or does not, clause by clause.

Explanations quote what was found in a data set. They may hold a patient's name where a rule names PatientName: they
are for `why`, `rules explain` and pages, never for a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dicomnode.core.rules.clauses import Clause, stripped
from dicomnode.core.rules.facts import Facts
from dicomnode.core.rules.ruleset import Rule, RuleSet

_FOUND_CHARACTERS: Final = 80


@dataclass(frozen=True)
class ClauseExplanation:
    """One clause against one object. `note` says what the comparison could not be made with, or is ""."""

    key: str
    wanted: str
    found: str
    holds: bool
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.key}: wanted {self.wanted}, found {self.found}{note}"


@dataclass(frozen=True)
class RuleExplanation:
    """One rule against one object. `*_stopped_by` name the earlier rule whose `stop` keeps this one out, or are ""."""

    rule: str
    clauses: tuple[ClauseExplanation, ...]
    forwarding_stopped_by: str = ""
    engines_stopped_by: str = ""

    @property
    def matches(self) -> bool:
        return all(clause.holds for clause in self.clauses)

    @property
    def failed(self) -> tuple[ClauseExplanation, ...]:
        return tuple(clause for clause in self.clauses if not clause.holds)

    def lines(self) -> tuple[str, ...]:
        """The rule and its clauses, one line each, to be read by a person."""
        head = "matches" if self.matches else f"does not match (failed: {len(self.failed)} of {len(self.clauses)})"
        clauses = (f"  {'ok   ' if clause.holds else 'fails'} {clause}" for clause in self.clauses)
        return (f"rule {self.rule!r} {head}", *clauses, *self._stops())

    def _stops(self) -> tuple[str, ...]:
        if self.forwarding_stopped_by == self.engines_stopped_by != "":
            return (f"  not considered: rule {self.engines_stopped_by!r} matched and says stop",)
        stops = (("forwarding", self.forwarding_stopped_by), ("engines", self.engines_stopped_by))
        return tuple(
            f"  not considered for {what}: rule {rule!r} matched and says stop" for what, rule in stops if rule
        )


def explain(ruleset: RuleSet, facts: Facts) -> tuple[RuleExplanation, ...]:
    """Every rule against one object, in order, also those that a `stop` keeps out."""
    explanations = []
    forwarding_stop = engines_stop = ""
    for rule in ruleset.rules:
        clauses = explain_clauses(rule.clauses, facts)
        explanation = RuleExplanation(rule.name, clauses, forwarding_stop, engines_stop)
        explanations.append(explanation)
        if explanation.matches:
            forwarding_stop = forwarding_stop or (rule.name if stops_forwarding(rule) else "")
            engines_stop = engines_stop or (rule.name if rule.stop else "")
    return tuple(explanations)


def explain_clauses(clauses: Sequence[Clause], facts: Facts) -> tuple[ClauseExplanation, ...]:
    """Clauses against one object."""
    return tuple(_explain_clause(clause, facts) for clause in clauses)


def nearest(explanations: Sequence[RuleExplanation]) -> RuleExplanation | None:
    """The rule that comes nearest to matching: most clauses hold, then fewest fail, then the first."""
    return max(
        explanations,
        key=lambda one: (len(one.clauses) - len(one.failed), -len(one.failed)),
        default=None,
    )


def stops_forwarding(rule: Rule) -> bool:
    """A rule that sends no originals never keeps later rules from forwarding them: originals must not get lost."""
    return rule.stop and bool(rule.originals)


def _explain_clause(clause: Clause, facts: Facts) -> ClauseExplanation:
    values = facts.values(clause.key)
    kind = clause.unreadable(values)
    note = f"not {kind}, cannot be compared" if kind else ""
    return ClauseExplanation(clause.key, clause.wanted, _shown(values), clause.holds(values), note)


def _shown(values: tuple[str, ...]) -> str:
    text = "\\".join(values) if stripped(values) else "absent"
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= _FOUND_CHARACTERS else f"{printable[: _FOUND_CHARACTERS - 1]}…"
