"""What tells made images from real ones; used in training alone. All give logits, (batch, 1)."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

_SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """Of the cascade's LSGAN: four 4x4 convolutions with stride 2, then one dense layer over all places.

    inputs    channels: 2 where the low-dose patch is seen beside
    patch_px  rows and columns of a patch, a multiple of 16: the dense layer fixes them
    """

    def __init__(self, inputs: int = 2, patch_px: int = 64, channels: int = 64) -> None:
        super().__init__()
        widths = (inputs, channels, 2 * channels, 4 * channels, 8 * channels)
        layers: list[nn.Module] = []
        for at in range(4):
            layers += [nn.Conv2d(widths[at], widths[at + 1], 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
            if at:
                layers.append(nn.BatchNorm2d(widths[at + 1], momentum=0.2))  # 0.8 in the way Keras counts it
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[4] * (patch_px // 16) ** 2, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.layers(image))


class SRDiscriminator(nn.Module):
    """Of SRGAN, and so of both stacked GANs: eight 3x3 convolutions, every second with stride 2, two dense layers.

    The mean over all places stands before the dense layers, so that patches of any size go in: the paper's two nets
    train on 32 and on 128 px.
    """

    def __init__(self, inputs: int = 1, channels: int = 64, dense: int = 1024) -> None:
        super().__init__()
        widths = [channels * factor for factor in (1, 1, 2, 2, 4, 4, 8, 8)]
        layers: list[nn.Module] = []
        for at, (before, after) in enumerate(zip((inputs, *widths[:-1]), widths, strict=True)):
            layers.append(nn.Conv2d(before, after, 3, stride=1 + at % 2, padding=1))
            layers += [nn.BatchNorm2d(after)] if at else []
            layers.append(nn.LeakyReLU(_SLOPE))
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dense = nn.Sequential(nn.Linear(widths[-1], dense), nn.LeakyReLU(_SLOPE), nn.Linear(dense, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.dense(self.layers(image)))
