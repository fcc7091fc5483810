"""engines add, use, remove, keygen and sign: what changes which bundles a node has."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dicomnode.config import Config
from dicomnode.errors import NotFoundError, UsageError
from dicomnode.operations.check_engine import Checked, check_bundle
from dicomnode.operations.engines import registry_of
from dicomnode.operations.index import has_index, writing
from dicomnode.operations.terminal import printable_lines
from dicomnode.store import bundles
from dicomnode.store.bundles import By
from dicomnode.store.index.actions import record_action, user
from dicomnode.telemetry import event
from engines.bundle import signing
from engines.bundle.folder import Bundle, load_bundle
from engines.bundle.installed import Versions, read_state
from engines.bundle.tables import nearest
from engines.errors import BundleError, EngineNotFoundError
from engines.registry import Registry


@dataclass(frozen=True)
class Added:
    """A bundle that is installed; `checked` is what was found out about it on this machine."""

    reference: str
    in_use: str
    signed_by: str
    checked: Checked

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "checked": self.checked.to_json()}

    def lines(self) -> Sequence[str]:
        name = self.reference.partition("@")[0]
        vouched = f"signed by {self.signed_by}" if self.signed_by else "NOT signed: on your word"
        switch = (
            "" if self.reference == f"{name}@{self.in_use}" else f"; to switch: dicomnode engines use {self.reference}"
        )
        last = f"{self.reference} is installed, {vouched}; {name} is {name}@{self.in_use}{switch}"
        return (*self.checked.lines(), *printable_lines((last,)))


@dataclass(frozen=True)
class Switched:
    """What a name means from now on, and what it meant before; empty where it meant nothing.

    kept  of a version that comes with the node a copy was made, which no upgrade takes away
    """

    name: str
    in_use: str
    before: str
    kept: bool = False

    def to_json(self) -> Mapping[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        if self.before == self.in_use:
            change = "an upgrade of the node does not change that any more" if self.kept else "nothing changed"
            return printable_lines((f"{self.name} is {self.name}@{self.in_use} already: {change}",))
        meant = f", it was {self.name}@{self.before}" if self.before else ""
        return printable_lines((f"{self.name} is {self.name}@{self.in_use} from now on{meant}",))


@dataclass(frozen=True)
class Said:
    """One fact in words."""

    what: Mapping[str, str]
    sentence: str

    def to_json(self) -> Mapping[str, Any]:
        return self.what

    def lines(self) -> Sequence[str]:
        return printable_lines((self.sentence,))


def add_bundle(config: Config, source: Path, *, allow_unsigned: bool) -> Added:
    """Install a bundle after all checks, its golden test on this machine too. The first of its name is in use at once,
    unless one comes with the node: of that a copy is kept, and stays what the name means.

    Raises BundleError where a check fails; UsageError where no trusted key vouches for it and that is not allowed, or
    its name or version is taken.
    """
    bundle = load_bundle(source)
    signed_by = _vouched(config, bundle, allow_unsigned=allow_unsigned)
    registry = registry_of(config)
    _check_free(config, registry, bundle)
    checked = check_bundle(bundle, signed_by, config.limits)
    if not checked.passed:
        failed = "; ".join(trial.line() for trial in checked.trials if trial.state == "failed")
        raise BundleError(
            f"{bundle.card.reference} did not pass its golden test here{f': {failed}' if failed else ''}",
            f"see: dicomnode engines check {source}",
        )
    _keep_in_use(config, registry, bundle.card.name)
    installed = bundles.add(config.bundles, bundle, signed_by, _by())
    _note(config, "engines add", bundle.card.reference, "" if signed_by else "not signed by a trusted key")
    event("engine_added", engine=bundle.card.reference, fingerprint=signed_by)
    return Added(bundle.card.reference, installed.in_use, signed_by, checked)


def use_engine(config: Config, reference: str) -> Switched:
    """Let a name mean another of its versions; of those that come with the node and are asked for, or were in use, a
    copy is kept. Raises UsageError without a version, EngineNotFoundError."""
    name, version = _named(reference)
    registry = registry_of(config)
    versions = _versions(registry, name)
    if version not in versions.known:
        raise EngineNotFoundError(f"engine {name} has no version {version!r} here", nearest(version, versions.known))
    _keep_in_use(config, registry, name)
    if versions.comes_along(version):
        _keep(config, registry, name, version)
    installed = bundles.use(config.bundles, name, version, _by())
    kept = version not in versions.installed.versions
    return _switched(config, Switched(name, installed.in_use, versions.in_use, kept))


def go_back(config: Config, name: str) -> Switched:
    """Let a name mean what it meant before the last switch. Raises NotFoundError where that is gone or never was."""
    state = _versions(registry_of(config), name).installed
    version = bundles.former(state)
    if not version:
        raise NotFoundError(f"{name} has no former version that is still installed", "see: dicomnode engines list")
    installed = bundles.use(config.bundles, name, version, _by())
    return _switched(config, Switched(name, installed.in_use, state.in_use))


def remove_engine(config: Config, reference: str) -> Said:
    """Delete a version. Raises UsageError where it comes with the node, a rule names it, or it is in use and others are
    there."""
    name, version = _named(reference)
    versions = _versions(registry_of(config), name)
    if versions.comes_along(version):
        hint = f"it stays; to let {name} mean another version: dicomnode engines use {name}@VERSION"
        raise UsageError(f"{reference} comes with the node", hint)
    _check_unnamed(config, reference, versions)
    bundles.remove(config.bundles, name, version, _by())
    _note(config, "engines remove", reference, "")
    event("engine_removed", engine=reference)
    return Said({"removed": reference}, f"{reference} is removed")


def make_key(private: Path) -> Said:
    """A new pair of keys: `private`, and beside it the same name with .pub."""
    public = private.with_name(f"{private.name}.pub")
    fingerprint = signing.make_keys(private, public)
    what = {"private": str(private), "public": str(public), "fingerprint": fingerprint}
    return Said(what, f"key {fingerprint}: keep {private} secret; name {public} in [engines] trusted_keys")


def sign_bundle(folder: Path, private: Path) -> Said:
    """Sign a bundle that is whole; a signature that was there is replaced."""
    bundle = load_bundle(folder)
    signature = signing.sign(folder, bundle.digest, private)
    what = {"engine": bundle.card.reference, "digest": bundle.digest, "fingerprint": signature.fingerprint}
    return Said(what, f"{bundle.card.reference} is signed by {signature.fingerprint}")


def _check_free(config: Config, registry: Registry, bundle: Bundle) -> None:
    """Raises UsageError where the bundle's name, or its version, is what comes with the node."""
    name, version = bundle.card.name, bundle.card.version
    if registry.is_code(name):
        raise UsageError(f"{name} comes with the node", "give the bundle another name")
    if version in registry.shipped_versions(name) and version not in read_state(config.bundles / name).versions:
        raise UsageError(f"{bundle.card.reference} comes with the node", "give the bundle a version of its own")


def _check_unnamed(config: Config, reference: str, versions: Versions) -> None:
    """Raises UsageError where a rule means this version."""
    name, version = _named(reference)
    needed = {reference, name} if versions.in_use == version else {reference}
    for rule in config.rules().rules:
        for named in sorted(needed & {*rule.engines, *rule.shadow_chain}):
            meant = "" if named == reference else f", which is {reference} now"
            hint = f"switch first: dicomnode engines use {name}@VERSION" if meant else "change the rule first"
            raise UsageError(f"rule {rule.name!r} names {named}{meant}", hint)


def _keep_in_use(config: Config, registry: Registry, name: str) -> None:
    """Keep what a name means before the site chooses for itself: so that there is a way back to it."""
    for version in registry.shipped_versions(name)[-1:]:
        if not read_state(config.bundles / name).in_use:
            _keep(config, registry, name, version)


def _keep(config: Config, registry: Registry, name: str, version: str) -> None:
    """Copy a version that comes with the node to those of the site: no upgrade takes it away from there."""
    bundle = registry.shipped_bundle(name, version)
    if bundle is not None:
        bundles.add(config.bundles, bundle, "", _by(), shipped=True)


def _vouched(config: Config, bundle: Bundle, *, allow_unsigned: bool) -> str:
    signed_by = signing.vouched(
        bundle.digest, bundle.signature, map(signing.read_public_key, config.engines.trusted_keys)
    )
    if signed_by or allow_unsigned:
        return signed_by
    if bundle.signature is None:
        what = f"{bundle.card.reference} is not signed"
    else:
        what = f"{bundle.card.reference} is signed by {bundle.signature.fingerprint}, which is not trusted here"
    hint = "name the maker's key in [engines] trusted_keys; or take it on your own word with --allow-unsigned"
    raise UsageError(what, hint)


def _named(reference: str) -> tuple[str, str]:
    name, _, version = reference.partition("@")
    if not version:
        raise UsageError(f"{reference} names no version", f"write {name}@VERSION; see: dicomnode engines list")
    return name, version


def _versions(registry: Registry, name: str) -> Versions:
    versions = registry.versions(name)
    if versions is None:
        raise UsageError(f"{name} comes with the node", "it has one version, and it stays")
    return versions


def _switched(config: Config, switched: Switched) -> Switched:
    name, before = switched.name, switched.before
    _note(config, "engines use", f"{name}@{switched.in_use}", f"before: {before}" if before else "")
    event("engine_switched", engine=f"{name}@{switched.in_use}")
    return switched


def _by() -> By:
    return By(user(), time.time())


def _note(config: Config, what: str, reference: str, reason: str) -> None:
    """In the node's audit trail, where it has an index yet; the state of the bundles keeps it too."""
    if has_index(config):
        with writing(config) as session:
            record_action(session, what, reference, reason, time.time())
