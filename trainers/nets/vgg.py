"""The five blocks of VGG-16 or VGG-19 (Simonyan 2014), whose feature maps a loss compares. Never part of a bundle.

Its weights are a file that you bring: those of torchvision, trained on ImageNet, are
https://download.pytorch.org/models/vgg16-397923af.pth and vgg19-dcbb9e9d.pth (BSD-3-Clause; ImageNet's terms hold for
its images). Nothing in the file is executed: it is read as tensors, and each of them must have its name and shape.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, cast

import torch
from torch import nn

from trainers.errors import SourceError

Depth = Literal[16, 19]

_CONVOLUTIONS: Final[Mapping[Depth, tuple[int, ...]]] = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CHANNELS: Final = (64, 128, 256, 512, 512)
_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, in 0 to 1."""


class VGG(nn.Module):
    """Feature maps after the last ReLU of each of the five blocks, of one-channel images of 0 to 1.

    Which layer of a block the papers mean they do not say. Weights have torchvision's names (features.0.weight ...).
    """

    def __init__(self, depth: Depth = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.ends: list[int] = []
        before = 3
        for count, channels in zip(_CONVOLUTIONS[depth], _CHANNELS, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
                before = channels
            self.ends.append(len(layers) - 1)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("sd", torch.tensor(_SD)[:, None, None], persistent=False)
        self.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        mean, sd = cast(torch.Tensor, self.mean), cast(torch.Tensor, self.sd)
        inner = (image.expand(-1, 3, -1, -1) - mean) / sd
        kept = []
        for at, layer in enumerate(self.features):
            inner = layer(inner)
            if at in self.ends:
                kept.append(inner)
        return kept


def load_vgg(path: Path) -> VGG:
    """The net whose weights a file of torchvision has: which of the two, its layers tell. Raises SourceError."""
    weights = _tensors(path)
    depth: Depth = 19 if "features.34.weight" in weights else 16
    net = VGG(depth)
    wanted = net.state_dict()
    for name, tensor in wanted.items():
        found = weights.get(name)
        if found is None or found.shape != tensor.shape or found.dtype != torch.float32:
            form = "missing" if found is None else f"{found.dtype} {tuple(found.shape)}"
            raise SourceError(
                f"{path.name}: {name} is {form}, VGG-{depth} has {tuple(tensor.shape)}", "take torchvision's weights"
            )
    net.load_state_dict({name: weights[name] for name in wanted})
    return net.eval()


def digest_of(path: Path) -> str:
    """SHA-256 of a file of weights, for what a run notes. Raises SourceError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", "give the path of VGG's weights") from None


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", "give the path of VGG's weights") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        raise SourceError(f"{path.name} is no file of tensors", "take torchvision's weights") from None
    named = found.items() if isinstance(found, dict) else ()
    tensors = {name: value for name, value in named if isinstance(value, torch.Tensor)}
    if not tensors:
        raise SourceError(f"{path.name} has no tensors by name", "take torchvision's weights")
    return tensors
