"""How fast nets are trained here: patches a second of the default's recipe, on slices of the phantom."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from bench.results import Results
from bench.rounds import Surroundings

if TYPE_CHECKING:
    from trainers.training.pairs import Material

_RECIPE: Final = "ct-denoise"
_LINE_STEPS: Final = 10
_WARM_LINES: Final = 2
_LINES: Final = 6
_SIZE_PX: Final = 512

Precision = Literal["float32", "bfloat16"]
PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "bfloat16")


def run(surroundings: Surroundings, results: Results) -> None:
    """Rounds of all precisions that are computed here, interleaved; the first steps of each are not counted. Facts."""
    # here, so that torch lies in the memory of no other part
    from trainers.training.players import has_bfloat16

    computed = [precision for precision in PRECISIONS if precision != "bfloat16" or has_bfloat16()]
    found: dict[Precision, list[float]] = {precision: [] for precision in computed}
    for _ in range(surroundings.rounds):
        for precision, rates in found.items():
            rates.append(patches_per_s(precision))
    for precision, rates in found.items():
        results.facts[f"training {_RECIPE}, {precision}: patches of 96 px a second"] = statistics.median(rates)


def patches_per_s(precision: Precision, lines: int = _LINES, size_px: int = _SIZE_PX) -> float:
    """Patches that the default's first stage is trained on in a second."""
    # here, so that torch lies in the memory of no other part
    from trainers.recipes.reading import read_recipe
    from trainers.training.distributed import World
    from trainers.training.shop import Shop
    from trainers.training.stages import train_recipe

    read = read_recipe(_RECIPE)
    first, marks = read.recipe.stages[0], list[float]()
    stage = replace(
        first, steps=_LINE_STEPS * (_WARM_LINES + lines), precision=precision, log_steps=_LINE_STEPS, sample_steps=0,
        checkpoint_steps=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="trainers-") as folder:
        shop = Shop(Path(folder), World(), lambda line: marks.append(time.perf_counter()))
        train_recipe(replace(read, recipe=replace(read.recipe, stages=(stage,))), _material(size_px), shop)
    counted = marks[_WARM_LINES - 1 : _WARM_LINES + lines]
    return lines * _LINE_STEPS * stage.patches.batch / (counted[-1] - counted[0])


def _material(size_px: int) -> Material:
    """A few slices of the phantom, with white noise: how long a step takes does not depend on its colour."""
    from dicomnode.core.phantom import phantom_study, stored_hu
    from trainers.data.patches import Noisy
    from trainers.data.series import Credit, Series
    from trainers.training.pairs import Material

    rng = np.random.default_rng(1)
    study = phantom_study(rng, 4, size_px, noise_hu=10.0)
    pixel_mm, hu = float(study[0].PixelSpacing[0]), stored_hu(study)
    series = Series("phantom", "phantom", hu, (2.0, pixel_mm, pixel_mm), None, Credit("Phantom of dicomnode", "CC0"))
    noise = rng.normal(0, 15, (2, *hu.shape)).astype(np.float16)
    return Material((Noisy(series, noise, np.full(len(hu), 10, np.float32), np.ones(len(hu), np.float32)),))
