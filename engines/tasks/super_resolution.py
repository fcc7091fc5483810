"""super-resolution: the same slices on a grid of more rows and columns.

The mean over the pixels that one pixel of the source became is that pixel again (back-projection; Irani & Peleg, 1991):
whatever detail a network adds, it can shift no value that was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.base import Value
from engines.card import Port
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


def consistent(fine: Pixels, source: Pixels, factor: int) -> Pixels:
    """`fine` (slices, rows, columns), changed so that its means over `factor` x `factor` pixels are the source.

    What is missing is added smoothly first, so that the last step, which is exact, makes no visible blocks.
    """
    for _ in range(_SMOOTH_STEPS):
        fine = fine + _smoothly(source - _means(fine, factor), factor)
    return fine + _repeated(source - _means(fine, factor), factor)


def _image(computed: Computed, name: str, port: Port, finer: Volume) -> Volume:
    image = np.empty(finer.shape, dtype=np.float32)
    computed.pasted(image, lambda piece: piece.targets[name][:, 0])
    if port.presentation:
        return presented(image, finer)
    if port.unit in ("as-input", finer.unit):
        image = consistent(image, computed.source.voxels, computed.factor)
        if finer.valid is not None:
            np.copyto(image, finer.voxels, where=~finer.valid)
    return in_unit(finer.with_voxels(image), port)


def _repeated(values: NDArray[Scalar], factor: int) -> NDArray[Scalar]:
    return values.repeat(factor, axis=1).repeat(factor, axis=2)


def _means(fine: Pixels, factor: int) -> Pixels:
    slices, rows, columns = fine.shape
    blocks = fine.reshape(slices, rows // factor, factor, columns // factor, factor)
    means: Pixels = blocks.mean(axis=(2, 4), dtype=np.float64).astype(np.float32)
    return means


def _smoothly(coarse: Pixels, factor: int) -> Pixels:
    size = (coarse.shape[2] * factor, coarse.shape[1] * factor)
    return np.stack([cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR) for pixels in coarse])
