"""How noisy each place of a slice is, by fixed filters: nothing is trained, so nothing can be trained wrongly.

The noise of a body slice is not the same everywhere: it is highest behind the thickest path. A net that is to take away
noise of every dose must know it, place by place, from the slice alone; a bundle gives its networks nothing else.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn import functional

BLOCK_PX: Final = 8
_HALVED: Final = BLOCK_PX // 2
_MEAN_TO_SD: Final = 1.2533
"""Of Gaussian noise: its standard deviation for a mean absolute value of 1."""
_COARSE_KEPT: Final = 0.891
"""What a white band keeps of its standard deviation when its binomial blur is taken away."""
_CAP: Final = 1.8
"""Times the noise: what is larger is structure."""
_TOO_LOW: Final = 1.07
"""What these means find too little of white noise, for its magnitude scatters from block to block."""
_NONE: Final = 0.001
"""In net units, 1 HU: what bounds the weight of blocks without noise."""
_AIR: Final = (-0.96, 0.03)
"""Lowest value of a block from which on it counts, and over how much it comes to count in full. Air outside the patient
has less noise than the patient, is often cut off at the lowest stored value, and padding has none."""
_LEAST_WEIGHT: Final = 1e-10
_FAR, _NEAR = 7, 6
"""Blocks on each side: of the first look at what is noise and what is structure, and of the map."""


class NoiseMap(nn.Module):
    """Standard deviation of the noise around each place, and the share of it that is fine.

    Two bands are looked at: the details of 2 x 2 pixels, and what a blur takes away from their mean. In each the mean
    magnitude of blocks of 8 px is averaged by a power far below 0, so that the quiet ones count and those with
    structure hardly do; magnitudes above that noise are cut off, and the rest is averaged in the same way once more.
    """

    reach_px: Final = BLOCK_PX * (_FAR + _NEAR + 3)

    def forward(self, unshuffled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(level, fine share, details) of an image whose 2 x 2 pixels are its channels, (batch, 4, rows, columns):
        level and share (batch, 1, ...), details (batch, 4, ...): the image without its local mean."""
        mean = unshuffled.mean(dim=1, keepdim=True)
        blurred = _blurred(mean)
        fine = (unshuffled - mean).abs().mean(dim=1, keepdim=True)
        coarse = (mean - blurred).abs() / _COARSE_KEPT
        noise = _TOO_LOW * _MEAN_TO_SD * _grown(_noise(torch.cat((fine, coarse), dim=1), _weights(blurred)))
        squares = noise.square()
        level = squares.sum(dim=1, keepdim=True).sqrt()
        return level, noise[:, :1] / (level + _NONE), unshuffled - blurred


def _weights(blurred: torch.Tensor) -> torch.Tensor:
    """How much each block counts: next to nothing where a part of it is air, or was never measured."""
    lowest = -functional.max_pool2d(-blurred, _HALVED)
    return ((lowest - _AIR[0]) / _AIR[1]).clamp(_LEAST_WEIGHT, 1.0)


def _noise(magnitudes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean magnitude of what is no structure, (batch, bands, block rows, block columns)."""
    blocks = functional.avg_pool2d(magnitudes, _HALVED)
    first = _quiet_mean(blocks, weights, _FAR)
    cap = _CAP * functional.interpolate(first, scale_factor=float(_HALVED), mode="nearest")
    return _quiet_mean(functional.avg_pool2d(torch.minimum(magnitudes, cap), _HALVED), weights, _NEAR)


def _quiet_mean(blocks: torch.Tensor, weights: torch.Tensor, reach: int) -> torch.Tensor:
    """Weighted mean of the power -4 over `reach` blocks on each side."""
    inverse = (blocks + _NONE).reciprocal().square().square()
    mean = (_summed(weights, reach) / _summed(weights * inverse, reach)).sqrt().sqrt()
    return (mean - _NONE).clamp_min(0.0)


def _summed(values: torch.Tensor, reach: int) -> torch.Tensor:
    """Mean over a square; beyond the border nothing counts, in both of what is divided."""
    return functional.avg_pool2d(values, 2 * reach + 1, stride=1, padding=reach)


def _grown(blocks: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(blocks, scale_factor=float(_HALVED), mode="bilinear", align_corners=False)


def _blurred(mean: torch.Tensor) -> torch.Tensor:
    """A binomial of 5 x 5, as four means over 2 x 2: not by a convolution, which autocast would do in 8 bits."""
    blurred = functional.pad(mean, (2, 2, 2, 2), mode="replicate")
    for _ in range(4):
        blurred = functional.avg_pool2d(blurred, 2, stride=1)
    return blurred
