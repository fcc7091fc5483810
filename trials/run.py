"""Trials: one slab, one dose, one engine; its clean output and every fault through the gate."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from dicomnode.core import guards
from dicomnode.core.guards import GateReport
from engines.quality.residual import BlobSearch
from engines.quality.slices import pairs
from engines.volume import Volume
from trials.denoisers import DENOISERS, Taken, card_of
from trials.dose import at_dose, unit_noise
from trials.faults import FAULTS, Case, Nodule, place_in, with_nodule

DOSES: Final = (1.0, 0.5, 0.25, 0.1)
CLEAN: Final = "none"
SIZES_MM: Final = (4.0, 6.0, 8.0, 10.0)
CONTRASTS_HU: Final[Mapping[str, tuple[float, ...]]] = {
    "lung": (50.0, 100.0, 200.0, 400.0, 800.0),
    "soft tissue": (20.0, 40.0, 60.0, 100.0, 200.0),
}
_GRID_DOSES: Final = (1.0, 0.25)


@dataclass(frozen=True)
class Trial:
    """One output through the gate.

    fault    its name; CLEAN: none was planted
    extent   "one" slice or "all" of the slab; of a nodule its tissue
    reasons  names of the findings that did not pass
    figures  what the gate measured, by name
    """

    series: str
    first: int
    dose: float
    engine: str
    fault: str
    extent: str
    reasons: tuple[str, ...]
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Seen:
    """One nodule of a size and contrast, and how much it stood out of the residual."""

    engine: str
    dose: float
    tissue: str
    is_erased: bool
    diameter_mm: float
    contrast_hu: float
    strength: float


@dataclass(frozen=True, eq=False)
class Slab:
    """What one process works on.

    grid     whether nodules of all sizes and contrasts are tried too
    doses    shares of the dose
    engines  names of DENOISERS
    """

    series: str
    first: int
    volume: Volume
    grid: bool = False
    doses: tuple[float, ...] = DOSES
    engines: tuple[str, ...] = tuple(DENOISERS)


def run(slab: Slab) -> tuple[list[Trial], list[Seen]]:
    """All doses, engines and faults of one slab."""
    cv2.setNumThreads(1)
    noise = unit_noise(slab.volume, _seed(slab.series, slab.first))
    trials: list[Trial] = []
    seen: list[Seen] = []
    for dose in slab.doses:
        taken = Taken(at_dose(slab.volume, noise, dose), slab.volume, dose)
        for engine in slab.engines:
            if engine == "network" and dose == 1.0:
                continue  # it takes away what was added
            case = Case(taken.source, DENOISERS[engine](taken))
            draw = np.random.default_rng(_seed(slab.series, slab.first, dose, engine))
            trials += _trials(slab, dose, engine, case, draw)
            if slab.grid and dose in _GRID_DOSES:
                seen += _grid(dose, engine, case, draw)
    return trials, seen


def _trials(slab: Slab, dose: float, engine: str, case: Case, draw: np.random.Generator) -> Iterator[Trial]:
    card = card_of(engine)
    for name, extent, altered in [(CLEAN, "", case), *_altered(case, draw)]:
        report = guards.after(card, altered.source, altered.output)
        reasons = tuple(finding.name for finding in report.findings if not finding.passed)
        yield Trial(slab.series, slab.first, dose, engine, name, extent, reasons, figures_of(report))


def _altered(case: Case, draw: np.random.Generator) -> Iterator[tuple[str, str, Case]]:
    count = len(case.source.voxels)
    for name, (plant, extents) in FAULTS.items():
        for extent in extents:
            one = int(draw.integers(count))
            altered = plant(case, draw, range(one, one + 1) if extent == "one" else range(count))
            if altered is not None:
                yield name, extent, altered


def figures_of(report: GateReport) -> dict[str, float]:
    """What the findings measured; of biases the largest magnitude ("bias: lung" and "bias: bone" are one)."""
    found: dict[str, float] = {}
    for finding in report.findings:
        if isinstance(finding.figure, float):
            name = finding.name.partition(":")[0]
            found[name] = max(found.get(name, 0.0), abs(finding.figure)) if ":" in finding.name else finding.figure
    return found


def _grid(dose: float, engine: str, case: Case, draw: np.random.Generator) -> Iterator[Seen]:
    """One nodule of each size and contrast, erased and inserted, in the middle of the slab."""
    middle = len(case.source.voxels) // 2
    for tissue, contrasts in CONTRASTS_HU.items():
        for size in SIZES_MM:
            for contrast in contrasts:
                for is_erased in (True, False):
                    place = place_in(case, tissue, draw, middle)
                    if place is None:
                        continue
                    altered = with_nodule(case, Nodule(place, size, contrast), is_erased=is_erased)
                    strength = strongest(altered)
                    yield Seen(engine, dose, tissue, is_erased, size, contrast, strength)


def strongest(case: Case) -> float:
    """How far the strongest blob stands out of the residual, as the gate measures it."""
    step_mm = float(np.linalg.norm(case.source.affine[:3, 2]))
    search = BlobSearch((*case.source.pixel_spacing_mm, step_mm))
    for pair in pairs(case.source, case.output):
        search.add(pair)
    search.finish()
    return search.strongest.strength if search.strongest else 0.0


def _seed(*parts: object) -> int:
    return zlib.crc32(repr(parts).encode())
