"""What goes into a net and what it is to make of it, by number: patches of CT or of photographs, made worse, and led
through the stages before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from trainers.data.degrade import Patch, cropped, worsened
from trainers.data.patches import Drawer, Noisy
from trainers.data.series import Picture
from trainers.errors import SourceError
from trainers.nets.base import Net
from trainers.recipes.recipe import StageRecipe
from trainers.training.distributed import World
from trainers.training.loop import Pair, image_of


@dataclass(frozen=True, eq=False)
class Material:
    """What a recipe is trained on: CT of patients to train and to validate on, and photographs."""

    train: tuple[Noisy, ...]
    validation: tuple[Noisy, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, eq=False)
class Link:
    """A trained stage whose image goes into the next."""

    net: Net
    stage: StageRecipe
    scale_hu: float

    @torch.no_grad()
    def __call__(self, image_hu: torch.Tensor) -> torch.Tensor:
        """What it makes of slices in HU, on the device of its weights; back on the device of the slices."""
        device = next(self.net.parameters()).device
        made = image_of(self.net, image_hu.to(device), self.stage.net.predicts == "residual", self.scale_hu)
        return made.to(image_hu.device)


Chain = tuple[Link, ...]


@dataclass(frozen=True, eq=False)
class Pairing:
    """What a stage's patches are drawn from, and the stages that they go through first."""

    stage: StageRecipe
    material: Material
    chain: Chain = ()


def pairs_of(pairings: Sequence[Pairing], world: World, seed: int) -> Callable[[int], Pair]:
    """Pairs by number: of several pairings each draws its share of the batch, on every process alike.

    Raises SourceError where there is nothing to draw from.
    """
    draws = [_draw_of(pairing, seed) for pairing in pairings]
    count = len(draws)

    def draw(number: int) -> Pair:
        own = world.part(pairings[0].stage.patches.batch)
        parts = []
        for share, one in enumerate(draws):
            samples = range(own.start + (share - own.start) % count, own.stop, count)
            parts.extend([one(number, samples)] if samples else [])
        return _joined(parts)

    return draw


def _draw_of(pairing: Pairing, seed: int) -> Callable[[int, range], Pair]:
    good = _photographs(pairing, seed) if pairing.stage.images == "natural" else _slices(pairing, seed)

    def draw(number: int, samples: range) -> Pair:
        pair = good(number, samples)
        given = pair.given
        for link in pairing.chain:
            given = link(given)
        return replace(pair, given=given)

    return draw


def _slices(pairing: Pairing, seed: int) -> Callable[[int, range], Pair]:
    """CT: the full dose is wanted, and what is given is the low one; made worse before the noise is added, if so."""
    drawer = Drawer(pairing.material.train, pairing.stage.patches, seed)
    worsening = pairing.stage.worsening

    def draw(number: int, samples: range) -> Pair:
        batch = drawer.batch(number, samples)
        given = batch.low
        if worsening is not None:
            worse = [
                worsened(full[0].numpy(), worsening, _chance(seed, number, sample))
                for full, sample in zip(batch.full, samples, strict=True)
            ]
            given = torch.from_numpy(np.stack(worse)[:, None]) + (batch.low - batch.full)
        return Pair(given, batch.full, batch.noise_hu, batch.planted)

    return draw


def _photographs(pairing: Pairing, seed: int) -> Callable[[int, range], Pair]:
    """Photographs in place of slices, their grey levels as HU."""
    stage, worsening = pairing.stage, pairing.stage.worsening
    size_px = stage.patches.size_px
    pictures = tuple(picture.grey for picture in pairing.material.pictures if min(picture.grey.shape) >= size_px)
    if not pictures or worsening is None:
        raise SourceError(f"{stage.name} has no photographs of {size_px} px", "name a natural source in the recipe")
    low_hu, level_hu = worsening.grey_hu[0], worsening.grey_level_hu

    def draw(number: int, samples: range) -> Pair:
        good = [cropped(pictures, size_px, (seed, number, sample)) * level_hu + low_hu for sample in samples]
        worse = [
            worsened(patch, worsening, _chance(seed, number, sample))
            for patch, sample in zip(good, samples, strict=True)
        ]
        return Pair(_images(worse), _images(good))

    return draw


def _chance(*at: int) -> np.random.Generator:
    """What worsens a patch is drawn apart from where it lies: of the same numbers one would follow from the other."""
    return np.random.default_rng((*at, 1))


def _images(patches: list[Patch]) -> torch.Tensor:
    return torch.from_numpy(np.stack(patches).astype(np.float32)[:, None])


def _joined(parts: Sequence[Pair]) -> Pair:
    if len(parts) == 1:
        return parts[0]
    return Pair(
        torch.cat([part.given for part in parts]),
        torch.cat([part.wanted for part in parts]),
        _all_or_none([part.noise_hu for part in parts]),
        _all_or_none([part.planted for part in parts]),
    )


def _all_or_none(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if len(known) == len(parts) else None
