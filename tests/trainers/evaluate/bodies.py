"""A made slice: soft tissue with fat, lung and bone in it, in air; and noise whose deviation is known."""

from __future__ import annotations

import numpy as np

from engines.quality.slices import blurred
from tests.trainers.made import CREDIT
from trainers.data.patches import Noisy
from trainers.data.series import Series
from trainers.evaluate.cases import Case
from trainers.evaluate.denoisers import Denoiser, Pixels, seen
from trainers.evaluate.measures import View
from trainers.evaluate.nodules import Lesion, Planted, planted_in
from trainers.evaluate.probes import probes_of

SIZE_PX = 256
OWN_HU, ADDED_HU = 6.0, 20.0
_LUNG, _FAT, _BONE = (
    (slice(30, 75), slice(90, 150)),
    (slice(120, 165), slice(110, 150)),
    (slice(92, 112), slice(120, 150)),
)


def body() -> Pixels:
    """Without noise; edges blurred as a scanner does. The left half is soft tissue of 40 HU, room for nodules."""
    hu = np.full((SIZE_PX, SIZE_PX), -1000.0, np.float32)
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX] - SIZE_PX / 2
    hu[np.hypot(rows, columns) < 112] = 40.0
    for part, level in ((_LUNG, -800.0), (_FAT, -100.0), (_BONE, 600.0)):
        hu[part] = level
    return blurred(hu, 0.9)


def case(realisations: int = 3, seed: int = 1) -> Case:
    """Pixels of 1 mm, slices of 2 mm, white noise."""
    rng = np.random.default_rng(seed)
    full = np.rint(body() + rng.normal(0, OWN_HU, (SIZE_PX, SIZE_PX)))
    series = Series(f"patient-{seed}", f"made-{seed}", full.astype(np.int16)[None], (2.0, 1.0, 1.0), None, CREDIT)
    noise = rng.normal(0, ADDED_HU, (realisations, 1, SIZE_PX, SIZE_PX)).astype(np.float16)
    return Case(Noisy(series, noise, np.array([OWN_HU], np.float32), np.array([0.9], np.float32)), 0)


def views(one: Case, denoiser: Denoiser, lesions: tuple[Lesion, ...] = (), dose: float = 0.5) -> list[View]:
    """All realisations; at half dose the added noise has its own deviation."""
    nodules = planted_in(one, lesions) if lesions else Planted((), one.full, one.full)
    probes = probes_of(one)
    found = []
    for field in range(one.realisations):
        plain, planted, gone = (
            seen(denoiser, one.low(hu, dose, field)) for hu in (one.full, nodules.planted, nodules.removed)
        )
        found.append(View(one, nodules, plain, planted, gone, probes))
    return found
