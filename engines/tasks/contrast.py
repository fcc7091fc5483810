"""contrast: a classical operation, with settings that a network has predicted.

The network gives one number of a slice for each setting that it predicts. All slices of a volume are shown alike, so
the median over the slices counts, cut to what the operation takes; the other settings are the site's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from engines import glcae
from engines.base import Value
from engines.card import Method, Setting, SettingValue
from engines.errors import EngineInputError
from engines.tasks.base import Computed
from engines.volume import Volume

METHODS: Final[Mapping[Method, Callable[[Volume, Mapping[str, SettingValue]], Volume]]] = {
    "glcae": glcae.enhanced,
    "clahe": glcae.equalised,
}

SETTINGS: Final = glcae.ContrastGlcae.card.settings
"""What both operations take."""


def values(computed: Computed) -> Mapping[str, Value]:
    """The card's one output: a presentation image. `computed` must be of the whole volume."""
    ((name, _),) = computed.card.outputs.items()
    settings = {name: spec.default for name, spec in SETTINGS.items()} | dict(computed.settings) | predicted(computed)
    return {name: METHODS[computed.card.method](computed.source, settings)}


def predicted(computed: Computed) -> dict[str, SettingValue]:
    """Settings by name, from the numbers of all slices."""
    names = [output.target for stage in computed.card.stages for output in stage.outputs if output.target in SETTINGS]
    return {name: _setting(name, SETTINGS[name], _median(computed, name)) for name in names}


def _median(computed: Computed, name: str) -> float:
    several = [piece.targets[name] for piece in computed.pieces]
    if any(numbers.shape[1:] != (1, 1, 1) for numbers in several):
        raise EngineInputError(
            f"the network gives {name} as {several[0].shape[1:]}", "a predicted setting is one number of a slice"
        )
    return float(np.median(np.concatenate(several)))


def _setting(name: str, spec: Setting, number: float) -> SettingValue:
    if not np.isfinite(number) or isinstance(spec.default, str):
        raise EngineInputError(f"the network gives no usable {name}", "the network, or its input, is damaged")
    low = -np.inf if spec.minimum is None else spec.minimum
    high = np.inf if spec.maximum is None else spec.maximum
    cut = min(max(number, low), high)
    return round(cut) if isinstance(spec.default, int) else cut
