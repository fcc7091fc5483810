"""Rates with their intervals, and tables of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from typing import Final, TypeVar

import numpy as np

from trials.run import CLEAN, CONTRASTS_HU, SIZES_MM, Seen, Trial

_Z: Final = 1.959964  # of 95 %

Key = TypeVar("Key")
One = TypeVar("One")


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate (JASA 22:209, 1927); (0, 1) where nothing was tried."""
    if not of:
        return 0.0, 1.0
    rate, square = hits / of, _Z**2
    middle = (rate + square / (2 * of)) / (1 + square / of)
    reach = _Z * sqrt(rate * (1 - rate) / of + square / (4 * of**2)) / (1 + square / of)
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def rate(hits: int, of: int) -> str:
    """`99.3 % (98.0 to 99.8)`."""
    low, high = wilson(hits, of)
    return f"{hits / of:.1%} ({low:.1%} to {high:.1%})".replace("%", " %") if of else "none tried"


def caught(trials: Sequence[Trial]) -> list[str]:
    """A row for each fault, all its trials together and by how many slices it was planted into; the clean outputs,
    whose alarms are false, come first."""
    rows = ["| fault | trials | caught | in one slice | in every slice | most often by |", "|---|---|---|---|---|---|"]
    for fault, group in _grouped(trials, lambda trial: trial.fault).items():
        what = "**none: false alarms**" if fault == CLEAN else fault
        parts = " | ".join(_part([trial for trial in group if trial.extent == extent]) for extent in ("one", "all"))
        rows.append(f"| {what} | {len(group)} | {rate(_hits(group), len(group))} | {parts} | {_commonest(group)} |")
    return rows


def alarms(trials: Iterable[Trial]) -> list[str]:
    """False alarms by engine and dose."""
    rows = ["| engine | dose | clean slabs | false alarms | by |", "|---|---|---|---|---|"]
    clean = [trial for trial in trials if trial.fault == CLEAN]
    for (engine, dose), group in sorted(_grouped(clean, lambda trial: (trial.engine, trial.dose)).items()):
        rows.append(
            f"| {engine} | {dose:.0%} | {len(group)} | {rate(_hits(group), len(group))} | {_commonest(group)} |"
        )
    return rows


def nodules(seen: Sequence[Seen], most: float) -> list[str]:
    """Share of nodules that stand out by more than `most`, by tissue, contrast and size."""
    rows = [
        "| tissue | contrast | " + " | ".join(f"{size:g} mm" for size in SIZES_MM) + " |",
        "|---|---|" + "---|" * len(SIZES_MM),
    ]
    groups = _grouped(seen, lambda one: (one.tissue, one.contrast_hu, one.diameter_mm))
    for tissue, contrasts in CONTRASTS_HU.items():
        for contrast in contrasts:
            cells = [_share(groups.get((tissue, contrast, size), []), most) for size in SIZES_MM]
            rows.append(f"| {tissue} | {contrast:g} HU | " + " | ".join(cells) + " |")
    return rows


def spread(trials: Sequence[Trial]) -> list[str]:
    """Quantiles of every figure, for those who choose limits: clean outputs, and each fault's."""
    rows = ["| figure | fault | 1 % | 50 % | 98 % | 99 % | 100 % |", "|---|---|---|---|---|---|---|"]
    names = sorted({name for trial in trials for name in trial.figures})
    for name in names:
        for (fault, extent), group in _grouped(trials, lambda trial: (trial.fault, trial.extent)).items():
            values = [trial.figures[name] for trial in group if name in trial.figures]
            if values:
                told = " | ".join(f"{value:.3g}" for value in np.quantile(values, [0.01, 0.5, 0.98, 0.99, 1.0]))
                rows.append(f"| {name} | {fault} {extent} | {told} |")
    return rows


def _hits(group: Sequence[Trial]) -> int:
    return sum(bool(trial.reasons) for trial in group)


def _part(group: Sequence[Trial]) -> str:
    return f"{_hits(group)} of {len(group)}" if group else ""


def _grouped(all_of_them: Iterable[One], key: Callable[[One], Key]) -> dict[Key, list[One]]:
    groups: dict[Key, list[One]] = defaultdict(list)
    for one in all_of_them:
        groups[key(one)].append(one)
    return dict(groups)


def _commonest(group: Sequence[Trial]) -> str:
    counts: dict[str, int] = defaultdict(int)
    for trial in group:
        for name in {reason.partition(":")[0] for reason in trial.reasons}:  # of several tissues one
            counts[name] += 1
    first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
    return ", ".join(f"{name} {count}" for name, count in first)


def _share(group: Sequence[Seen], most: float) -> str:
    if not group:
        return ""
    hits = sum(one.strength > most for one in group)
    return f"{hits / len(group):.0%} of {len(group)}".replace("%", " %")
