"""contrast: a classical operation, with settings that a network has predicted.

The network gives one number of a slice for each setting that it predicts. All slices of a volume are shown alike, so
the median over the slices counts, cut to what the operation takes; the other settings are the site's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from engines.base import Value
from engines.card import Method, Setting, SettingValue
from engines.classical import glcae
from engines.errors import EngineInputError
from engines.tasks.base import Computed, check_numbers
from engines.volume import Volume

METHODS: Final[Mapping[Method, Callable[[Volume, Mapping[str, SettingValue]], Volume]]] = {
    "glcae": glcae.enhanced,
    "clahe": glcae.equalised,
}

SETTINGS: Final = glcae.ContrastGlcae.card.settings
"""What both operations take."""

PREDICTED: Final = tuple(name for name, spec in SETTINGS.items() if not isinstance(spec.default, str))
"""What a network may predict of them."""


def values(computed: Computed) -> Mapping[str, Value]:
    """The card's one output: a presentation image. `computed` must be of the whole volume."""
    ((name, _),) = computed.card.outputs.items()
    settings = {name: spec.default for name, spec in SETTINGS.items()} | dict(computed.settings) | predicted(computed)
    return {name: METHODS[computed.card.method](computed.source, settings)}


def predicted(computed: Computed) -> dict[str, SettingValue]:
    """Settings by name, from the numbers of all slices."""
    names = [output.target for stage in computed.card.stages for output in stage.outputs if output.target in PREDICTED]
    return {name: _setting(SETTINGS[name], _median(computed, name)) for name in names}


def _median(computed: Computed, name: str) -> float:
    several = [piece.targets[name] for piece in computed.pieces]
    if any(numbers.shape[1:] != (1, 1, 1) for numbers in several):
        raise EngineInputError(
            f"the network gives {name} as {several[0].shape[1:]}", "a predicted setting is one number of a slice"
        )
    numbers = np.concatenate(several)
    check_numbers(numbers, name)
    return float(np.median(numbers))


def _setting(spec: Setting, number: float) -> SettingValue:
    low = -np.inf if spec.minimum is None else spec.minimum
    high = np.inf if spec.maximum is None else spec.maximum
    cut = min(max(number, low), high)
    return round(cut) if isinstance(spec.default, int) else cut
