"""ct-nlm: noise-adaptive non-local means in HU (Buades, Coll & Morel, CVPR 2005; OpenCV's fastNlMeansDenoising).

What makes OpenCV's filter shift HU, and what is done about it here:

- **h too large.** For NORM_L1 `h` is a mean absolute difference of grey levels between patches, of which noise alone
  makes 1.13 sigma. At h = 250 grey levels (17 sigma; patch 7, search 21) a chest slice loses 3.6 HU on the mean at an
  RMSE of 59 HU: vessels and walls are averaged into lung. At h = 1 sigma it loses less than 0.5 HU. So h is at most
  the noise of *this* slice, measured in flat tissue: never a deviation over the whole slice, where edges and padding
  count as noise, nor a constant known from 8-bit images.
- **Padding.** Values such as -3024 below an offset of 1024 wrap around or are clipped onto air, and are then averaged
  into it. So padding is replaced by the nearest measured value before, and restored after.
- Not the cause: OpenCV's 16-bit path sums distances in 32 bits and weights in 64; neither can overflow at 512 x 512,
  and shifting or scaling the grey levels changes nothing but rounding.
- **Regression to the mean**, the filter's own bias: 0.1 to 0.9 HU at h = 1 sigma. What is removed is made high-pass
  (minus its own Gaussian of 3 px), so local means stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import cv2
import numpy as np

from engines import quality
from engines.base import Value, volume_input
from engines.card import EngineCard, Envelope, Limits, Port, Setting, SettingValue
from engines.padding import fill_padding
from engines.quality import Pixels, Places
from engines.volume import HU

_PATCH_PX: Final = 5
_SEARCH_PX: Final = 15
_HIGH_PASS_PX: Final = 3.0
_LEVELS_PER_HU: Final = 8.0
_LEVELS: Final = 65535.0


class CtNlm:
    """Less noise at the same HU; every slice for itself. Padding is returned as it came."""

    card: Final = EngineCard(
        name="ct-nlm",
        version="1.0.0",
        task="image",
        operation="denoise",
        intended_use="Less noise in CT slices for reading beside the original. Research use only.",
        influence="slice",
        inputs={"image": Port(unit=HU)},
        outputs={"image": Port(unit=HU)},
        envelope=Envelope(modalities=("CT",), pixel_spacing_mm=(0.1, 2.0), rows_columns=(64, 4096)),
        limits=Limits(bias_hu=2.0, noise_ratio=(0.03, 0.95), clipped_fraction=0.001),
        settings={
            "strength": Setting(0.6, "width of the filter, as a multiple of the slice's own noise", 0.4, 1.0),
        },
        runtime=f"opencv-{'.'.join(cv2.__version__.split('.')[:2])}/uint16",
        source="Buades, Coll & Morel, A non-local algorithm for image denoising, CVPR 2005",
    )

    def run(self, inputs: Mapping[str, Value], settings: Mapping[str, SettingValue]) -> Mapping[str, Value]:
        """`{"image": Volume in HU}` -> the same grid, denoised; raises EngineInputError on another unit."""
        volume = volume_input(self.card, inputs)
        strength = float(settings["strength"])
        denoised = np.empty(volume.shape, dtype=np.float32)
        for index in range(volume.shape[0]):
            pixels = np.ascontiguousarray(volume.voxels[index])
            denoised[index] = denoise_slice(pixels, quality.measured_places(volume, index), strength)
        return {"image": volume.with_voxels(denoised)}


def denoise_slice(pixels: Pixels, measured: Places, strength: float) -> Pixels:
    """One slice in HU, denoised; values stay within the slice's own range.

    strength  h of the filter as a multiple of the noise that is measured in the slice
    """
    sigma = quality.noise(pixels, quality.flat_places(pixels, measured, HU))
    if sigma == 0.0:
        return pixels
    filled = fill_padding(pixels, measured)
    lowest, highest = float(filled.min()), float(filled.max())
    removed = _removed(filled - np.float32(lowest), strength * sigma)
    removed -= cv2.GaussianBlur(removed, (0, 0), _HIGH_PASS_PX)
    denoised: Pixels = np.where(measured, np.clip(filled - removed, lowest, highest), pixels)
    return denoised


def _removed(pixels: Pixels, h: float) -> Pixels:
    """What non-local means takes away; `pixels` begin at 0, `h` is in their unit.

    The filter works on 16-bit integers: eight levels a HU unless metal needs the range. Taking only the difference
    back to float leaves what the filter does not touch exact.
    """
    scale = np.float32(min(_LEVELS_PER_HU, _LEVELS / max(float(pixels.max()), 1.0)))
    levels = np.rint(pixels * scale).astype(np.uint16)
    filtered = cv2.fastNlMeansDenoising(levels, [float(h * scale)], None, _PATCH_PX, _SEARCH_PX, cv2.NORM_L1)
    removed: Pixels = (levels.astype(np.float32) - filtered.astype(np.float32)) / scale
    return removed
