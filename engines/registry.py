"""The registry: engines by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from engines.base import Engine
from engines.errors import EngineNotFoundError


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
