"""How near an image comes to the full dose, as it is seen in a window of HU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.training.losses import ssim as structural_similarity

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """HU that are shown as grey: `width` of them about `level`. Darker is black, brighter is white."""

    name: str
    level_hu: float
    width_hu: float

    def shown(self, hu: Pixels) -> Pixels:
        """0 to 1 within the window, cut off beyond it."""
        low = self.level_hu - self.width_hu / 2
        shown: Pixels = np.clip((hu - np.float32(low)) / np.float32(self.width_hu), 0.0, 1.0)
        return shown


ABDOMEN: Final = Window("abdomen", 40.0, 400.0)
LUNG: Final = Window("lung", -600.0, 1500.0)
WINDOWS: Final = (ABDOMEN, LUNG)


def psnr_db(full: Pixels, made: Pixels, window: Window) -> float:
    """Peak signal-to-noise ratio over the whole slice; the peak is the window's width. NaN where nothing differs."""
    apart = float(np.square(window.shown(made).astype(np.float64) - window.shown(full)).mean())
    return -10.0 * math.log10(apart) if apart > 0 else math.nan


def ssim(full: Pixels, made: Pixels, window: Window) -> float:
    """Structural similarity (Wang et al., IEEE Trans Image Process 2004; 13:600), mean over the whole slice."""
    images = [torch.from_numpy(window.shown(hu))[None, None] for hu in (made, full)]
    return float(structural_similarity(images[0], images[1]))
