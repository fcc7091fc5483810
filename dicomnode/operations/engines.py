"""engines list, engines show, and the settings that a command line gives an engine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dicomnode.config import Config
from dicomnode.core.rules import RuleSet
from dicomnode.errors import UsageError
from dicomnode.operations.terminal import printable_lines
from engines.bundle.folder import Bundle
from engines.bundle.installed import Accepted, Installed, read_state
from engines.bundle.provenance import Metric
from engines.card import EngineCard, Setting, SettingValue
from engines.errors import BundleError
from engines.registry import Registry, default_registry
from engines.runtimes.tensorrt.plans import Known, PlanStore

_YES_NO = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """One engine: its card, or why it cannot be used; where it is a bundle, the versions there are."""

    name: str
    card: EngineCard | None
    installed: Installed | None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        card = {"name": self.name} if self.card is None else _card_json(self.card)
        versions = (
            [] if self.installed is None else [_version_json(self.installed, each) for each in self.installed.versions]
        )
        return {**card, "versions": versions, "problem": self.problem}

    def lines(self) -> Sequence[str]:
        card = [f"{self.name}: cannot be used: {self.problem}"] if self.card is None else _card_lines(self.card)
        if self.installed is None:
            return card
        return [*card, *(f"    {_version_line(self.installed, version)}" for version in self.installed.versions)]


@dataclass(frozen=True, slots=True)
class EngineList:
    """The engines there are; and by their names the rules that use them."""

    engines: tuple[EngineEntry, ...]
    used_by: Mapping[str, Sequence[str]]

    def to_json(self) -> dict[str, Any]:
        return {"engines": [{**one.to_json(), "rules": self._rules(one)} for one in self.engines]}

    def lines(self) -> Sequence[str]:
        return printable_lines(line for one in self.engines for line in (*one.lines(), *self._use_lines(one)))

    def _rules(self, engine: EngineEntry) -> list[str]:
        return list(self.used_by.get(engine.name, ()))

    def _use_lines(self, engine: EngineEntry) -> Sequence[str]:
        return [f"    used by rule {rule!r}" for rule in self._rules(engine)]


@dataclass(frozen=True, slots=True)
class EngineShown:
    """Everything that is known of one version of an engine; `bundle` is None for one that comes with the node.

    plans  that TensorRT has built of its networks on this machine
    """

    card: EngineCard
    bundle: Bundle | None
    installed: Installed
    plans: tuple[Known, ...] = ()

    def to_json(self) -> dict[str, Any]:
        facts = {"card": asdict(self.card), "digest": self.card.digest}
        if self.bundle is None:
            return facts
        return {
            **facts,
            "bundle": self.bundle.digest,
            "provenance": asdict(self.bundle.provenance),
            **_version_json(self.installed, self.card.version),
            "history": [asdict(change) for change in self.installed.history],
            "plans": [asdict(plan) for plan in self.plans],
        }

    def lines(self) -> Sequence[str]:
        bundle = [] if self.bundle is None else self._bundle_lines(self.bundle)
        return printable_lines((*_card_lines(self.card), *_envelope_lines(self.card), *bundle))

    def _bundle_lines(self, bundle: Bundle) -> list[str]:
        made = bundle.provenance
        return [
            f"    {_version_line(self.installed, self.card.version)}",
            f"    bundle {bundle.digest}",
            f"    made by {made.maker}, run {made.training.run}; its weights are under {made.licence}",
            *(f"    {item.role}: {item.name} ({item.licence}) {item.attribution}" for item in made.data),
            *(f"    measured: {_metric(item)}" for item in made.metrics),
            *(f"    known limit: {sentence}" for sentence in made.limitations),
            *(
                f"    {_when(change.at)}: {change.what} {change.version} by {change.by}"
                for change in self.installed.history
            ),
            *(f"    {line}" for plan in self.plans for line in plan.lines),
        ]


def describe_engines(config: Config | None) -> EngineList:
    """All engines that are installed, and which of the rules use them. One that is damaged is told of, with why."""
    registry = registry_of(config)
    folder = None if config is None else config.bundles
    return EngineList(
        tuple(_entry(registry, name, folder) for name in registry.names()),
        _users(None if config is None else config.rules()),
    )


def show_engine(config: Config | None, reference: str) -> EngineShown:
    """One engine, as `name` or `name@version`. Raises EngineNotFoundError, BundleError."""
    registry = registry_of(config)
    card = registry.card(reference)
    bundle = registry.bundle(reference)
    if config is None or bundle is None:
        return EngineShown(card, bundle, Installed())
    plans = PlanStore(config.compiled).known(bundle.digest)
    return EngineShown(card, bundle, read_state(config.bundles / card.name), plans)


def registry_of(config: Config | None) -> Registry:
    """The engines of a node, to be asked for their cards; without a configuration those that come with it."""
    return default_registry(None if config is None else config.bundles)


def parse_settings(engine: str, pairs: Sequence[str], bundles: Path | None = None) -> dict[str, SettingValue]:
    """`KEY=VALUE` texts as the types that the engine's card wants. Bounds are the engine's to check.

    bundles  folder of the bundles that are installed, if there is one
    Raises UsageError on text of another form, EngineNotFoundError on an unknown engine.
    """
    card = default_registry(bundles).card(engine)
    return dict(_parse(card, pair) for pair in pairs)


def _entry(registry: Registry, name: str, folder: Path | None) -> EngineEntry:
    """`folder`: of all bundles."""
    installed = None
    try:
        if folder is not None and (folder / name).is_dir():
            installed = read_state(folder / name)
        return EngineEntry(name, registry.card(name), installed)
    except BundleError as error:
        return EngineEntry(name, None, installed, str(error))


def _users(ruleset: RuleSet | None) -> Mapping[str, Sequence[str]]:
    used_by: dict[str, list[str]] = {}
    for rule in ruleset.rules if ruleset else ():
        for reference in rule.engines:
            used_by.setdefault(reference.partition("@")[0], []).append(rule.name)
    return used_by


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


def _envelope_lines(card: EngineCard) -> Sequence[str]:
    """What it was made for, as far as it is restricted."""
    bounds = {key: value for key, value in asdict(card.envelope).items() if value not in ((), None, "any")}
    return [f"    made for {key} {_bound(value)}" for key, value in bounds.items()]


def _bound(value: object) -> str:
    if not isinstance(value, tuple):
        return str(value)
    is_range = len(value) == 2 and not isinstance(value[0], str)
    return (" to " if is_range else ", ").join(map(str, value))


def _metric(item: Metric) -> str:
    interval = "" if item.interval is None else f" (95 % interval {item.interval[0]:g} to {item.interval[1]:g})"
    baseline = "" if item.baseline is None else f", {item.baseline:g} without it"
    return f"{item.name}, {item.subgroup}: {item.value:g} {item.unit}{interval}{baseline}"


def _version_json(installed: Installed, version: str) -> dict[str, Any]:
    return {"version": version, "in_use": version == installed.in_use, "accepted": asdict(installed.versions[version])}


def _version_line(installed: Installed, version: str) -> str:
    accepted = installed.versions[version]
    use = "in use" if version == installed.in_use else "not in use"
    return f"version {version}, {use}, {_vouched(accepted)}, added by {accepted.by} {_when(accepted.at)}"


def _vouched(accepted: Accepted) -> str:
    return f"signed by {accepted.signed_by}" if accepted.signed_by else f"NOT signed: on the word of {accepted.by}"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
