"""Slices of CT taken into training in growing numbers, chosen by figures where the stacked GANs' paper used eyes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from engines.quality import BANDS_HU, bias_by_band, edge_response
from engines.volume import HU, Volume
from trainers.data.degrade import Worsening, worsened
from trainers.data.patches import Noisy
from trainers.data.series import LOWEST_HU
from trainers.progress import Count, Pace
from trainers.recipes.recipe import Growth, StageRecipe
from trainers.run.rounds import Place, chosen_in, read_chosen, require_growth
from trainers.training.pairs import Chain, Material
from trainers.training.shop import Shop
from trainers.whole import write_json

_WINDOW_HU: Final = (-160.0, 240.0)
_IN_WINDOW: Final = frozenset(
    band for band, (low, high) in BANDS_HU.items() if _WINDOW_HU[0] <= low and high <= _WINDOW_HU[1]
)
"""Tissues that a net of photographs has seen the like of. Lung and bone it learns in the rounds; before, it may
move them by 100 HU."""

Pixels = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Pool:
    """The slices of one round, counted from 1."""

    number: int
    slices: tuple[Noisy, ...]


def grown_pool(
    stage: StageRecipe, material: Material, shop: Shop, chain: Callable[[], Chain], seed: int
) -> Iterator[Pool]:
    """The pools of a stage's rounds, each with the slices of those before it.

    chain  the stages up to this one, with the net that the last round left: asked for anew in each round
    seed   of the order in which slices are looked at
    Which slices were chosen lies in chosen.json of the round's folder, so that a run goes on with the same.
    Raises TrainerError where the first round finds none: then nothing is trained on CT.
    """
    growth = stage.growth
    assert growth is not None
    chosen: list[Place] = []
    for number in range(1, growth.rounds + 1):
        path = chosen_in(shop.folder / stage.name, number)
        if shop.world.is_first and not path.exists():
            places = _candidates(growth, material, chosen, seed)
            count = Count(f"{stage.name}: round {number}", Pace(len(places), 0, of="slice"), shop.say)
            write_json(path, _chosen(stage, material, chain(), _counted(places, count), seed))
        shop.world.wait()
        found = read_chosen(path)
        shop.say(f"{stage.name}: round {number} takes in {len(found)} slices beside {len(chosen)}")
        require_growth(stage.name, shop.folder / stage.name)
        if not found:
            return
        chosen += found
        yield Pool(number, tuple(one_slice(material.train[series], at) for series, at in chosen))


def _candidates(growth: Growth, material: Material, known: list[Place], seed: int) -> list[Place]:
    """Places of the slices that a round looks at: not of those in use."""
    places = [(series, at) for series, noisy in enumerate(material.train) for at in range(noisy.series.slices)]
    order = np.random.default_rng((seed, len(known))).permutation(len(places))
    in_use = set(known)
    return [places[at] for at in order if places[at] not in in_use][: growth.candidates]


def _counted(places: list[Place], count: Count) -> Iterator[Place]:
    for place in places:
        yield place
        count.another()


def _chosen(stage: StageRecipe, material: Material, chain: Chain, places: Iterable[Place], seed: int) -> list[Place]:
    """Those of the places whose slices the net made better, as many as a round takes in."""
    growth = stage.growth
    assert growth is not None
    found: list[Place] = []
    for place in places:
        noisy = one_slice(material.train[place[0]], place[1])
        if len(found) < growth.most and is_better(stage, chain, noisy, (seed, *place)):
            found.append(place)
    return found


def is_better(stage: StageRecipe, chain: Chain, noisy: Noisy, chance: tuple[int, ...]) -> bool:
    """Whether a chain makes a slice, that is at lower dose and made worse as the stage says, better.

    chance  what it is made worse by is drawn from: of each slice something else
    """
    growth = stage.growth
    assert growth is not None
    full = noisy.series.hu[0].astype(np.float32)
    added = math.sqrt((1 - growth.dose) / growth.dose) * noisy.noise[0, 0].astype(np.float32)
    worse = full if stage.worsening is None else _worsened(full, stage.worsening, stage.patches.size_px, chance)
    given = torch.from_numpy(np.maximum(worse + added, np.float32(LOWEST_HU)))[None, None]
    made = given
    for link in chain:
        made = link(made)
    return is_improved(full, given[0, 0].numpy(), made[0, 0].numpy(), growth)


def _worsened(full: Pixels, worsening: Worsening, size_px: int, chance: tuple[int, ...]) -> Pixels:
    """Patch by patch, as in training: contrast is flattened around each one's own mean. All of a slice alike."""
    worse = np.empty_like(full)
    for top, left in product(*(_starts(length, size_px) for length in full.shape)):
        patch = slice(top, top + size_px), slice(left, left + size_px)
        worse[patch] = worsened(full[patch], worsening, np.random.default_rng(chance))
    return worse


def _starts(length: int, size_px: int) -> list[int]:
    """Where patches begin that cover a row or column; the last one ends where it ends."""
    return [*range(0, length - size_px, size_px), max(length - size_px, 0)]


def is_improved(full: Pixels, given: Pixels, made: Pixels, growth: Growth) -> bool:
    """Whether a net brought a slice nearer to the full dose, and took tissue and edges no farther from it than it may:
    farther than they were in what it was given. All of it in the window that the paper's photographs stand for."""
    if gain_db(full, given, made) < growth.gain_db:
        return False
    (bias_before, edges_before), (bias, edges) = (_moved(full, one) for one in (given, made))
    low, high = growth.edge_modulation
    is_sharp = min(low, edges_before) <= edges <= max(high, edges_before)
    return is_sharp and all(abs(hu) <= abs(bias_before[band]) + growth.bias_hu for band, hu in bias.items())


def _moved(full: Pixels, image: Pixels) -> tuple[Mapping[str, float], float]:
    """Bias of the tissues that lie in the window, HU, and modulation left at edges, of an image against full dose."""
    bias = bias_by_band(*(Volume(pixels[None], np.eye(4), HU) for pixels in (full, np.ascontiguousarray(image))))
    wanted, shown = np.clip(full, *_WINDOW_HU), np.clip(image, *_WINDOW_HU)
    edges = edge_response([(wanted, shown, np.ones(full.shape, np.bool_))])
    return {band: hu for band, hu in bias.items() if band in _IN_WINDOW}, 1.0 if edges is None else edges.modulation


def gain_db(full: Pixels, given: Pixels, made: Pixels) -> float:
    """Gain of PSNR in a window of soft tissue."""
    shown = [np.clip(pixels, *_WINDOW_HU) for pixels in (full, given, made)]
    before, after = (float(np.square(pixels - shown[0]).mean()) + 1e-9 for pixels in shown[1:])
    return 10 * math.log10(before / after)


def one_slice(noisy: Noisy, at: int) -> Noisy:
    """A slice as a series of its own; nothing is copied."""
    here = slice(at, at + 1)
    series = replace(noisy.series, name=f"{noisy.series.name}/{at}", hu=noisy.series.hu[here], z_mm=None)
    return Noisy(series, noisy.noise[:, here], noisy.noise_hu[here], noisy.edge_px[here])
