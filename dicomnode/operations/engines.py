"""engines list, engines show, and the settings that a command line gives an engine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from dicomnode.config import Config
from dicomnode.core.rules import RuleSet
from dicomnode.errors import UsageError
from dicomnode.operations.terminal import printable_lines
from engines.bundle.folder import Bundle
from engines.bundle.installed import Accepted, Versions
from engines.bundle.provenance import Metric
from engines.bundle.words import limits_in_words
from engines.card import EngineCard, Setting, SettingValue
from engines.errors import BundleError, RuntimeFailedError
from engines.registry import Registry, default_registry
from engines.runtimes.choice import choose
from engines.runtimes.tensorrt.plans import Known, PlanStore

_ENVELOPE: Final = {
    "modalities": "modality", "body_parts": "body part", "kvp": "tube voltage in kV", "kernels": "kernel",
    "slice_thickness_mm": "slice thickness in mm", "pixel_spacing_mm": "pixel spacing in mm",
    "rows_columns": "rows and columns", "minimum_slices": "at least so many slices:",
    "contrast_agent": "contrast agent:",
}  # fmt: skip
_YES_NO = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """One engine: its card, or why it cannot be used; where it is a bundle, the versions there are, and of those that
    are damaged why."""

    name: str
    card: EngineCard | None
    versions: Versions | None
    problem: str = ""
    damaged: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        card = {"name": self.name} if self.card is None else _card_json(self.card)
        known = [] if self.versions is None else [_version_json(self.versions, each) for each in self.versions.known]
        versions = [{**each, "damaged": self.damaged.get(each["version"], "")} for each in known]
        return {**card, "versions": versions, "problem": self.problem}

    def lines(self) -> Sequence[str]:
        card = _card_lines(self.card) if self.card is not None else [f"{self.name}: cannot be used: {self.problem}"]
        if self.versions is None:
            return card
        return [*card, *_versions_lines(self.versions, self.damaged)]


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
    """Everything that is known of one version of an engine; `bundle` and `versions` are None for one that is code.

    computed  what would compute it here, in which precision and why, or why nothing does
    plans     that TensorRT has built of its networks on this machine
    damaged   why, by version
    """

    card: EngineCard
    bundle: Bundle | None
    versions: Versions | None
    computed: str = ""
    plans: tuple[Known, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        facts = {"card": _card_facts(self.card), "digest": self.card.identity, "computed": self.computed}
        if self.bundle is None or self.versions is None:
            return facts
        return {
            **facts,
            "damaged": dict(self.damaged),
            "provenance": asdict(self.bundle.provenance),
            **_version_json(self.versions, self.card.version),
            "history": [asdict(change) for change in self.versions.installed.history],
            "plans": [asdict(plan) for plan in self.plans],
        }

    def lines(self) -> Sequence[str]:
        bundle = [] if self.bundle is None or self.versions is None else self._bundle_lines(self.bundle, self.versions)
        limits = (f"    held to {line}" for line in limits_in_words(self.card))
        computed = f"    computed here by {self.computed}"
        digest = f"    digest {self.card.identity}, which all that is derived carries"
        return printable_lines(
            (*_card_lines(self.card), *_envelope_lines(self.card), *limits, *_stage_lines(self.card), computed, digest,
             *bundle)
        )  # fmt: skip

    def _bundle_lines(self, bundle: Bundle, versions: Versions) -> list[str]:
        made = bundle.provenance
        return [
            *_versions_lines(versions, self.damaged),
            f"    made by {made.maker}, run {made.training.run}; its weights are under {made.licence}",
            *(f"    {item.role}: {item.name} ({item.licence}) {item.attribution}" for item in made.data),
            *(f"    measured: {_metric(item)}" for item in made.metrics),
            *(f"    known limit: {sentence}" for sentence in made.limitations),
            *(
                f"    {_when(change.at)}: {change.what} {change.version} by {change.by}"
                for change in versions.installed.history
            ),
            *(f"    {line}" for plan in self.plans for line in plan.lines),
        ]


def describe_engines(config: Config | None) -> EngineList:
    """All engines there are, and which of the rules use them. One that is damaged is told of, with why."""
    registry = registry_of(config)
    return EngineList(
        tuple(_entry(registry, name) for name in registry.names()),
        _users(None if config is None else config.rules()),
    )


def show_engine(config: Config | None, reference: str) -> EngineShown | EngineEntry:
    """One engine, as `name` or `name@version`; where the version in use is damaged, what is left to say of the others.

    Raises EngineNotFoundError; BundleError where the version that is named is damaged.
    """
    registry = registry_of(config)
    try:
        card, bundle = registry.card(reference), registry.bundle(reference)
    except BundleError:
        if "@" in reference:
            raise
        return _entry(registry, reference)
    computed, versions = _computed(config, card, bundle), registry.versions(card.name)
    if bundle is None:
        return EngineShown(card, bundle, versions, computed)
    plans = () if config is None else PlanStore(config.compiled).known(bundle.digest)
    return EngineShown(card, bundle, versions, computed, plans, _damaged(registry, card.name, versions))


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


def _entry(registry: Registry, name: str) -> EngineEntry:
    versions = None
    try:
        versions = registry.versions(name)
        return EngineEntry(name, registry.card(name), versions, damaged=_damaged(registry, name, versions))
    except BundleError as error:
        return EngineEntry(name, None, versions, str(error), _damaged(registry, name, versions))


def _damaged(registry: Registry, name: str, versions: Versions | None) -> dict[str, str]:
    """Why, by version, of those that cannot be used any more."""
    damaged = {}
    for version in () if versions is None else versions.known:
        try:
            registry.bundle(f"{name}@{version}")
        except BundleError as error:
            damaged[version] = f"{error}; {error.hint}"
    return damaged


def _computed(config: Config | None, card: EngineCard, bundle: Bundle | None) -> str:
    """What the node would compute an engine by, before it has passed its golden test there."""
    if bundle is None:
        return card.runtime
    from dicomnode.inference.opening import Place, runtimes_for  # slow: with all runtimes
    from dicomnode.operations.bench_engines import wish_of

    wish = wish_of(config)
    try:
        chosen = choose(card, wish, runtimes_for(bundle, Place(wish, 1, None if config is None else config.compiled)))
    except RuntimeFailedError as error:
        return f"NOTHING: {error}; {error.hint}"
    return f"{chosen.runtime.name} in {chosen.precision} on {chosen.device}: {chosen.reason}"


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
        "digest": card.identity,
        "settings": {
            name: {"default": spec.default, "meaning": spec.meaning, "minimum": spec.minimum, "maximum": spec.maximum}
            for name, spec in card.settings.items()
        },
    }


def _card_lines(card: EngineCard) -> Sequence[str]:
    modalities = ", ".join(card.envelope.modalities) or "any modality"
    settings = [f"    {name} = {spec.default}: {spec.meaning}" for name, spec in card.settings.items()]
    return [f"{card.reference} ({modalities}): {card.intended_use}", *settings]


def _card_facts(card: EngineCard) -> dict[str, Any]:
    """The card as its maker wrote it: of a bundle the machine fills the runtime in when it computes."""
    return {
        key: value for key, value in asdict(card).items() if key != "bundle" and (key != "runtime" or not card.bundle)
    }


def _stage_lines(card: EngineCard) -> Sequence[str]:
    allowed = [f"    may be computed in {', '.join(card.precisions)}"] if card.stages else []
    sizes = (f"a halo of {stage.halo_px} px, sizes in multiples of {stage.multiple_px} px" for stage in card.stages)
    return [*allowed, *(f"    {stage.file}: {size}" for stage, size in zip(card.stages, sizes, strict=True))]


def _envelope_lines(card: EngineCard) -> Sequence[str]:
    """What it was made for, as far as it is restricted."""
    bounds = {key: value for key, value in asdict(card.envelope).items() if value not in ((), None, "any")}
    return [f"    made for {_ENVELOPE.get(key, key)} {_bound(value)}" for key, value in bounds.items()]


def _bound(value: object) -> str:
    if not isinstance(value, tuple):
        return str(value)
    is_range = len(value) == 2 and not isinstance(value[0], str)
    return (" to " if is_range else ", ").join(map(str, value))


def _metric(item: Metric) -> str:
    interval = "" if item.interval is None else f" (95 % interval {item.interval[0]:g} to {item.interval[1]:g})"
    baseline = "" if item.baseline is None else f", {item.baseline:g} without it"
    return f"{item.name}, {item.subgroup}: {item.value:g} {item.unit}{interval}{baseline}"


def _version_json(versions: Versions, version: str) -> dict[str, Any]:
    accepted = versions.installed.versions.get(version)
    return {
        "version": version,
        "in_use": version == versions.in_use,
        "comes_with_the_node": versions.comes_along(version),
        "accepted": None if accepted is None else asdict(accepted),
    }


def _versions_lines(versions: Versions, damaged: Mapping[str, str]) -> list[str]:
    return [
        f"    {_version_line(versions, version)}" + (f"; DAMAGED: {damaged[version]}" if version in damaged else "")
        for version in versions.known
    ]


def _version_line(versions: Versions, version: str) -> str:
    use = "in use" if version == versions.in_use else "not in use"
    accepted = versions.installed.versions.get(version)
    if accepted is None:
        return f"version {version}, {use}, comes with the node"
    if accepted.shipped:
        return f"version {version}, {use}, came with the node, kept by {accepted.by} {_when(accepted.at)}"
    return f"version {version}, {use}, {_vouched(accepted)}, added by {accepted.by} {_when(accepted.at)}"


def _vouched(accepted: Accepted) -> str:
    return f"signed by {accepted.signed_by}" if accepted.signed_by else f"NOT signed: on the word of {accepted.by}"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
