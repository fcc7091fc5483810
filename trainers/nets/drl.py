"""DRL: dilated residual learning (Gholizadeh-Ansari 2019), as the cascade's authors coded it (s2ataei/research).

It is the cascade's second net, and with a discriminator beside it the generator of its first.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from trainers.nets.base import Net, in_full

_DILATIONS = (2, 3, 4, 3, 2)
_SOBEL = ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0))
_DIAGONAL = ((0.0, 1.0, 2.0), (-1.0, 0.0, 1.0), (-2.0, -1.0, 0.0))


class DRL(Net):
    """Eight convolutions, five of them dilated, with two channel-wise shortcuts.

    channels   of all inner layers
    add_input  the input is added before the last convolution, as in the authors' code. Off where the net is to predict
               a small difference, which would have to begin with taking the input away again
    edges      fixed Sobel filters in four directions beside the input, as the journal's DRL has and the cascade's
               figure shows; the authors' code does not
    """

    def __init__(self, channels: int = 64, add_input: bool = True, edges: bool = False) -> None:
        super().__init__()
        self.halo_px = 2 + sum(_DILATIONS) + 1 + 1 + (1 if edges else 0)
        self.add_input = add_input
        self.register_buffer("sobel", _directions() if edges else None, persistent=False)
        self.first = nn.Sequential(nn.Conv2d(5 if edges else 1, channels, 5, padding=2), nn.ReLU(inplace=True))
        widths = (channels, channels, channels, channels, 2 * channels)
        self.dilated = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, channels, 3, padding=step, dilation=step),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            )
            for width, step in zip(widths, _DILATIONS, strict=True)
        )
        self.joined = nn.Conv2d(2 * channels, 1, 3, padding=1)
        self.last = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        seen = image
        if self.sobel is not None:
            seen = torch.cat((image, nn.functional.conv2d(image, cast(torch.Tensor, self.sobel), padding=1)), dim=1)
        first = self.first(seen)
        second = inner = self.dilated[0](first)
        for layer in list(self.dilated)[1:4]:
            inner = layer(inner)
        inner = self.dilated[4](torch.cat((inner, second), dim=1))
        joined = self.joined(torch.cat((inner, first), dim=1))
        return in_full(self.last, joined + image if self.add_input else joined)


def _directions() -> torch.Tensor:
    """Four kernels (4, 1, 3, 3): edges across rows, columns and both diagonals."""
    across, slanting = torch.tensor(_SOBEL), torch.tensor(_DIAGONAL)
    return torch.stack((across, across.T, slanting, slanting.flip(1)))[:, None]
