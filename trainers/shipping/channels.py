"""A slice and all that a recipe makes of it, as channels of one image: what the segmentation of a lesion is given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from engines.prompt import Mark, region_of_interest
from trainers.nets.base import Net
from trainers.recipes.recipe import Recipe
from trainers.training.pairs import Link

Pixels = NDArray[np.float32]


def channels(recipe: Recipe, nets: Mapping[str, Net], slice_hu: Pixels, mark: Mark | None = None) -> Pixels:
    """(channels, rows, columns) in HU: the slice, then each output that the recipe ships, in its order.

    mark  a lesion: only the square of twice its long axis around it is computed, and returned
    """
    rows, columns = slice_hu.shape
    if mark is not None:
        slice_hu = slice_hu[region_of_interest(mark, rows, columns, _multiple_px(recipe, nets)).window]
    image = torch.from_numpy(np.ascontiguousarray(slice_hu, dtype=np.float32))[None, None]
    made = [image]
    for entry in recipe.shipping.stages:
        image = Link(nets[entry.stage].eval(), recipe.stage(entry.stage), recipe.scale_hu)(image)
        made += [image] if entry.is_output else []
    return torch.cat(made, dim=1)[0].numpy()


def _multiple_px(recipe: Recipe, nets: Mapping[str, Net]) -> int:
    return int(np.lcm.reduce([nets[entry.stage].multiple_px for entry in recipe.shipping.stages]))
