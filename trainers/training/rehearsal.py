"""Whether a recipe's nets fit each other and its patches, seen on shapes alone, before any image is read."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from trainers.errors import RecipeError
from trainers.nets import build, build_discriminator
from trainers.nets.base import Net
from trainers.recipes.recipe import Recipe, StageRecipe
from trainers.training.loop import image_of
from trainers.training.losses import seen

_PATCHES = 2


def rehearse(recipe: Recipe) -> Mapping[str, Net]:
    """The nets of all stages by name, without numbers.

    Raises RecipeError where a stage's nets cannot be built, begin with the weights that they are to begin with, or be
    given what the stage draws.
    """
    nets: dict[str, Net] = {}
    for stage in recipe.stages:
        try:
            nets[stage.name] = _begun(stage, nets)
            _play(stage, recipe, nets)
        except (RuntimeError, ValueError, IndexError, ArithmeticError) as error:
            raise RecipeError(
                f"{stage.name}: its nets and its patches do not go together: {' '.join(str(error).split())[:300]}",
                "see net, patches and adversary of the stage, and the net of the stage that it starts_from",
            ) from None
    return nets


def _begun(stage: StageRecipe, nets: Mapping[str, Net]) -> Net:
    net = build(stage.net.kind, stage.net.arguments).to("meta").eval()
    if stage.starts_from:
        net.load_state_dict(nets[stage.starts_from].state_dict())
    return net


def _play(stage: StageRecipe, recipe: Recipe, nets: Mapping[str, Net]) -> None:
    """One step without numbers: what is drawn goes through the stages before, the net, and the discriminator."""
    channels, size_px = 2 * stage.patches.neighbours + 1 if stage.images == "ct" else 1, stage.patches.size_px
    given = torch.zeros(_PATCHES, channels, size_px, size_px, device="meta")
    for link in (*recipe.before(stage), stage):
        before, given = given, image_of(nets[link.name], given, link.net.predicts == "residual", recipe.scale_hu)
    if given.shape != (_PATCHES, 1, size_px, size_px):
        raise ValueError(f"what is made of {tuple(before.shape)} is {tuple(given.shape)}")
    if stage.adversary is not None:
        critic = build_discriminator(stage.adversary.net, stage.adversary.arguments).to("meta").eval()
        critic(seen(stage.adversary, given, before))
