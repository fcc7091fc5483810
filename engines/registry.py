"""The registry: engines by name, those that come with this package as code or as bundles, and bundles of the site."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from engines.base import Engine
from engines.bundle.folder import Bundle
from engines.bundle.installed import (
    STATE,
    BundleSource,
    Installed,
    Versions,
    installed_names,
    load_installed,
    read_state,
)
from engines.bundle.shipped import load_shipped, shipped
from engines.bundle.tables import nearest
from engines.card import EngineCard
from engines.errors import BundleError, EngineNotFoundError
from engines.zoo import ZOO

OpenBundle = Callable[[Bundle], Engine]
"""Makes an engine of an installed bundle: opens its networks on this machine."""


class Registry:
    """Engines by name. A reference is `name`, which means the version in use, or `name@version`.

    makers  by name, what makes the engine: called when it is first asked for, since engines are slow to import
    folder  where bundles are installed; it is read again at each question, so that a switch is seen at once
    opener  what makes an engine of a bundle; None where only cards are asked for
    zoo     folder of the bundles that come with the package, if any do
    """

    def __init__(
        self,
        makers: Mapping[str, Callable[[], Engine]],
        folder: Path | None = None,
        opener: OpenBundle | None = None,
        zoo: Path | None = None,
    ) -> None:
        self._makers = makers
        self._folder = folder
        self._opener = opener
        self._zoo = zoo
        self._engines: dict[str, Engine] = {}
        self._bundles: dict[tuple[str, str, str], Bundle] = {}
        self._lock = threading.Lock()

    def names(self) -> tuple[str, ...]:
        """All of them, damaged ones too. Raises BundleError where the folder cannot be read."""
        return tuple(sorted({*self._makers, *self._shipped(), *self._installed()}))

    def card(self, reference: str) -> EngineCard:
        """What an engine says about itself; of a bundle as its maker wrote it, before anything computes it.

        Raises EngineNotFoundError with the nearest name, BundleError where the bundle is damaged.
        """
        bundle = self.bundle(reference)
        return bundle.card if bundle is not None else self.get(reference).card

    def get(self, reference: str) -> Engine:
        """The engine, kept for the next time; raises as `card`."""
        bundle = self.bundle(reference)
        with self._lock:
            return self._classical(reference) if bundle is None else self._opened(bundle)

    def source(self, reference: str) -> str:
        """What an engine process opens: a name, or the text of a `BundleSource`; raises as `card`."""
        bundle = self.bundle(reference)
        return reference if bundle is None else str(BundleSource(bundle.digest, bundle.folder))

    def bundle(self, reference: str) -> Bundle | None:
        """The bundle behind a reference, None for an engine that comes as code; raises as `card`."""
        name, _, version = reference.partition("@")
        versions = self.versions(name)
        if versions is None:
            return None
        chosen = version or versions.in_use
        if chosen not in versions.known:
            hint = f"the versions here are: {', '.join(versions.known)}"
            raise EngineNotFoundError(f"engine {name} has no version {chosen!r} here", hint)
        accepted = versions.installed.versions.get(chosen)
        if accepted is None or self._folder is None:
            return self.shipped_bundle(name, chosen)
        key = (name, chosen, accepted.digest)
        with self._lock:
            if key not in self._bundles:
                self._bundles[key] = load_installed(self._folder, name, chosen)
            return self._bundles[key]

    def is_code(self, name: str) -> bool:
        """Whether an engine comes as code: it has one version, and no other may have its name."""
        return name in self._makers

    def versions(self, name: str) -> Versions | None:
        """The versions of an engine that is a bundle, None for one that comes as code.

        Raises EngineNotFoundError with the nearest name, BundleError where the state of what is installed is damaged.
        """
        if self.is_code(name):
            return None
        installed, along = self._installed(), self.shipped_versions(name)
        if name not in installed and not along:
            known, add = nearest(name, self.names()), "or add its bundle: dicomnode engines add FOLDER"
            unread = "; no configuration was read, which says where added ones lie: --config FILE"
            hint = f"{known} ({add}{unread if self._folder is None else ''})"
            raise EngineNotFoundError(f"there is no engine {name!r}", hint)
        state = Installed() if self._folder is None or name not in installed else read_state(self._folder / name)
        if name in installed and not state.versions:
            raise BundleError(f"{name}: its {STATE} is lost", "add its bundles again: dicomnode engines add")
        return Versions(state, along)

    def shipped_versions(self, name: str) -> tuple[str, ...]:
        """Those that come with the package, the oldest first."""
        return self._shipped().get(name, ())

    def shipped_bundle(self, name: str, version: str) -> Bundle | None:
        """The bundle that comes with the package, whatever the site has under its name; None where there is none.

        Raises BundleError where it is damaged.
        """
        if self._zoo is None or version not in self.shipped_versions(name):
            return None
        key = (name, version, "")
        with self._lock:
            if key not in self._bundles:
                self._bundles[key] = load_shipped(self._zoo, name, version)
            return self._bundles[key]

    def _installed(self) -> tuple[str, ...]:
        return () if self._folder is None else installed_names(self._folder)

    def _shipped(self) -> Mapping[str, tuple[str, ...]]:
        return {} if self._zoo is None else shipped(self._zoo)

    def _classical(self, reference: str) -> Engine:
        name, _, version = reference.partition("@")
        if name not in self._engines:
            self._engines[name] = self._makers[name]()
        engine = self._engines[name]
        if version and version != engine.card.version:
            raise EngineNotFoundError(
                f"engine {name} has no version {version!r}", f"the version here is {engine.card.version}"
            )
        return engine

    def _opened(self, bundle: Bundle) -> Engine:
        if self._opener is None:
            raise BundleError(
                f"{bundle.card.reference} is a bundle, and nothing here opens bundles", "ask for its card"
            )
        if bundle.digest not in self._engines:
            self._engines[bundle.digest] = self._opener(bundle)
        return self._engines[bundle.digest]


def default_registry(folder: Path | None = None, opener: OpenBundle | None = None, zoo: Path | None = ZOO) -> Registry:
    """The engines that come with this package, as code and as bundles, and the bundles installed below `folder`."""
    return Registry({"ct-nlm": _ct_nlm, "contrast-glcae": _contrast_glcae}, folder, opener, zoo)


def _ct_nlm() -> Engine:
    from engines.classical.nlm import CtNlm

    return CtNlm()


def _contrast_glcae() -> Engine:
    from engines.classical.glcae import ContrastGlcae

    return ContrastGlcae()
