"""image: another image on the same grid; one, or one from each of several stages.

What comes back is the network's image where values were measured, and the source where they were padding, or where a
person's marks left the image alone. The setting `strength` lets a site blend: 0 is the source, 1 the image. Every
bundle of this task has it, whatever its card declares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.base import Value
from engines.card import EngineCard, Port, Setting
from engines.tasks.base import Computed
from engines.volume import ARBITRARY, PRESENTATION_MAXIMUM, Volume

STRENGTH: Final = "strength"

Pixels = NDArray[np.float32]


def values(computed: Computed) -> Mapping[str, Value]:
    """The card's outputs, each a volume on the source's grid."""
    return {name: _image(computed, name, port) for name, port in computed.card.outputs.items()}


def with_strength(card: EngineCard, default: float = 1.0) -> EngineCard:
    """The card with the setting `strength`, where its task is this one and an output is no presentation; one that
    declares its own bounds or default keeps them."""
    if card.task != "image" or STRENGTH in card.settings or all(port.presentation for port in card.outputs.values()):
        return card
    meaning = "how far the output goes from the source (0) to what the network makes (1)"
    return replace(card, settings={**card.settings, STRENGTH: Setting(default, meaning, 0.0, 1.0)})


def _image(computed: Computed, name: str, port: Port) -> Volume:
    source = computed.source
    image = np.zeros(source.shape, dtype=np.float32) if port.presentation else np.array(source.voxels)
    computed.pasted(image, lambda piece: piece.image(name))
    if port.presentation:
        return presented(image, source)
    image = blended(source.voxels, image, float(computed.settings.get(STRENGTH, 1.0)))
    if source.valid is not None:
        np.copyto(image, source.voxels, where=~source.valid)
    return in_unit(source.with_voxels(image), port)


def blended(source: Pixels, image: Pixels, strength: float) -> Pixels:
    """`strength` of the way from the source to the image."""
    return image if strength == 1.0 else source + np.float32(strength) * (image - source)


def presented(image: Pixels, source: Volume) -> Volume:
    """Values of 0...4095 for the eye only; padding is black."""
    image = np.clip(image, 0.0, PRESENTATION_MAXIMUM)
    if source.valid is not None:
        image[~source.valid] = 0.0
    window = (PRESENTATION_MAXIMUM / 2, PRESENTATION_MAXIMUM)
    return Volume(image, source.affine, ARBITRARY, source.valid, window)


def in_unit(volume: Volume, port: Port) -> Volume:
    """In the unit that the card declares; a window in another unit means nothing any more."""
    if port.unit in ("as-input", volume.unit):
        return volume
    return Volume(volume.voxels, volume.affine, port.unit, volume.valid)
