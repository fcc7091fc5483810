"""Two versions of an engine, compared by their figures on the same stacks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from dicomnode.core.figures import FIGURES

_FEWEST: Final = 10
"""Stacks below which nothing is concluded of a figure."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure on the stacks where both versions have it.

    old, new  medians        change  median of (new - old) over the stacks        higher  share of them where new > old
    """

    name: str
    stacks: int
    old: float
    new: float
    change: float
    higher: float

    @property
    def line(self) -> str:
        """The figure for people."""
        figure = FIGURES[self.name]
        few = "" if self.stacks >= _FEWEST else f"  (only {self.stacks})"
        return (
            f"{figure.meaning:<44} {self.old:>10.4g} -> {self.new:>10.4g} {figure.unit:<5} "
            f"{self.change:>+10.3g}, higher in {self.higher:.0%}{few}"
        )


def compare(old: Sequence[dict[str, float]], new: Sequence[dict[str, float]]) -> tuple[Compared, ...]:
    """Figures of the same stacks in the same order, by two versions; figures that only one has are left out."""
    found = []
    for name in FIGURES:
        both = [(one[name], other[name]) for one, other in zip(old, new, strict=True) if name in one and name in other]
        if both:
            changes = [after - before for before, after in both]
            found.append(
                Compared(
                    name,
                    len(both),
                    median(before for before, _ in both),
                    median(after for _, after in both),
                    median(changes),
                    sum(change > 0 for change in changes) / len(changes),
                )
            )
    return tuple(found)
