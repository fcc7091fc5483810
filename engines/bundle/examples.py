"""Inputs that are made up for a card, where nobody gives any: enough to see whether two machines compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from scipy import ndimage

from engines.base import Value
from engines.card import EngineCard, Port
from engines.prompt import Box, Prompt, Recist
from engines.volume import ARBITRARY, HU, Mask, Volume

EXAMPLE_SHAPE: Final = (3, 61, 67)
_ABOVE_ZERO: Final = 1100.0
"""What is added where the unit is not HU: grey values of other images are not negative."""

_SMALLEST: Final = (61, 67)


def example_inputs(card: EngineCard, shape: tuple[int, int, int] = EXAMPLE_SHAPE) -> Mapping[str, Value]:
    """Something for each input of a card: a noisy body with bright spots, padded at its left, and two marks."""
    slices = shape[0]
    marks = (
        Box(0, (20.0, 24.0, 29.0, 31.0)),
        Recist(slices - 1, ((30.0, 30.0), (38.0, 33.0)), ((33.0, 34.0), (35.0, 29.0))),
    )
    return {
        name: Prompt(marks) if port.kind == "prompt" else _example(port, shape, seed)
        for seed, (name, port) in enumerate(card.inputs.items())
    }


def example_shape(card: EngineCard) -> tuple[int, int, int]:
    """(slices, rows, columns) that a card takes, small, and no multiple of what its networks want."""
    low, high = card.envelope.rows_columns
    rows, columns = (min(max(length, low), high) for length in _SMALLEST)
    return max(EXAMPLE_SHAPE[0], card.envelope.minimum_slices), rows, columns


def example_volume(shape: tuple[int, int, int], seed: int = 0) -> Volume:
    """A disc of water with some spots of 1200 HU in air, noise of 15 HU, and three columns of padding."""
    _, rows, columns = shape
    down, across = np.indices((rows, columns), dtype=np.float32)
    inside = np.hypot(down / rows - 0.5, across / columns - 0.5) < 0.45
    pixels = np.where(inside, np.float32(40.0), np.float32(-1000.0))
    for top, left in ((rows // 3, columns // 2), (rows // 2, columns // 3)):
        pixels[_spot(top), _spot(left)] = 1200.0
    noise = np.random.default_rng(seed).normal(0.0, 15.0, shape)
    voxels = np.rint(ndimage.gaussian_filter(pixels, 0.3) + noise).astype(np.float32)
    valid = np.ones(shape, dtype=np.bool_)
    valid[:, :, :3] = False
    voxels[~valid] = -2000.0
    return Volume(voxels, np.diag([0.7, 0.7, 1.25, 1.0]), HU, valid)


def _example(port: Port, shape: tuple[int, int, int], seed: int) -> Volume | Mask:
    volume = example_volume(shape, seed)
    if port.kind == "mask":
        inside = (volume.voxels > 0.0).astype(np.uint8)
        return Mask(inside, volume.affine, dict(enumerate(port.labels, 1)))
    if port.unit in (HU, "as-input"):
        return volume
    return Volume(np.maximum(volume.voxels + np.float32(_ABOVE_ZERO), 0), volume.affine, ARBITRARY, volume.valid)


def _spot(near: int) -> slice:
    """Four pixels that are one place of the detector."""
    first = near // 4 * 4
    return slice(first, first + 4)
