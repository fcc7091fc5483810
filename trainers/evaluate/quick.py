"""A small fixed subset that is always there: slices of the node's phantom, for `make bench`.

Its figures tell whether something changed from one version to the next. They say nothing of patients: for these there
is `trainers evaluate`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from dicomnode.core.phantom import phantom_study, stored_hu
from trainers.data.cache import Cache, Simulation
from trainers.data.series import Credit, Series
from trainers.evaluate.cases import QUICK, Case
from trainers.evaluate.denoisers import Denoiser
from trainers.evaluate.judging import judge
from trainers.evaluate.table import Table

_SIZE_PX: Final = 512
_NOISE_HU: Final = (6.0, 12.0)
_CREDIT: Final = Credit("Phantom of dicomnode", "CC0")


def quick_table(denoisers: Sequence[Denoiser], say: Callable[[str], None], size_px: int = _SIZE_PX) -> Table:
    """The table of these denoisers on two phantoms, one quieter than the other, at the doses of `QUICK`."""
    with tempfile.TemporaryDirectory(prefix="trainers-") as folder:
        kept = Cache(Path(folder), Simulation(fields=QUICK.realisations))
        cases = [Case(kept.noisy(_phantom(number, noise_hu, size_px)), 0) for number, noise_hu in enumerate(_NOISE_HU)]
        return judge(cases, denoisers, QUICK, say)


def _phantom(number: int, noise_hu: float, size_px: int) -> Series:
    study = phantom_study(np.random.default_rng(number), 1, size_px, noise_hu=noise_hu)
    pixel_mm = float(study[0].PixelSpacing[0])
    return Series(f"phantom {number}", f"phantom {number}", stored_hu(study), (2.0, pixel_mm, pixel_mm), None, _CREDIT)
