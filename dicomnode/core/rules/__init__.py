"""Rules: which objects go where, and which stacks are enhanced. Pure functions on headers; docs/rules.md is the manual.

scales.py    numbers, dates, times and ages: how values are read and ordered
clauses.py   one line of `match`: its grammar and its judgement
facts.py     what clauses are judged on: a header and who sent it
ruleset.py   `[[rule]]` tables -> RuleSet, or a ConfigError that says what to write instead
explain.py   every rule, clause by clause
forward.py   one original instance -> destinations
plan.py      the stacks of a complete series -> jobs
needs.py     rules that need several series of a study: which stack fulfils which need
fitting.py   whether a rule's engines take what its needs name, and give what it delivers
"""

from dicomnode.core.rules.clauses import Clause, parse_clause
from dicomnode.core.rules.explain import ClauseExplanation, RuleExplanation, explain, nearest
from dicomnode.core.rules.facts import Facts, is_derived_by_us
from dicomnode.core.rules.fitting import fitted, fitted_unseen
from dicomnode.core.rules.forward import Forwarding, Suppressed, Target, forward, tightened
from dicomnode.core.rules.needs import Fulfilled, explain_needs, fulfilled
from dicomnode.core.rules.plan import Output, PlannedJob, RoutingPlan, StackDecision, leaving_of, plan
from dicomnode.core.rules.ruleset import Leaving, Need, Rule, RuleSet, RuleSpec, load_rules, rule_spec

__all__ = [
    "Clause", "ClauseExplanation", "Facts", "Forwarding", "Fulfilled", "Leaving", "Need", "Output", "PlannedJob",
    "RoutingPlan", "Rule", "RuleExplanation", "RuleSet", "RuleSpec", "StackDecision", "Suppressed", "Target", "explain",
    "explain_needs", "fitted", "fitted_unseen", "forward", "fulfilled", "is_derived_by_us", "leaving_of", "load_rules",
    "nearest", "parse_clause", "plan", "rule_spec", "tightened",
]  # fmt: skip
