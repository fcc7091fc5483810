"""The default net: plain convolutions at half resolution that know how noisy each place is."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from trainers.nets.base import Net
from trainers.nets.noise_map import BLOCK_PX, NoiseMap

_SHUFFLE = 2
_LEAST = 0.001
"""In net units: 1 HU. Below that nothing is to be taken away."""


class PlainNet(Net):
    """Predicts the noise of a slice: a recipe says predicts = "residual".

    2 x 2 pixels become channels (four times fewer places: made for processors), then `blocks` pairs of convolutions
    with a shortcut each, and back. A map of the noise, measured by fixed filters within the net (`NoiseMap`), is an
    input and scales what is predicted, so that one net holds from full dose to a tenth, and tells the middle of a body
    from its border.

    inputs       channels: 3 where the slices before and after come along; the middle one is denoised
    noise        off: the net is blind, as a comparison
    highpass_px  standard deviation of a Gaussian whose share is taken out of the residual: means of tissue cannot be
                 moved then; 0: nothing is
    strength     the noise is said to be so many times what it is: less is taken away below 1
    """

    def __init__(
        self, channels: int = 48, blocks: int = 4, *, inputs: int = 1, noise: bool = True, highpass_px: float = 0.0,
        strength: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.inputs = inputs
        self.strength = strength
        self.noise = NoiseMap() if noise else None
        self.multiple_px = BLOCK_PX if noise else _SHUFFLE
        pixels = _SHUFFLE**2
        self.first = nn.Conv2d(pixels * inputs + (pixels + 2 if noise else 0), channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for _ in range(blocks)
        )
        self.last = nn.Sequential(nn.ReLU(), nn.Conv2d(channels, pixels, 3, padding=1))
        row = _gaussian(highpass_px / _SHUFFLE)
        self.blur_reach = row.shape[-1] // 2
        self.register_buffer("row", row, persistent=False)
        self.register_buffer("column", row.transpose(2, 3).contiguous(), persistent=False)
        reach = _SHUFFLE * (2 * blocks + 2 + self.blur_reach) + 1
        self.halo_px = reach + (NoiseMap.reach_px if noise else 0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        seen = functional.pixel_unshuffle(image, _SHUFFLE)
        if self.noise is None:
            return functional.pixel_shuffle(self._highpassed(self._body(seen)), _SHUFFLE)
        middle = _SHUFFLE**2 * (self.inputs // 2)
        with torch.no_grad():
            level, fine, details = self.noise(seen[:, middle : middle + _SHUFFLE**2])
            level = level * self.strength + _LEAST
            relative = details / level
            told = torch.cat((relative / (1 + 0.25 * relative.abs()), 0.5 * torch.log(level) + 2, fine), dim=1)
        predicted = self._body(torch.cat((seen, told), dim=1)) * level
        return functional.pixel_shuffle(self._highpassed(predicted), _SHUFFLE)

    def _body(self, seen: torch.Tensor) -> torch.Tensor:
        inner = self.first(seen)
        for block in self.blocks:
            inner = inner + block(inner)
        return cast(torch.Tensor, self.last(inner))

    def _highpassed(self, residual: torch.Tensor) -> torch.Tensor:
        """Without its local mean, which is the same for the 2 x 2 pixels of a place."""
        if not self.blur_reach:
            return residual
        mean = functional.pad(residual.mean(dim=1, keepdim=True), (self.blur_reach,) * 4, mode="replicate")
        across = functional.conv2d(mean, cast(torch.Tensor, self.row))
        return residual - functional.conv2d(across, cast(torch.Tensor, self.column))


def _gaussian(sigma: float) -> torch.Tensor:
    """A row, (1, 1, 1, taps), that reaches three standard deviations; one tap where it is 0."""
    reach = math.ceil(3 * sigma)
    if not reach:
        return torch.ones(1, 1, 1, 1)
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    row = torch.exp(-0.5 * (places / sigma) ** 2)
    return (row / row.sum())[None, None, None]
