"""RoutingPlan: what is made of the stacks of a complete series, and where the results go. Stored as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dicomnode.core.rules.explain import ClauseExplanation, RuleExplanation, explain, nearest
from dicomnode.core.rules.facts import Facts, is_derived_by_us
from dicomnode.core.rules.forward import Suppressed, Target, aim, highest, unrouted_lines
from dicomnode.core.rules.ruleset import Leaving, OnGate, Priority, ReportForm, Rule, RuleSet, Settings
from dicomnode.core.types import Sender, Stack


@dataclass(frozen=True)
class Output:
    """What one engine of a chain made, and where it goes. `output` as in `ruleset.Leaving`."""

    engine: str
    targets: tuple[Target, ...]
    output: str = ""

    @property
    def leaving(self) -> Leaving:
        return Leaving(self.engine, self.output)


JobKind = Literal["job", "shadow", "constancy"]


@dataclass(frozen=True)
class PlannedJob:
    """One chain of engines on one stack: run once, however many rules ask for it.

    engines     `name` or `name@version`, first to last
    settings    by engine reference, as the rules give them (not resolved)
    outputs     those that leave, in the chain's order; each has a target
    suppressed  destinations that the loop protection kept out
    commissioning  those of the rules that were being tried out when this was planned
    kind        "shadow": with another version in the chain, and nothing leaves; "constancy": a phantom is measured
    on_gate     what becomes of an output that is out of bounds; "flag" only where every rule says so
    reports     forms in which the quality report leaves, for `report_targets`
    """

    stack_key: str
    rules: tuple[str, ...]
    engines: tuple[str, ...]
    settings: Settings
    outputs: tuple[Output, ...]
    priority: Priority = "normal"
    suppressed: tuple[Suppressed, ...] = ()
    commissioning: tuple[str, ...] = ()
    kind: JobKind = "job"
    on_gate: OnGate = "withhold"
    reports: tuple[ReportForm, ...] = ()
    report_targets: tuple[Target, ...] = ()

    @property
    def deliver(self) -> tuple[Leaving, ...]:
        """What leaves."""
        return tuple(output.leaving for output in self.outputs)

    @property
    def destinations(self) -> tuple[str, ...]:
        """Every destination of any output, each once."""
        return tuple(dict.fromkeys(target.destination for output in self.outputs for target in output.targets))


@dataclass(frozen=True)
class StackDecision:
    """One stack against all rules. `reason` says why nothing is made of it, or is ""."""

    stack_key: str
    reason: str
    rules: tuple[RuleExplanation, ...]

    @property
    def unrouted(self) -> bool:
        """No rule matches, not even one that only sends originals."""
        return not any(rule.matches for rule in self.rules)

    @property
    def nearest(self) -> RuleExplanation | None:
        """Where it is unrouted: the rule that comes nearest."""
        return nearest(self.rules) if self.unrouted else None


@dataclass(frozen=True)
class RoutingPlan:
    """What was decided for a complete series. Quotes header values: for `why` and pages, never for a log."""

    jobs: tuple[PlannedJob, ...]
    stacks: tuple[StackDecision, ...]

    @property
    def unrouted(self) -> bool:
        """No rule matches any of its stacks."""
        return bool(self.stacks) and all(stack.unrouted for stack in self.stacks)

    def lines(self) -> tuple[str, ...]:
        """Jobs, and the stacks nothing is made of with the reason, to be read by a person."""
        return (*(line for job in self.jobs for line in _job_lines(job)), *_left_lines(self.stacks))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RoutingPlan:
        """The plan that `to_json` wrote."""
        raw = json.loads(text)
        return cls(tuple(map(_job, raw["jobs"])), tuple(map(_decision, raw["stacks"])))


def plan(ruleset: RuleSet, stacks: Sequence[Stack], sender: Sender, received_hour: int) -> RoutingPlan:
    """Judge each stack by the header of its first slice.

    sender, received_hour  who sent the series, and at which hour (0...23, the node's local time)
    """
    jobs: list[PlannedJob] = []
    shadows: list[PlannedJob] = []
    decisions = []
    for stack in stacks:
        facts = Facts(stack.header, sender, received_hour)
        explanations = explain(ruleset, facts)
        engaged = _engaged(ruleset, explanations)
        reason = _refusal(stack) or ("" if engaged else _why_none(ruleset, explanations))
        groups = [] if reason else _alike(engaged)
        candidates = [merged(ruleset, stack.key, group, sender.peer) for group in groups]
        wanted = [job for job in candidates if job.outputs or job.kind == "constancy"]
        if candidates and not wanted:
            reason = "; ".join(dict.fromkeys(str(one) for job in candidates for one in job.suppressed))
        jobs.extend(wanted)
        shadows.extend(_shadows(stack.key, engaged) if wanted else ())
        decisions.append(StackDecision(stack.key, reason, explanations))
    # What is tried out comes last: it must change no number of what is delivered.
    return RoutingPlan((*jobs, *shadows), tuple(decisions))


def _engaged(ruleset: RuleSet, explanations: Sequence[RuleExplanation]) -> list[Rule]:
    """The rules by which something is made of one stack; where one says that it is of a phantom, only those."""
    matching = [
        rule
        for rule, one in zip(ruleset.rules, explanations, strict=True)
        if one.matches and not one.engines_stopped_by and not rule.needs and (rule.engines or rule.constancy)
    ]
    return [rule for rule in matching if rule.constancy] or matching


def _shadows(stack_key: str, rules: Sequence[Rule]) -> Iterable[PlannedJob]:
    """The chains that rules have tried out, each once."""
    found: dict[tuple[tuple[str, ...], str], PlannedJob] = {}
    for rule in (rule for rule in rules if rule.shadow):
        renamed = dict(zip(rule.engines, rule.shadow_chain, strict=True))
        settings = {renamed[engine]: given for engine, given in rule.settings.items()}
        found.setdefault(
            (rule.shadow_chain, json.dumps(settings, sort_keys=True)),
            PlannedJob(stack_key, (rule.name,), rule.shadow_chain, settings, (), kind="shadow", on_gate="flag"),
        )
    return found.values()


def _refusal(stack: Stack) -> str:
    """Why the stack is never enhanced, whatever rules say; or ""."""
    if any(is_derived_by_us(one.header) for one in stack.slices):
        return "derived by this software: never enhanced again"
    return f"never enhanced: {stack.excluded}" if stack.excluded else ""


def _why_none(ruleset: RuleSet, explanations: Sequence[RuleExplanation]) -> str:
    matching = [(rule, one) for rule, one in zip(ruleset.rules, explanations, strict=True) if one.matches]
    if not matching:
        return "no rule matches"
    together = [rule.name for rule, one in matching if rule.needs and not one.engines_stopped_by]
    if together:
        return f"not by itself: rule {together[0]!r} needs several series of the study"
    stopped_by = next((one.engines_stopped_by for _, one in matching if one.engines_stopped_by), "")
    stopped = f" (rule {stopped_by!r} says stop)" if stopped_by else ""
    return f"no rule that it matches names an engine{stopped}"


def _alike(rules: Iterable[Rule]) -> list[list[Rule]]:
    """The rules, grouped by what they compute."""
    groups: dict[tuple[tuple[str, ...], str], list[Rule]] = {}
    for rule in rules:
        groups.setdefault((rule.engines, json.dumps(rule.settings, sort_keys=True)), []).append(rule)
    return list(groups.values())


def merged(ruleset: RuleSet, stack_key: str, rules: list[Rule], came_from: str) -> PlannedJob:
    """One job for rules that compute the same; each output goes only where a rule that delivers it sends results."""
    outputs: list[Output] = []
    kept_out: list[Suppressed] = []
    for leaving in _leaving(rules):
        claims = ((rule, rule.results) for rule in rules if leaving in rule.deliver)
        targets, suppressed = aim(ruleset, claims, came_from)
        kept_out.extend(suppressed)
        if targets:
            outputs.append(Output(leaving.engine, targets, leaving.output))
    return PlannedJob(
        stack_key=stack_key,
        rules=tuple(rule.name for rule in rules),
        engines=rules[0].engines,
        settings=rules[0].settings,
        outputs=tuple(outputs),
        priority=highest(rules),
        suppressed=tuple(dict.fromkeys(kept_out)),
        commissioning=tuple(rule.name for rule in rules if rule.commissioning),
        kind="constancy" if rules[0].constancy else "job",
        on_gate="flag" if all(rule.on_gate == "flag" for rule in rules) else "withhold",
        reports=tuple(dict.fromkeys(form for rule in rules for form in rule.report)),
        report_targets=aim(ruleset, ((rule, rule.results) for rule in rules if rule.report), came_from)[0],
    )


def _leaving(rules: Sequence[Rule]) -> tuple[Leaving, ...]:
    """What one of these rules, which have one chain, delivers: in the chain's order, each once."""
    chosen = {leaving for rule in rules for leaving in rule.deliver}
    return tuple(sorted(chosen, key=lambda one: (rules[0].engines.index(one.engine), one.output)))


def leaving_of(output: Mapping[str, Any]) -> Leaving:
    """What an output of a job is, as it is stored: of one that was planned by an older version, its engine's first."""
    return Leaving(output["engine"], output.get("output", ""))


def _job_lines(job: PlannedJob) -> tuple[str, ...]:
    rules = ", ".join(map(repr, job.rules))
    if job.kind == "constancy":
        return (f"stack {job.stack_key}: measured as a phantom by rule {rules}",)
    if job.kind == "shadow":
        return (f"stack {job.stack_key}: {' then '.join(job.engines)} is tried out by rule {rules}: nothing leaves",)
    sent = (
        f"  output of {output.leaving} to {', '.join(target.destination for target in output.targets)}"
        for output in job.outputs
    )
    return (
        f"stack {job.stack_key}: {' then '.join(job.engines)} by rule {rules}",
        *sent,
        *(f"  {one}" for one in job.suppressed),
    )


def _left_lines(stacks: Iterable[StackDecision]) -> Iterable[str]:
    for stack in stacks:
        if stack.reason:
            yield f"stack {stack.stack_key}: not enhanced: {stack.reason}"
        if stack.unrouted:
            yield from (f"  {line}" for line in unrouted_lines(stack.nearest))


def _job(raw: Mapping[str, Any]) -> PlannedJob:
    return PlannedJob(
        stack_key=raw["stack_key"],
        rules=tuple(raw["rules"]),
        engines=tuple(raw["engines"]),
        settings=raw["settings"],
        outputs=tuple(map(_output, raw["outputs"])),
        priority=raw["priority"],
        suppressed=tuple(Suppressed(**{**one, "rules": tuple(one["rules"])}) for one in raw["suppressed"]),
        commissioning=tuple(raw["commissioning"]),
        kind=raw["kind"],
        on_gate=raw["on_gate"],
        reports=tuple(raw["reports"]),
        report_targets=tuple(map(_target, raw["report_targets"])),
    )


def _output(raw: Mapping[str, Any]) -> Output:
    leaving = leaving_of(raw)
    return Output(leaving.engine, tuple(map(_target, raw["targets"])), leaving.output)


def _target(raw: Mapping[str, Any]) -> Target:
    return Target(raw["destination"], tuple(raw["rules"]), raw["priority"])


def _decision(raw: Mapping[str, Any]) -> StackDecision:
    return StackDecision(raw["stack_key"], raw["reason"], tuple(map(_rule_explanation, raw["rules"])))


def _rule_explanation(raw: Mapping[str, Any]) -> RuleExplanation:
    clauses = tuple(ClauseExplanation(**clause) for clause in raw["clauses"])
    return RuleExplanation(raw["rule"], clauses, raw["forwarding_stopped_by"], raw["engines_stopped_by"])
