"""The Engine protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from engines.card import EngineCard, SettingValue
from engines.errors import EngineInputError
from engines.findings import Findings
from engines.prompt import Prompt
from engines.volume import Mask, Volume

Value = Volume | Mask | Findings | Prompt


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
