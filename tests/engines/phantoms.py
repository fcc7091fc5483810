"""Small made-up slices for the engines' tests: known tissue, known noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.volume import HU, Volume

Pixels = NDArray[np.float32]


def disc(size: int, radius: float) -> NDArray[np.bool_]:
    """A centred disc in a square."""
    down, across = np.indices((size, size)) - (size - 1) / 2
    inside: NDArray[np.bool_] = np.hypot(down, across) <= radius
    return inside


def body(size: int = 128) -> Pixels:
    """Air around fat around soft tissue around bone, in HU, with edges as a scanner makes them (Gaussian of 1 px)."""
    pixels = np.full((size, size), -1000.0)
    for share, value in ((0.46, -100.0), (0.38, 40.0), (0.12, 800.0)):
        pixels[disc(size, share * size)] = value
    return ndimage.gaussian_filter(pixels, 1.0).astype(np.float32)


def noisy(pixels: Pixels, sigma: float, seed: int = 0, grain_px: float = 0.0) -> Pixels:
    """With Gaussian noise of this standard deviation, white or smoothed to a grain, rounded as stored HU are."""
    noise = np.random.default_rng(seed).normal(size=pixels.shape)
    if grain_px:
        noise = ndimage.gaussian_filter(noise, grain_px)
    return np.rint(pixels + sigma * noise / noise.std()).astype(np.float32)


def volume(*slices: Pixels, unit: str = HU, valid: NDArray[np.bool_] | None = None) -> Volume:
    """Slices as a volume of 0.7 x 0.7 x 1.25 mm voxels."""
    return Volume(np.stack(slices).astype(np.float32), np.diag([0.7, 0.7, 1.25, 1.0]), unit, valid)
