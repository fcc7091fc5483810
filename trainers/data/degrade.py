"""Good images made worse, as the inputs of the stacked GANs are: shrunk, blurred, flattened, grown again, noisy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trainers.data.series import Grey

Patch = NDArray[np.float32]

_GREYS = 255.0


@dataclass(frozen=True)
class Worsening:
    """How much worse; a table of a recipe. Each figure is drawn evenly between its (lowest, highest).

    shrink      down-sampling and, at the end, up-sampling by this factor
    blur_px     standard deviation of a Gaussian, on the coarser grid
    flatten     contrast is divided by this, around the patch's mean
    noise_grey  standard deviation of white noise, in grey levels of 255
    grey_hu     HU that the grey levels 0 and 255 of a photograph stand for
    """

    shrink: tuple[float, float] = (1.0, 1.0)
    blur_px: tuple[float, float] = (0.0, 0.0)
    flatten: tuple[float, float] = (1.0, 1.0)
    noise_grey: tuple[float, float] = (0.0, 0.0)
    grey_hu: tuple[float, float] = (-160.0, 240.0)

    @property
    def grey_level_hu(self) -> float:
        """HU of one grey level."""
        return (self.grey_hu[1] - self.grey_hu[0]) / _GREYS


def worsened(image: Patch, worsening: Worsening, rng: np.random.Generator) -> Patch:
    """A patch (rows, columns) in HU, made worse; the patch itself stays as it is."""
    shrink, blur_px, flatten, noise_grey = (
        float(rng.uniform(*bounds))
        for bounds in (worsening.shrink, worsening.blur_px, worsening.flatten, worsening.noise_grey)
    )
    rows, columns = image.shape
    coarse = image
    if shrink > 1:
        size = (max(round(columns / shrink), 1), max(round(rows / shrink), 1))
        coarse = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.float32)
    if blur_px > 0:
        smooth = cv2.GaussianBlur(coarse, (0, 0), blur_px, borderType=cv2.BORDER_REFLECT_101)
        coarse = np.asarray(smooth, dtype=np.float32)
    mean = coarse.mean()
    flat = mean + (coarse - mean) / np.float32(flatten)
    whole = cv2.resize(flat, (columns, rows), interpolation=cv2.INTER_CUBIC) if shrink > 1 else flat
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(noise_grey * worsening.grey_level_hu)
    return np.asarray(whole + noise, dtype=np.float32)


def cropped(pictures: Sequence[Grey], size_px: int, at: tuple[int, int, int]) -> Patch:
    """A patch of a photograph (grey levels), turned and mirrored at random.

    at  (seed, step, sample): patches of one step come from distinct photographs where there are enough
    """
    order = np.random.default_rng(at[:2]).permutation(len(pictures))
    rng = np.random.default_rng(at)
    picture = pictures[order[at[2] % len(pictures)]]
    top, left = (int(rng.integers(length - size_px + 1)) for length in picture.shape)
    patch = np.rot90(picture[top : top + size_px, left : left + size_px], int(rng.integers(4)))
    return np.ascontiguousarray(patch[:, ::-1] if rng.random() < 0.5 else patch, dtype=np.float32)
