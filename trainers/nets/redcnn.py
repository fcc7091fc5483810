"""RED-CNN (Chen 2017): five convolutions, five transposed ones, and shortcuts between them. A peer."""

from __future__ import annotations

import torch
from torch import nn

from trainers.nets.base import Net

_DEPTH = 5


class REDCNN(Net):
    """5x5 kernels without padding: the encoder narrows by 4 px a layer, the decoder widens again.

    The paper's last ReLU would cut off all that is below water: nets here see HU / 1000, so it is left out.
    """

    def __init__(self, channels: int = 96) -> None:
        super().__init__()
        self.halo_px = 4 * _DEPTH
        widths = (1, *[channels] * _DEPTH)
        self.down = nn.ModuleList(nn.Conv2d(widths[at], channels, 5) for at in range(_DEPTH))
        self.up = nn.ModuleList(nn.ConvTranspose2d(channels, widths[at], 5) for at in reversed(range(_DEPTH)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        kept = [image]
        inner = image
        for layer in self.down:
            inner = torch.relu(layer(inner))
            kept.append(inner)
        shortcuts = {0: kept[4], 2: kept[2], 4: kept[0]}
        for at, layer in enumerate(self.up):
            inner = layer(torch.relu(inner) if at else inner)
            inner = inner + shortcuts[at] if at in shortcuts else inner
        return inner
