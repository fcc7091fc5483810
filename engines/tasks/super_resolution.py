"""super-resolution: the same slices on a grid of more rows and columns.

The mean over the pixels that one pixel of the source became is that pixel again (back-projection; Irani & Peleg, 1991):
whatever detail a network adds, it can shift no value that was measured. Of padding only its nearest measured value
enters: else its edge would ring in the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.base import Value
from engines.card import Port
from engines.padding import filled_slices
from engines.tasks.base import Computed
from engines.tasks.image import in_unit, presented
from engines.volume import Volume

Pixels = NDArray[np.float32]
Scalar = TypeVar("Scalar", bound=np.generic)

_SMOOTH_STEPS: Final = 3


def values(computed: Computed) -> Mapping[str, Value]:
    """The card's outputs, each a volume on the finer grid."""
    finer = finer_grid(computed.source, computed.factor)
    return {name: _image(computed, name, port, finer) for name, port in computed.card.outputs.items()}


def finer_grid(source: Volume, factor: int) -> Volume:
    """The source with each pixel repeated: `factor` x `factor` pixels that cover the same place."""
    affine = source.affine.copy()
    affine[:3, :2] /= factor
    affine[:3, 3] -= (factor - 1) / 2 * (affine[:3, 0] + affine[:3, 1])
    valid = None if source.valid is None else _repeated(source.valid, factor)
    return Volume(_repeated(source.voxels, factor), affine, source.unit, valid, source.window)


def consistent(fine: Pixels, source: Pixels) -> Pixels:
    """`fine`, a slice of a whole number of times the rows and columns of `source`, changed so that its means are it.

    What is missing is added smoothly first, so that the last step, which is exact, makes no visible blocks.
    """
    for _ in range(_SMOOTH_STEPS):
        fine = fine + _resized(source - _means(fine, source), fine, cv2.INTER_LINEAR)
    return fine + _resized(source - _means(fine, source), fine, cv2.INTER_NEAREST)


def _image(computed: Computed, name: str, port: Port, finer: Volume) -> Volume:
    image = np.empty(finer.shape, dtype=np.float32)
    computed.pasted(image, lambda piece: piece.image(name))
    if port.presentation:
        return presented(image, finer)
    if port.unit in ("as-input", finer.unit):
        for place, pixels in enumerate(filled_slices(computed.source, range(len(image)))):
            image[place] = consistent(image[place], pixels)
        if finer.valid is not None:
            np.copyto(image, finer.voxels, where=~finer.valid)
    return in_unit(finer.with_voxels(image), port)


def _repeated(values: NDArray[Scalar], factor: int) -> NDArray[Scalar]:
    return values.repeat(factor, axis=1).repeat(factor, axis=2)


def _means(fine: Pixels, like: Pixels) -> Pixels:
    """Of the pixels that lie in each pixel of `like`."""
    return _resized(fine, like, cv2.INTER_AREA)


def _resized(pixels: Pixels, like: Pixels, interpolation: int) -> Pixels:
    rows, columns = like.shape
    return np.asarray(cv2.resize(pixels, (columns, rows), interpolation=interpolation), dtype=np.float32)
