"""From `[[rule]]` tables to a RuleSet: all that can be wrong with a rule is said here, before any object comes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from dicomnode.core.rules.clauses import Clause, nearest_word, parse_clause
from dicomnode.core.rules.facts import GUARD_KEYWORDS, SENDER_KEYS
from dicomnode.core.types import LatePolicy, OnDeadline
from dicomnode.errors import ConfigError
from engines.card import SettingValue

Priority = Literal["urgent", "normal"]
OnGate = Literal["withhold", "flag"]
"""What becomes of an output whose figures the gate after the engine finds out of bounds: it waits for a person, or it
leaves and says so."""
ReportForm = Literal["sr", "capture"]
"""How a quality report leaves: as a structured report, or as a secondary capture of its page."""
Settings = Mapping[str, Mapping[str, SettingValue]]

_NO_DESTINATION: Final = "add a [destination.NAME]"


class Leaving(NamedTuple):
    """What leaves of a chain: an engine's output. `output` "" is its first, whatever that is called."""

    engine: str
    output: str = ""

    def __str__(self) -> str:
        return f"{self.engine}.{self.output}" if self.output else self.engine


@dataclass(frozen=True)
class Need:
    """One of several series of a study that a rule's engines want, and how its stack is known."""

    name: str
    clauses: tuple[Clause, ...]


@dataclass(frozen=True)
class RuleSpec:
    """One `[[rule]]` table as written; docs/rules.md tells what each key means."""

    name: str
    match: Mapping[str, Any]
    needs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    engines: tuple[str, ...] = ()
    deliver: tuple[str, ...] = ()
    send: tuple[str, ...] = ()
    send_originals: tuple[str, ...] = ()
    send_results: tuple[str, ...] = ()
    settings: Settings = field(default_factory=dict)
    stop: bool = False
    echo: bool = False
    quiet_s: float | None = None
    deadline_s: float | None = None
    longest_s: float | None = None
    on_deadline: str | None = None
    late: str | None = None
    priority: Priority = "normal"
    commissioning: bool = False
    on_gate: OnGate | None = None
    report: tuple[ReportForm, ...] = ()
    shadow: str = ""
    constancy: bool = False


@dataclass(frozen=True)
class Rule:
    """One checked rule.

    needs      series of one study that must all be there before the chain runs, the first its input; empty: each
               matching stack is enhanced by itself
    engines    the chain, first to last, as `name` or `name@version`
    deliver    which of their outputs are delivered, in the chain's order
    originals  destinations of matching originals        results  destinations of what is derived
    settings   by engine reference, for those that have any
    quiet_s, deadline_s, longest_s   upper limits on the waiting times of a matching series, or None
    on_deadline  the least strict that a matching series may be with an incomplete one, or None
    late       the least tight that a matching series may be with instances that come late, or None
    commissioning   what it derives is kept here until a person releases it
    on_gate    what becomes of an output that the gate after an engine finds out of bounds
    report     in which forms the quality report goes where results go
    shadow     another version of an engine of the chain that runs on the same series, and delivers nothing; or ""
    constancy  matching series are of a phantom: they are measured, and never enhanced
    """

    name: str
    clauses: tuple[Clause, ...]
    needs: tuple[Need, ...]
    engines: tuple[str, ...]
    deliver: tuple[Leaving, ...]
    originals: tuple[str, ...]
    results: tuple[str, ...]
    settings: Settings
    stop: bool
    echo: bool
    quiet_s: float | None
    deadline_s: float | None
    longest_s: float | None
    on_deadline: OnDeadline | None
    late: LatePolicy | None
    priority: Priority
    commissioning: bool = False
    on_gate: OnGate = "withhold"
    report: tuple[ReportForm, ...] = ()
    shadow: str = ""
    constancy: bool = False

    @property
    def shadow_chain(self) -> tuple[str, ...]:
        """The chain with the version that is tried out in the place of the other."""
        name = self.shadow.partition("@")[0]
        return tuple(self.shadow if one.partition("@")[0] == name else one for one in self.engines)


@dataclass(frozen=True)
class RuleSet:
    """All rules, in the order of the file. `destination_peers`: the peer that each destination sends to, if any."""

    rules: tuple[Rule, ...]
    destination_peers: Mapping[str, str | None]

    @cached_property
    def keywords(self) -> frozenset[str]:
        """DICOM keywords that headers must be read with: the rules' own, and the loop protection's."""
        needed = {clause.key for rule in self.rules for need in rule.needs for clause in need.clauses}
        named = needed | {clause.key for rule in self.rules for clause in rule.clauses}
        return frozenset(named.difference(SENDER_KEYS) | GUARD_KEYWORDS)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides: equal digests decide alike. Waiting times do not enter."""
        rules = [_decisive(rule) for rule in self.rules]
        text = json.dumps([rules, sorted(self.destination_peers.items())], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _decisive(rule: Rule) -> dict[str, Any]:
    """What of a rule decides, as JSON values."""
    same = ("name", "engines", "deliver", "originals", "results", "stop", "echo", "priority", "commissioning",
            "on_gate", "report", "shadow", "constancy")  # fmt: skip
    return {
        **{name: getattr(rule, name) for name in same},
        "match": [[clause.key, clause.wanted] for clause in rule.clauses],
        "needs": [[need.name, [[clause.key, clause.wanted] for clause in need.clauses]] for need in rule.needs],
        "settings": {engine: dict(given) for engine, given in rule.settings.items()},
    }


@dataclass(frozen=True)
class _Known:
    """The names that rules may refer to; `peers` None: not known, not checked."""

    destinations: Collection[str]
    engines: Collection[str]
    peers: Collection[str] | None


def load_rules(
    rules: Sequence[RuleSpec],
    destinations: Mapping[str, str | None],
    engines: Collection[str],
    peers: Collection[str] | None = None,
) -> RuleSet:
    """Check the rules against the names there are.

    destinations  name -> the peer it sends to, or None      engines  names, without version
    peers         configured peers, for clauses on `peer`; None leaves those unchecked

    Raises ConfigError that names the rule and the clause, with the nearest right word in `hint`.
    """
    known = _Known(destinations, engines, peers)
    checked: dict[str, Rule] = {}
    for spec in rules:
        if spec.name in checked:
            raise ConfigError(f"rule {spec.name!r} is there twice", "give each rule its own name")
        try:
            checked[spec.name] = _rule(spec, known)
        except ConfigError as error:
            raise ConfigError(f"rule {spec.name!r}: {error}", error.hint) from None
    return RuleSet(tuple(checked.values()), MappingProxyType(dict(destinations)))


def _rule(spec: RuleSpec, known: _Known) -> Rule:
    _check_effect(spec)
    for key in ("send", "send_originals", "send_results"):
        for destination in getattr(spec, key):
            if destination not in known.destinations:
                hint = nearest_word(destination, known.destinations) if known.destinations else _NO_DESTINATION
                raise ConfigError(f"{key}: there is no destination {destination!r}", hint)
    return Rule(
        name=spec.name,
        clauses=tuple(parse_clause(key, wanted, known.peers) for key, wanted in spec.match.items()),
        needs=tuple(_need(name, match, known.peers) for name, match in spec.needs.items()),
        engines=_chain(spec, known.engines),
        deliver=_deliver(spec),
        originals=tuple(dict.fromkeys(spec.send + spec.send_originals)),
        results=tuple(dict.fromkeys(spec.send + spec.send_results)),
        settings=_settings(spec),
        stop=spec.stop,
        echo=spec.echo,
        quiet_s=_seconds("quiet_s", spec.quiet_s),
        deadline_s=_seconds("deadline_s", spec.deadline_s),
        longest_s=_seconds("longest_s", spec.longest_s),
        on_deadline=None if spec.on_deadline is None else OnDeadline(spec.on_deadline),
        late=None if spec.late is None else LatePolicy(spec.late),
        priority=spec.priority,
        commissioning=spec.commissioning,
        on_gate=spec.on_gate or "withhold",
        report=tuple(dict.fromkeys(spec.report)),
        shadow=_shadow(spec),
        constancy=spec.constancy,
    )


def _check_effect(spec: RuleSpec) -> None:
    """A rule must say when it applies, and do something then."""
    if not spec.match:
        raise ConfigError("match is empty", 'say when the rule applies; match = { Modality = "*" } is nearly always')
    if spec.constancy or spec.report:
        _check_reports(spec)
    if not spec.engines and not spec.send and not spec.send_originals and not spec.constancy:
        if spec.send_results:
            raise ConfigError("send_results without engines: there are no results", "add engines = [...] or use send")
        raise ConfigError("it neither sends nor enhances anything", "add send = [...] or engines = [...]")
    if spec.engines and not spec.send and not spec.send_results:
        raise ConfigError("its engines' results go nowhere", "add send_results = [...] (or send = [...])")
    for key in ("needs", "deliver", "settings", "send_results", "commissioning", "on_gate", "shadow"):
        if getattr(spec, key) and not spec.engines and not (key == "send_results" and spec.constancy):
            raise ConfigError(f"{key} without engines", f"add engines = [...] or remove {key}")


def _check_reports(spec: RuleSpec) -> None:
    """A report needs something that is measured, and somewhere to go."""
    if spec.constancy and spec.needs:
        raise ConfigError("constancy with needs: a phantom is one series", "remove needs")
    if spec.constancy and spec.engines:
        raise ConfigError("constancy with engines: a phantom is measured as it is", "make two rules, or remove one")
    if spec.report and not spec.engines and not spec.constancy:
        raise ConfigError("report without engines: nothing is measured", "add engines = [...] or constancy = true")
    if spec.report and not spec.send and not spec.send_results:
        raise ConfigError("its reports go nowhere", "add send_results = [...] (or send = [...])")
    if spec.send_results and not spec.engines and not spec.report:
        raise ConfigError("send_results of a phantom without a report", 'add report = ["sr"] or remove send_results')


def _need(name: str, match: Mapping[str, Any], peers: Collection[str] | None) -> Need:
    if not match:
        raise ConfigError(f"needs: {name!r} matches everything", 'say which series it is, like { Modality = "CT" }')
    return Need(name, tuple(parse_clause(key, wanted, peers) for key, wanted in match.items()))


def _chain(spec: RuleSpec, known: Collection[str]) -> tuple[str, ...]:
    names = [reference.partition("@")[0] for reference in spec.engines]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"engines: there is no engine {name!r}",
                f"{nearest_word(name, known)} (or add its bundle: dicomnode engines add FOLDER)",
            )
        if names.count(name) > 1:
            raise ConfigError(
                f"engines: {name!r} is in the chain twice", "name it once; two alternatives are two rules"
            )
    return spec.engines


def _shadow(spec: RuleSpec) -> str:
    """Another version of an engine of the chain, with its version."""
    if not spec.shadow:
        return ""
    if spec.needs:
        raise ConfigError("shadow with needs: a version is tried out on one series", "remove shadow or needs")
    replaced = _in_chain(spec, "shadow", spec.shadow.partition("@")[0])
    if "@" not in spec.shadow or spec.shadow == replaced:
        raise ConfigError(f"shadow: {spec.shadow!r} is no other version", 'name it, like "ct-denoise@1.3.0"')
    return spec.shadow


def _deliver(spec: RuleSpec) -> tuple[Leaving, ...]:
    if not spec.deliver:
        return tuple(map(Leaving, spec.engines[-1:]))
    chosen = dict.fromkeys(_leaving(spec, word) for word in spec.deliver)
    return tuple(sorted(chosen, key=lambda one: (spec.engines.index(one.engine), bool(one.output))))


def _leaving(spec: RuleSpec, word: str) -> Leaving:
    """What ENGINE or ENGINE.OUTPUT means; a version may have dots too."""
    engine, dot, output = word.rpartition(".")
    named = (reference for reference in spec.engines if engine in (reference, reference.partition("@")[0]))
    found = next(named, None) if dot and word not in spec.engines else None
    return Leaving(found, output) if found is not None else Leaving(_in_chain(spec, "deliver", word))


def _settings(spec: RuleSpec) -> Settings:
    by_reference = {_in_chain(spec, "settings", key): dict(values) for key, values in spec.settings.items()}
    return {reference: by_reference[reference] for reference in spec.engines if by_reference.get(reference)}


def _in_chain(spec: RuleSpec, key: str, engine: str) -> str:
    """The chain's reference for an engine that `key` names with or without its version."""
    for reference in spec.engines:
        if engine in (reference, reference.partition("@")[0]):
            return reference
    raise ConfigError(f"{key}: {engine!r} is not one of its engines", nearest_word(engine, spec.engines))


def _seconds(key: str, value: float | None) -> float | None:
    if value is not None and not (value >= 0 and math.isfinite(value)):
        raise ConfigError(f"{key} = {value} is no waiting time", "write seconds, 0 or more")
    return value


def rule_spec(table: Mapping[str, Any], number: int = 1) -> RuleSpec:
    """A `[[rule]]` table, just parsed, as a RuleSpec; `number` is its place in the file, from 1.

    Raises ConfigError for unknown keys and for values of the wrong type.
    """
    place = f"rule {table['name']!r}" if isinstance(table.get("name"), str) else f"rule number {number}"
    for key in table:
        if key not in _SHAPES:
            raise ConfigError(f"{place}: unknown key {key!r}", nearest_word(key, _SHAPES))
    for key in ("name", "match"):
        if key not in table:
            raise ConfigError(f"{place}: {key} is missing", f"add {key} = ...")
    checked: dict[str, Any] = {}
    for key, value in table.items():
        accepts, shape = _SHAPES[key]
        if not accepts(value):
            raise ConfigError(f"{place}: {key} must be {shape}", f"write {key} as {shape}")
        checked[key] = tuple(value) if isinstance(value, list) else value
    return RuleSpec(**checked)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) and name for name in value)


def _is_settings(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(one, Mapping) and all(isinstance(setting, str | int | float) for setting in one.values())
        for one in value.values()
    )


def _is_needs(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(match, Mapping) for match in value.values())


_Shape = tuple[Callable[[Any], bool], str]
_NAMES: Final[_Shape] = (_is_names, 'a list of names, like ["pacs"]')
_FLAG: Final[_Shape] = (lambda value: isinstance(value, bool), "true or false")
_SECONDS: Final[_Shape] = (_is_number, "a number of seconds")
_SHAPES: Final[Mapping[str, _Shape]] = {
    "name": (lambda value: isinstance(value, str) and bool(value.strip()), "text in quotes"),
    "match": (lambda value: isinstance(value, Mapping), 'a table, like { Modality = "CT" }'),
    "needs": (_is_needs, 'names of [need.NAME] tables, or a table of tables, like { thin = { Modality = "CT" } }'),
    "engines": _NAMES,
    "deliver": _NAMES,
    "send": _NAMES,
    "send_originals": _NAMES,
    "send_results": _NAMES,
    "settings": (_is_settings, "one table an engine, like [rule.settings.ct-nlm]"),
    "stop": _FLAG,
    "echo": _FLAG,
    "quiet_s": _SECONDS,
    "deadline_s": _SECONDS,
    "longest_s": _SECONDS,
    "on_deadline": (lambda value: value in tuple(OnDeadline), '"proceed", "flag" or "hold"'),
    "late": (lambda value: value in tuple(LatePolicy), '"supersede", "separate" or "ignore"'),
    "priority": (lambda value: value in ("urgent", "normal"), '"urgent" or "normal"'),
    "commissioning": _FLAG,
    "on_gate": (lambda value: value in ("withhold", "flag"), '"withhold" or "flag"'),
    "report": (
        lambda value: _is_names(value) and set(value) <= {"sr", "capture"},
        'a list of "sr" and "capture"',
    ),
    "shadow": (lambda value: isinstance(value, str) and bool(value), 'an engine, like "ct-denoise@1.3.0"'),
    "constancy": _FLAG,
}
assert set(_SHAPES) == {entry.name for entry in fields(RuleSpec)}
