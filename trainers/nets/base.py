"""What all networks that become part of a bundle have in common, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


class Net(nn.Module):
    """A fully convolutional network of images.

    halo_px      how far a pixel of the output looks, at most
    multiple_px  what rows and columns must be a multiple of
    inputs       channels that go in
    """

    halo_px: int
    multiple_px: int = 1
    inputs: int = 1


def middle_of(image: torch.Tensor) -> torch.Tensor:
    """The slice itself of (batch, channels, rows, columns), whose other channels are its neighbours."""
    middle = image.shape[1] // 2
    return image[:, middle : middle + 1]


class ImageOf(Net):
    """A net that gives a residual as one that gives the image: its middle channel, less the residual."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.halo_px, self.multiple_px, self.inputs = net.halo_px, net.multiple_px, net.inputs

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.net(given)
        return middle_of(given) - residual


def in_full(layer: nn.Conv2d, inner: torch.Tensor) -> torch.Tensor:
    """A layer that makes an image, as exact as its weights whatever autocast says: of -800 HU eight bits leave steps of
    4 HU, which a discriminator would see."""
    kind = "cpu" if inner.is_meta else inner.device.type  # autocast does not know the device of shapes alone
    with torch.autocast(kind, enabled=False):
        made: torch.Tensor = layer(inner.to(layer.weight.dtype))
    return made


@dataclass(frozen=True)
class Cost:
    """What a network weighs and computes: GFLOP are 2 x the multiplications of its convolutions, for one slice."""

    parameters: int
    gflop: float


def cost(net: Net, rows: int = 512, columns: int = 512) -> Cost:
    """Counted on shapes alone, nothing is computed; `net` is moved to the meta device and is of no use afterwards."""
    flop = 0

    def count(module: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        nonlocal flop
        assert isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
        pixels = (made if isinstance(module, nn.Conv2d) else given[0])[0, 0].numel()
        flop += 2 * pixels * module.weight.numel()

    hooks: list[Any] = [
        module.register_forward_hook(count)
        for module in net.modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    parameters = sum(weights.numel() for weights in net.parameters() if weights.requires_grad)
    net.to("meta")(torch.zeros(1, net.inputs, rows, columns, device="meta"))
    for hook in hooks:
        hook.remove()
    return Cost(parameters, flop / 1e9)
