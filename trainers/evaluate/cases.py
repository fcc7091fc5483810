"""Slices to be judged by: of patients that no recipe at hand was trained on or chosen by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from trainers.data.cache import Cache
from trainers.data.patches import Noisy
from trainers.data.series import LOWEST_HU, PairedSeries, Picture, Series
from trainers.data.splits import is_named
from trainers.errors import SourceError
from trainers.evaluate.windows import Pixels
from trainers.material import noise_counted, read_images
from trainers.physics.dose import at_dose
from trainers.physics.filtered import Kernel
from trainers.physics.lesions import Imaging
from trainers.physics.texture import retextured
from trainers.progress import Say
from trainers.recipes.recipe import Recipe

Judged = Literal["test", "validation"]

DOSES: Final = (1.0, 0.5, 0.25, 0.1)
_NOISE_SEED: Final = 7001
"""Of the noise of evaluations: no training has seen it."""
_APART: Final = "report by patients who were neither trained on nor chosen by; decide by those of the validation"


@dataclass(frozen=True)
class Extent:
    """How much is judged, of every denoiser alike.

    doses         shares of the full dose
    patients      at most so many, the first by name; 0: all
    slices        of each series, evenly spread
    realisations  of the noise, with and without planted nodules; 1: detectability cannot be told
    window        cutoff of the Hann window that the noise is of (`Kernel`), as strong at each place as that of the
                  series' own kernel, which 0 leaves as it is
    """

    doses: tuple[float, ...] = DOSES
    patients: int = 0
    slices: int = 3
    realisations: int = 4
    window: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether a card may tell what was found: no less than the defaults were asked for."""
        least = Extent()
        enough = self.slices >= least.slices and self.realisations >= least.realisations
        return not (self.patients or self.window) and set(self.doses) >= set(least.doses) and enough

    @property
    def options(self) -> tuple[str, ...]:
        """Those of `trainers evaluate`."""
        usual = QUICK if self.patients else Extent()
        words = ["--quick"] if self.patients else []
        words += [f"--dose={dose:g}" for dose in self.doses] if self.doses != usual.doses else []
        words += [f"--slices={self.slices}"] if self.slices != usual.slices else []
        words += [f"--realisations={self.realisations}"] if self.realisations != usual.realisations else []
        return (*words, *([f"--window={self.window:g}"] if self.window else []))


QUICK: Final = Extent(doses=(0.25, 0.1), patients=4, slices=1, realisations=2)
"""A small fixed part, for a look within a minute or two."""


@dataclass(frozen=True, eq=False)
class Case:
    """One slice, with the noise that lower doses add to it. window: as of `Extent`."""

    noisy: Noisy
    at: int
    window: float = 0.0

    @property
    def patient(self) -> str:
        """Identity of whom it belongs to; never printed."""
        return self.noisy.series.patient

    @property
    def full(self) -> Pixels:
        """The slice as it came: HU, float32 (rows, columns)."""
        return np.asarray(self.noisy.series.hu[self.at], dtype=np.float32)

    @property
    def imaging(self) -> Imaging:
        """How it shows what is there."""
        thickness_mm, _, pixel_mm = self.noisy.series.spacing_mm
        return Imaging(pixel_mm, thickness_mm, float(self.noisy.edge_px[self.at]))

    @property
    def realisations(self) -> int:
        """How many independent fields of noise there are."""
        return int(self.noisy.noise.shape[0])

    def low(self, hu: Pixels, dose: float, realisation: int) -> Pixels:
        """`hu`, a version of the slice, as it would be at `dose`."""
        noise = np.asarray(self.noisy.noise[realisation, self.at], dtype=np.float32)
        if self.window and dose < 1:
            series = int(self.noisy.digest[:8] or "0", 16)
            chance = np.random.default_rng((_NOISE_SEED, series, self.at, realisation))
            noise = retextured(noise, Kernel("hann", self.window), chance)
        return np.maximum(at_dose(hu, noise, dose), np.float32(LOWEST_HU)) if dose < 1 else hu


@dataclass(frozen=True)
class Among:
    """Who is judged by.

    recipe    its sources are read, its noise is simulated; its test patients, where none are named
    others    recipes that are judged as well: nobody whom they were trained on may be among the patients
    patients  names or patterns
    split     whose patients they are: of the test, what is reported; of the validation, what decisions are made by
    """

    recipe: Recipe
    others: tuple[Recipe, ...] = ()
    patients: tuple[str, ...] = ()
    split: Judged = "test"


def read_cases(
    among: Among, images: Path, cache: Path, extent: Extent, say: Say = lambda line: None
) -> tuple[Case, ...]:
    """The slices below `images`; noise is kept in `cache`. The order is that of the patients' names.

    Raises SourceError where a patient was trained on or chosen by, or where there is none.
    """
    simulation = replace(among.recipe.simulation, fields=max(1, extent.realisations), seed=_NOISE_SEED)
    chosen = sorted(_chosen(among, images, extent, say), key=_patient)
    if not chosen:
        raise SourceError("there is no patient to judge by", "name test patients in the recipe, or other --patients")
    first = sorted({_patient(one) for one in chosen})[: extent.patients or None]
    judged = [one for one in chosen if _patient(one) in first]
    noisy = Cache(cache, simulation).all_noisy(judged, noise_counted(say))
    return tuple(Case(one, at, extent.window) for one in noisy for at in range(one.series.slices))


def _chosen(among: Among, images: Path, extent: Extent, say: Say) -> Iterator[Series | PairedSeries]:
    for one in read_images(among.recipe, images, say):
        if isinstance(one, Picture):
            continue
        full = one.full if isinstance(one, PairedSeries) else one
        if is_judged(full, among):
            yield thinned(one, extent.slices)


def is_judged(series: Series, among: Among) -> bool:
    """Whether the patient is among those to be judged by. Raises SourceError where it may not be."""
    patterns = among.patients or getattr(among.recipe.patients, among.split)
    if not is_named(series.patient, patterns):
        return False
    for recipe in (among.recipe, *among.others):
        for name in recipe.patients.of(series.patient):
            if name != among.split:
                raise SourceError(f"the patient of {series.name} is in the split {name!r} of {recipe.name}", _APART)
    return True


def thinned(series: Series | PairedSeries, slices: int) -> Series | PairedSeries:
    """At most so many slices: the middles of as many equal parts of the series."""
    full = series.full if isinstance(series, PairedSeries) else series
    count = min(full.slices, slices)
    chosen = [(2 * part + 1) * full.slices // (2 * count) for part in range(count)]
    part = replace(full, hu=full.hu[chosen], z_mm=None if full.z_mm is None else full.z_mm[chosen])
    return replace(series, full=part, low_hu=series.low_hu[chosen]) if isinstance(series, PairedSeries) else part


def _patient(series: Series | PairedSeries) -> str:
    return series.full.patient if isinstance(series, PairedSeries) else series.patient


def by_patient(cases: Sequence[Case]) -> list[tuple[Case, ...]]:
    """The slices of each patient."""
    patients = dict.fromkeys(case.patient for case in cases)
    return [tuple(case for case in cases if case.patient == patient) for patient in patients]
