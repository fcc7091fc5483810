"""segment: a label for each voxel of the source's grid.

A network gives a score for the background and for each of the card's labels, of which the highest counts; or, with one
label, its probability alone, which counts from the setting `threshold` on (0.5 where the card has none). Padding, and
what lies away from a person's marks, is background.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.base import Value
from engines.card import Port
from engines.errors import EngineInputError
from engines.tasks.base import Computed, check_numbers
from engines.volume import Mask

THRESHOLD: Final = "threshold"
_EVEN: Final = 0.5


def values(computed: Computed) -> Mapping[str, Value]:
    """The card's outputs, each a mask on the source's grid."""
    return {name: _mask(computed, name, port) for name, port in computed.card.outputs.items()}


def labelled(scores: NDArray[np.float32], count: int, threshold: float = _EVEN) -> NDArray[np.uint8]:
    """Labels (slices, rows, columns) from scores (slices, channels, rows, columns) for `count` labels.

    Raises EngineInputError where the channels are neither the labels and the background, nor one for one label, and
    RuntimeFailedError on scores that are no numbers.
    """
    check_numbers(scores, "scores")
    channels = scores.shape[1]
    if channels == count == 1:
        return np.asarray(scores[:, 0] >= threshold, dtype=np.uint8)
    if channels != count + 1:
        raise EngineInputError(
            f"the network gives {channels} channels for {count} labels", "it must give one more: the background first"
        )
    labels, best = np.zeros(scores[:, 0].shape, dtype=np.uint8), scores[:, 0].copy()
    for label in range(1, channels):  # twice as fast as numpy's argmax along an axis that is not the last
        np.copyto(labels, label, where=scores[:, label] > best)
        np.maximum(best, scores[:, label], out=best)
    return labels


def _mask(computed: Computed, name: str, port: Port) -> Mask:
    source = computed.source
    threshold = float(computed.settings.get(THRESHOLD, _EVEN))
    labels = np.zeros(source.shape, dtype=np.uint8)
    computed.pasted(labels, lambda piece: labelled(piece.targets[name], len(port.labels), threshold), beneath=True)
    if source.valid is not None:
        labels[~source.valid] = 0
    return Mask(labels, source.affine, dict(enumerate(port.labels, start=1)))
