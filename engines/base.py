"""The Engine protocol and the registry of engines by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Protocol

from engines.card import EngineCard, SettingValue
from engines.errors import EngineInputError, EngineNotFoundError
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


def volume_input(card: EngineCard, inputs: Mapping[str, Value]) -> Volume:
    """The one volume that `card` takes as "image"; raises EngineInputError where it is missing or of another unit."""
    value = inputs.get("image")
    wanted = card.inputs["image"].unit
    if not isinstance(value, Volume):
        raise EngineInputError(f"{card.name} was given no volume as 'image'", "give one volume under that name")
    if wanted not in ("as-input", value.unit):
        raise EngineInputError(
            f"{card.name} takes {wanted}, the volume is in {value.unit}", "let it stand first in the chain"
        )
    return value


class Registry:
    """Engines by name. A reference is `name` or `name@version`.

    makers  by name, what makes the engine: called when it is first asked for, since engines are slow to import
    """

    def __init__(self, makers: Mapping[str, Callable[[], Engine]]) -> None:
        self._makers = makers
        self._engines: dict[str, Engine] = {}

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._makers))

    def get(self, reference: str) -> Engine:
        """The engine; raises EngineNotFoundError with the nearest name."""
        name, _, version = reference.partition("@")
        if name not in self._makers:
            near = difflib.get_close_matches(name, self._makers, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"engines here: {', '.join(self.names())}"
            raise EngineNotFoundError(f"there is no engine {name!r}", hint)
        if name not in self._engines:
            self._engines[name] = self._makers[name]()
        engine = self._engines[name]
        if version and version != engine.card.version:
            raise EngineNotFoundError(
                f"engine {name} has no version {version!r}", f"the version here is {engine.card.version}"
            )
        return engine


def default_registry() -> Registry:
    """The engines that come with this package and need no weights."""
    return Registry({"ct-nlm": _ct_nlm, "contrast-glcae": _contrast_glcae})


def _ct_nlm() -> Engine:
    from engines.nlm import CtNlm

    return CtNlm()


def _contrast_glcae() -> Engine:
    from engines.glcae import ContrastGlcae

    return ContrastGlcae()
