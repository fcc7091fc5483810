"""Less dose for an image that was taken: only the noise is reconstructed, and added (Yu et al., JCAT 36:477, 2012).

The rays of a parallel beam get noise whose variance grows with the attenuation along them (exp of the line integral);
their filtered back projection is the noise of the image, streaks included. It is scaled so that at half the dose as
much variance is added as the slice has already.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import quality
from engines.quality import Pixels
from engines.volume import HU, Volume

_VIEWS: Final = 240
_WATER_PER_MM: Final = 0.019
_CUT_OFF: Final = 0.85  # of the Hann window, as a share of the highest frequency
_MOST_ATTENUATION: Final = 8.0


def unit_noise(volume: Volume, seed: int) -> NDArray[np.float32]:
    """The noise to be added at half the dose, in HU: float32 (slices, rows, columns)."""
    draw = np.random.default_rng(seed)
    return np.stack([_slice_noise(volume, index, draw) for index in range(len(volume.voxels))])


def at_dose(volume: Volume, noise: NDArray[np.float32], dose: float) -> Volume:
    """The volume as it would have come at this share of its dose; stored values are whole numbers from -1024 on."""
    if dose >= 1.0:
        return volume
    low = np.float32(min(float(volume.voxels.min()), -1024.0))
    noisy = np.maximum(np.rint(volume.voxels + np.float32(np.sqrt((1.0 - dose) / dose)) * noise), low)
    return volume.with_voxels(noisy if volume.valid is None else np.where(volume.valid, noisy, volume.voxels))


def _slice_noise(volume: Volume, index: int, draw: np.random.Generator) -> Pixels:
    pixels, measured = volume.voxels[index], quality.measured_places(volume, index)
    flat = quality.flat_places(pixels, measured, HU)
    field = _back_projected(_ray_noise(pixels, volume.pixel_spacing_mm[0], draw), pixels.shape[0])
    spread = quality.noise(field, flat)
    return field * np.float32(quality.noise(pixels, flat) / spread) if spread > 0 else np.zeros_like(field)


def _ray_noise(pixels: Pixels, spacing_mm: float, draw: np.random.Generator) -> NDArray[np.float32]:
    """White noise of the rays, (views, rays), by their attenuation."""
    coarse = cv2.resize(pixels, (128, 128), interpolation=cv2.INTER_AREA)
    water = np.clip(coarse / 1000.0 + 1.0, 0.0, 4.0)
    step_mm = spacing_mm * pixels.shape[0] / 128
    lines = np.stack([_turned(water, -angle).sum(axis=0) for angle in _angles()]) * step_mm * _WATER_PER_MM
    spread = np.exp(np.minimum(lines, _MOST_ATTENUATION) / 2).astype(np.float32)
    rays = cv2.resize(spread, (pixels.shape[0], _VIEWS), interpolation=cv2.INTER_LINEAR)
    white: NDArray[np.float32] = rays * draw.standard_normal(rays.shape).astype(np.float32)
    return white


def _back_projected(rays: NDArray[np.float32], size: int) -> Pixels:
    frequency = np.fft.rfftfreq(2 * size)
    window = np.where(frequency < _CUT_OFF / 2, 0.5 + 0.5 * np.cos(2 * np.pi * frequency / _CUT_OFF), 0.0)
    filtered = np.fft.irfft(np.fft.rfft(rays, 2 * size) * frequency * window, axis=1)[:, :size].astype(np.float32)
    image = np.zeros((size, size), np.float32)
    for view, angle in zip(filtered, _angles(), strict=True):
        image += _turned(np.ascontiguousarray(np.broadcast_to(view, (size, size))), angle)
    return image


def _angles() -> NDArray[np.float64]:
    return np.arange(_VIEWS) * (180.0 / _VIEWS)


def _turned(pixels: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    middle = (pixels.shape[0] - 1) / 2
    turned: NDArray[np.float32] = cv2.warpAffine(
        pixels, cv2.getRotationMatrix2D((middle, middle), degrees, 1.0), pixels.shape, borderMode=cv2.BORDER_REPLICATE
    )
    return turned
