"""Where a recipe is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from trainers.progress import Say
from trainers.training.distributed import World


@dataclass(frozen=True, eq=False)
class Shop:
    """Where a recipe is trained.

    features  what the term vgg compares images by; None: that term is off
    """

    folder: Path
    world: World
    say: Say
    features: nn.Module | None = None
