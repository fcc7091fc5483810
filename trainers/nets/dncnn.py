"""DnCNN (Zhang 2017): plain convolutions with batch normalisation that predict the noise. A peer."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from trainers.nets.base import Net


class DnCNN(Net):
    """`layers` 3x3 convolutions in all; it gives the noise: a recipe says predicts = "residual"."""

    def __init__(self, layers: int = 17, channels: int = 64) -> None:
        super().__init__()
        self.halo_px = layers
        inner: list[nn.Module] = []
        for _ in range(layers - 2):
            inner += [
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            *inner,
            nn.Conv2d(channels, 1, 3, padding=1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.layers(image))
