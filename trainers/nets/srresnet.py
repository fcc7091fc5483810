"""The generator of SRGAN (Ledig 2017) without its sub-pixel layers: G1 (9 blocks) and G2 (16) of the stacked GANs."""

from __future__ import annotations

import torch
from torch import nn

from trainers.nets.base import Net, in_full


class SRResNet(Net):
    """`blocks` residual blocks of two 3x3 convolutions, between two of 9x9; rows and columns stay."""

    def __init__(self, blocks: int = 9, channels: int = 64) -> None:
        super().__init__()
        self.halo_px = 4 + 2 * blocks + 1 + 4
        self.first = nn.Sequential(nn.Conv2d(1, channels, 9, padding=4), nn.PReLU(channels))
        self.blocks = nn.ModuleList(_block(channels) for _ in range(blocks))
        self.after = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.last = nn.Conv2d(channels, 1, 9, padding=4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = inner = self.first(image)
        for block in self.blocks:
            inner = inner + block(inner)
        return in_full(self.last, first + self.after(inner))


def _block(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.PReLU(channels),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
    )
