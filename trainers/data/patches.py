"""Patches for training, drawn from memory-mapped series: the same step and seed give the same patches on any machine.

Nothing is kept between batches, so that training can go on from any step as if it had never stopped, and several
processes can share a batch without speaking to each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.data.series import LOWEST_HU, Series
from trainers.errors import SourceError
from trainers.physics.filtered import Kernel
from trainers.physics.lesions import Imaging, Nodule, nodule_hu, roomy_places
from trainers.physics.texture import retextured

_AIR_HU: Final = -950
_TRIES: Final = 20

Patch = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Noisy:
    """A series with the noise that lower doses add to it.

    noise     float16 HU (fields, slices, rows, columns): unit noise, several independent fields a slice. Added once it
              makes half dose: its variance is the slice's own. `sqrt((1 - a) / a)` times it makes dose a.
    noise_hu  float32 (slices,): standard deviation of the noise that the slice has itself, in flat tissue
    edge_px   float32 (slices,): standard deviation of the blur that the scanner and its kernel put on edges
    digest    of all that it was made of, as the cache knows it
    """

    series: Series
    noise: NDArray[np.float16]
    noise_hu: NDArray[np.float32]
    edge_px: NDArray[np.float32]
    digest: str = ""


@dataclass(frozen=True)
class Batch:
    """Patches of one step; HU, float32.

    low       (patches, channels, rows, columns): at lower dose; the middle channel is the slice itself, the others its
              neighbours from the lowest up
    full      (patches, 1, rows, columns): the same slice at full dose, with the noise that it came with
    dose      (patches,): share of the full dose
    noise_hu  (patches,): standard deviation of the noise of `low` in flat tissue
    planted   like full: where nodules were planted, as a share of their contrast, 0 to 1
    """

    low: torch.Tensor
    full: torch.Tensor
    dose: torch.Tensor
    noise_hu: torch.Tensor
    planted: torch.Tensor


@dataclass(frozen=True)
class Planting:
    """Nodules planted into training patches; a table of a recipe. Figures are drawn evenly between (lowest, highest).

    share        of the patches that get any
    count        of their nodules, where there is room for them
    radius_mm    of the nodules
    contrast_hu  their contrast to what is around them; as many are darker as are brighter, but in lungs all brighter
    tissue_hu    where they are planted in the body
    lung_hu      and in lungs
    wobble       largest amplitude of each harmonic of the outline, as a share of the radius
    """

    share: float = 0.0
    count: int = 1
    radius_mm: tuple[float, float] = (1.2, 8.0)
    contrast_hu: tuple[float, float] = (8.0, 150.0)
    tissue_hu: tuple[float, float] = (-20.0, 150.0)
    lung_hu: tuple[float, float] = (-920.0, -700.0)
    wobble: float = 0.1


@dataclass(frozen=True)
class Texturing:
    """Noise of other textures than that of a slice's own kernel; a table of a recipe.

    share   of the patches that get it
    cutoff  (lowest, highest) of the Hann window (see `Kernel`): as many between 0.5 and 1 as between 1 and 2
    """

    share: float = 0.0
    cutoff: tuple[float, float] = (0.45, 2.5)


@dataclass(frozen=True)
class Drawing:
    """How patches are drawn; a table of a recipe.

    batch            patches a step, over all processes together
    size_px          rows and columns of a patch
    doses            (lowest, highest) share of the full dose
    dose_law         "log": as many between 0.1 and 0.2 as between 0.2 and 0.4; "uniform": by share
    full_dose_share  share of patches that are left at full dose
    neighbours       slices above and below that are channels too; beyond the ends the last one is repeated
    patient_power    a patient of n slices is drawn in proportion to n to this power: 0 all alike, 1 all slices alike
    tissue_share     least share of a patch that is no air
    turns            patches are mirrored and turned by right angles
    planting         nodules that are planted into the patches, before the noise is added
    texturing        noise of other textures than that of a slice's own kernel
    """

    batch: int = 16
    size_px: int = 96
    doses: tuple[float, float] = (0.08, 0.9)
    dose_law: Literal["log", "uniform"] = "log"
    full_dose_share: float = 0.0
    neighbours: int = 0
    patient_power: float = 0.5
    tissue_share: float = 0.3
    turns: bool = True
    planting: Planting = field(default_factory=Planting)
    texturing: Texturing = field(default_factory=Texturing)


class Drawer:
    """Draws batches from series of one split.

    Raises SourceError where there is nothing to draw from, or where a slice is smaller than a patch.
    """

    def __init__(self, pool: Sequence[Noisy], drawing: Drawing, seed: int) -> None:
        if not pool:
            raise SourceError("there are no series to draw patches from", "name training patients in the recipe")
        for noisy in pool:
            if min(noisy.series.hu.shape[1:]) < drawing.size_px:
                raise SourceError(
                    f"{noisy.series.name} is smaller than a patch of {drawing.size_px} px", "lower size_px"
                )
        self._pool = tuple(pool)
        self._drawing = drawing
        self._seed = seed
        self._patients = _by_patient(pool)
        weights = [sum(pool[at].series.slices for at in own) ** drawing.patient_power for own in self._patients]
        self._odds = np.array(weights) / sum(weights)

    def batch(self, step: int, samples: range | None = None) -> Batch:
        """The batch of a step, or of it only the patches `samples`: a process of several takes its own part."""
        drawn = [self._patch(step, sample) for sample in samples or range(self._drawing.batch)]
        low, full, planted, dose, noise_hu = zip(*drawn, strict=True)
        return Batch(
            low=torch.from_numpy(np.stack(low)),
            full=torch.from_numpy(np.stack(full)),
            dose=torch.tensor(dose, dtype=torch.float32),
            noise_hu=torch.tensor(noise_hu, dtype=torch.float32),
            planted=torch.from_numpy(np.stack(planted)),
        )

    def _patch(self, step: int, sample: int) -> tuple[Patch, Patch, Patch, float, float]:
        rng = np.random.default_rng((self._seed, step, sample))
        noisy, at, corner = self._place(rng)
        dose = draw_dose(rng, self._drawing)
        added = math.sqrt((1.0 - dose) / dose)
        channels = np.clip(
            np.arange(at - self._drawing.neighbours, at + self._drawing.neighbours + 1), 0, noisy.series.slices - 1
        )
        made = int(rng.integers(noisy.noise.shape[0]))
        row, column = (slice(start, start + self._drawing.size_px) for start in corner)
        full = noisy.series.hu[channels, row, column].astype(np.float32)
        planted = np.zeros_like(full)
        if rng.random() < self._drawing.planting.share:
            for _ in range(self._drawing.planting.count):
                planted = np.maximum(planted, _planted(full, noisy, channels - at, self._drawing, rng))
        noise = noisy.noise[made, channels, row, column].astype(np.float32)
        if rng.random() < self._drawing.texturing.share:
            kernel = Kernel("hann", _of_each_octave(rng, self._drawing.texturing.cutoff))
            noise = np.stack([retextured(one, kernel, rng) for one in noise])
        low = full + added * noise
        images = np.stack([*np.maximum((low, full), np.float32(LOWEST_HU)), planted])
        turned = _turned(images, rng) if self._drawing.turns else images
        middle = slice(self._drawing.neighbours, self._drawing.neighbours + 1)
        return turned[0], turned[1][middle], turned[2][middle], dose, float(noisy.noise_hu[at]) / math.sqrt(dose)

    def _place(self, rng: np.random.Generator) -> tuple[Noisy, int, tuple[int, int]]:
        """A series, a slice of it, and the upper left corner of a patch that is not all air."""
        own = self._patients[int(rng.choice(len(self._patients), p=self._odds))]
        counts = np.array([self._pool[at].series.slices for at in own])
        noisy = self._pool[own[int(rng.choice(len(own), p=counts / counts.sum()))]]
        size_px = self._drawing.size_px
        at, corner = 0, (0, 0)
        for _ in range(_TRIES):
            at = int(rng.integers(noisy.series.slices))
            rows, columns = noisy.series.hu.shape[1:]
            corner = int(rng.integers(rows - size_px + 1)), int(rng.integers(columns - size_px + 1))
            patch = noisy.series.hu[at, corner[0] : corner[0] + size_px, corner[1] : corner[1] + size_px]
            if np.count_nonzero(patch > _AIR_HU) >= self._drawing.tissue_share * patch.size:
                break
        return noisy, at, corner


def draw_dose(rng: np.random.Generator, drawing: Drawing) -> float:
    """A share of the full dose, as the recipe says."""
    if rng.random() < drawing.full_dose_share:
        return 1.0
    lowest, highest = drawing.doses
    if drawing.dose_law == "log":
        return _of_each_octave(rng, drawing.doses)
    return float(rng.uniform(lowest, highest))


def _of_each_octave(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """Drawn between (lowest, highest): as often between 1 and 2 as between 2 and 4."""
    return math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1])))


def _planted(
    full: Patch, noisy: Noisy, offsets: NDArray[np.intp], drawing: Drawing, rng: np.random.Generator
) -> Patch | np.float32:
    """Add a nodule to the channels, `offsets` slices from its own, and say where it is, as a share of its contrast; 0
    where there is no room for one."""
    planting = drawing.planting
    step_mm, _, pixel_mm = noisy.series.spacing_mm
    radius_mm, contrast = float(rng.uniform(*planting.radius_mm)), float(rng.uniform(*planting.contrast_hu))
    is_lung = rng.random() < 0.5
    wobble, turn = rng.uniform(-planting.wobble, planting.wobble, 3), float(rng.uniform(0.0, math.tau))
    band = planting.lung_hu if is_lung else planting.tissue_hu
    places = roomy_places(full[drawing.neighbours], radius_mm / pixel_mm, band)
    sign = 1.0 if is_lung or rng.random() < 0.5 else -1.0
    if not len(places):
        return np.float32(0)
    row, column = (float(one) for one in places[int(rng.integers(len(places)))])
    imaging = Imaging(pixel_mm, step_mm, float(noisy.edge_px[0]))
    outline = (float(wobble[0]), float(wobble[1]), float(wobble[2]))
    nodules = [
        Nodule(row, column, radius_mm, sign * contrast, depth_mm=offset * step_mm, wobble=outline, turn=turn)
        for offset in offsets.tolist()
    ]
    added = np.stack([nodule_hu(nodule, (drawing.size_px, drawing.size_px), imaging) for nodule in nodules])
    full += added
    return added / np.float32(sign * contrast)


def _by_patient(pool: Sequence[Noisy]) -> tuple[tuple[int, ...], ...]:
    """Places in the pool of the series of each patient."""
    patients: Mapping[str, list[int]] = {noisy.series.patient: [] for noisy in pool}
    for at, noisy in enumerate(pool):
        patients[noisy.series.patient].append(at)
    return tuple(map(tuple, patients.values()))


def _turned(pair: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    turned = np.rot90(pair, int(rng.integers(4)), axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if rng.random() < 0.5 else turned)
