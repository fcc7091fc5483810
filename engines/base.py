"""The Engine protocol and the registry of engines by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Protocol

from engines.card import EngineCard, SettingValue
from engines.errors import EngineNotFoundError
from engines.findings import Findings
from engines.volume import Mask, Volume

Value = Volume | Mask | Findings


class Engine(Protocol):
    """Arrays in, arrays out. `run` is a pure function of its arguments: the same inputs give the same outputs."""

    @property
    def card(self) -> EngineCard: ...

    def run(self, inputs: Mapping[str, Value], settings: Mapping[str, SettingValue]) -> Mapping[str, Value]:
        """Run on the inputs that the card names; `settings` are resolved by `card.resolve`. Inputs are not altered."""
        ...


class Registry:
    """Engines by name. A reference is `name` or `name@version`."""

    def __init__(self, engines: tuple[Engine, ...]) -> None:
        self._engines = {engine.card.name: engine for engine in engines}

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._engines))

    def get(self, reference: str) -> Engine:
        """The engine; raises EngineNotFoundError with the nearest name."""
        name, _, version = reference.partition("@")
        engine = self._engines.get(name)
        if engine is None:
            near = difflib.get_close_matches(name, self._engines, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"engines here: {', '.join(self.names())}"
            raise EngineNotFoundError(f"there is no engine {name!r}", hint)
        if version and version != engine.card.version:
            raise EngineNotFoundError(
                f"engine {name} has no version {version!r}", f"the version here is {engine.card.version}"
            )
        return engine


def default_registry() -> Registry:
    """The engines that come with this package and need no weights."""
    from engines.classical import ContrastGlcae, CtNlm  # OpenCV is heavy: imported when an engine is asked for

    return Registry((CtNlm(), ContrastGlcae()))
