"""What is wanted of a denoiser, as data, and whether it was reached. Nothing is tuned to these figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from trainers.evaluate.bootstrap import Estimate, Values
from trainers.evaluate.nodules import LESIONS
from trainers.evaluate.table import DETECTED, Table

Compare = Literal["value", "magnitude", "gain", "ratio"]
INPUT: Final = "low dose"
BEST: Final = "the best of ours"


@dataclass(frozen=True)
class Aim:
    """A bound on one figure at one dose.

    compare   value, magnitude: of the figure itself; gain, ratio: over the same figure of `against`
    against   a denoiser's name or the recipe of a run; or BEST: the one of ours with the highest PSNR at that dose,
              where that is another
    """

    figure: str
    dose: float
    bound: float
    sense: Literal["at least", "at most"]
    compare: Compare = "value"
    against: str = INPUT

    def __str__(self) -> str:
        name = _SAID[self.compare].format(self.figure, self.against)
        return f"{name} at {100 * self.dose:g} %: {self.sense} {self.bound:g}"


_SAID: Final[Mapping[Compare, str]] = {
    "value": "{}", "magnitude": "|{}|", "gain": "gain of {} over {}", "ratio": "{} over that of {}"
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """An aim held to what was measured. reached: None where nothing was measured for it.

    against  whom it was compared with, where it was
    lower    of a d': in how many patients it is lower than that of `against`, and of how many that is known
    """

    aim: Aim
    found: Estimate
    reached: bool | None
    against: str = ""
    lower: tuple[int, int] | None = None

    @property
    def is_sure(self) -> bool:
        """Whether the bound lies outside of the interval; of no interval nobody knows."""
        interval = self.found.interval
        bounds = (self.aim.bound, -self.aim.bound) if self.aim.compare == "magnitude" else (self.aim.bound,)
        return interval is None or not any(interval[0] < bound < interval[1] for bound in bounds)

    @property
    def word(self) -> str:
        """`reached`, `MISSED` or `not measured`; with `unsure` where the interval says as well that it is otherwise."""
        said = {True: "reached", False: "MISSED", None: "not measured"}[self.reached]
        return said if self.is_sure else f"{said}, unsure"

    def __str__(self) -> str:
        named = f" [{self.against}]" if self.against and self.against != INPUT else ""
        return f"{self.word:<15} {self.aim}{named}{'' if self.reached is None else f' ({self._measured})'}"

    @property
    def _measured(self) -> str:
        interval = self.found.interval
        between = "" if interval is None else f" [{interval[0]:.3g}, {interval[1]:.3g}]"
        fallen = "" if self.lower is None else f", lower in {self.lower[0]} of {self.lower[1]} patients"
        return f"{self.found.value:.3g}{between}{fallen or f', n={self.found.patients}'}"


def _bias(dose: float, bounds: Mapping[str, float], worst: Mapping[str, float]) -> Iterator[Aim]:
    for band, bound in bounds.items():
        yield Aim(f"bias {band}", dose, bound, "at most", "magnitude")
    for band, bound in worst.items():
        yield Aim(f"worst bias {band}", dose, bound, "at most")


_SOFT: Final = dict.fromkeys(("lung", "fat", "soft tissue"), 0.5)
_WORST: Final = {**dict.fromkeys(("lung", "fat", "soft tissue"), 1.0), "bone": 2.0}

_AHEAD: Final = (("bm3d", 3.0), ("bm3d-spectrum", 2.0), ("peer-redcnn", 0.0), (BEST, -0.3))
"""By how many dB of PSNR one is to be ahead of others."""

AIMS: Final[tuple[Aim, ...]] = (
    Aim("PSNR abdomen", 0.25, 4.3, "at least", "gain"),
    Aim("PSNR abdomen", 0.1, 5.7, "at least", "gain"),
    Aim("SSIM abdomen", 0.25, 0.046, "at least", "gain"),
    Aim("SSIM abdomen", 0.1, 0.079, "at least", "gain"),
    *(Aim("PSNR abdomen", dose, bound, "at least", "gain", other) for dose in (0.25, 0.1) for other, bound in _AHEAD),
    Aim("seconds", 0.25, 0.1, "at most", "ratio", BEST),
    *_bias(0.25, {**_SOFT, "bone": 1.0}, _WORST),
    Aim("strong edges wider", 0.25, 3.0, "at most", "magnitude"),
    Aim("moderate edges wider", 0.25, 15.0, "at most", "magnitude"),
    *(Aim(f"d' {lesion}", dose, 1.0, "at least", "ratio") for dose in (0.5, 0.25, 0.1) for lesion in LESIONS),
    Aim("d' 6 mm +50 HU", 0.25, 1.4, "at least", "ratio"),
    Aim("contrast kept 6 mm +50 HU", 0.25, 0.85, "at least"),
    *(Aim("invented", dose, 0.0, "at most", "gain") for dose in (0.5, 0.25, 0.1)),
    Aim("removed by slope", 0.25, 0.05, "at most"),
    *_bias(1.0, {**_SOFT, "bone": 0.5}, {}),
    Aim("moderate edges wider", 1.0, 5.0, "at most", "magnitude"),
    Aim("contrast kept 6 mm +50 HU", 1.0, 0.95, "at least"),
)
"""Those of the project, on held-out patients. `removed by slope` of noise alone scatters about 0 by some hundredths.
That a lesion is never less detectable is judged by the geometric mean of the patients' ratios of d', and the verdict
tells in how many of them it falls. At full dose no noise is added, so nothing tells d': the contrast of a small nodule
stands for "nothing lost". Nothing is invented that noise alone does not make as often."""


def verdicts(table: Table, denoiser: str, aims: tuple[Aim, ...] = AIMS) -> list[Verdict]:
    """Each aim held to a denoiser: once, or once for each that it is compared with."""
    return [verdict for aim in aims for verdict in _judged(table, denoiser, aim)]


def _judged(table: Table, denoiser: str, aim: Aim) -> Iterator[Verdict]:
    if aim.compare in ("value", "magnitude"):
        found = table.value(aim.figure, denoiser, aim.dose)
        size = abs(found.value) if aim.compare == "magnitude" else found.value
        yield Verdict(aim, found, _reached(aim, size))
        return
    others = _others(table, aim, denoiser)
    for other in others:
        found = table.against(aim.figure, (denoiser, other), aim.dose, COMPARISONS[aim.compare])
        lower = table.lower(aim.figure, (denoiser, other), aim.dose) if aim.figure in DETECTED else None
        yield Verdict(aim, found, _reached(aim, found.value), other, lower)
    if not others:
        yield Verdict(aim, Estimate(math.nan, None, 0), None)


def _others(table: Table, aim: Aim, denoiser: str) -> list[str]:
    """Whom an aim compares with: of several runs of one recipe each."""
    if aim.against == BEST:
        ours = [name for name, kind in table.kinds.items() if kind == "ours"]
        best = max(ours, key=lambda name: _fidelity(table, name, aim.dose), default=denoiser)
        return [] if best == denoiser else [best]
    exact = [name for name in table.kinds if name == aim.against]
    return exact or [name for name in table.kinds if name.startswith(f"{aim.against} ")]


def _fidelity(table: Table, name: str, dose: float) -> float:
    value = table.value("PSNR abdomen", name, dose).value
    return value if math.isfinite(value) else -math.inf


def _reached(aim: Aim, value: float) -> bool | None:
    if not math.isfinite(value):
        return None
    return value >= aim.bound if aim.sense == "at least" else value <= aim.bound


def gain(one: Values, other: Values) -> Values:
    """By how much."""
    return one - other


def ratio(one: Values, other: Values) -> Values:
    """How many times; NaN of nothing."""
    return np.asarray(np.divide(one, other, out=np.full_like(one, math.nan), where=other != 0))


COMPARISONS: Final[Mapping[Compare, Callable[[Values, Values], Values]]] = {"gain": gain, "ratio": ratio}
