"""Whether each slice of an output is the slice of the source that it stands for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import pi, sqrt
from typing import Final

import numpy as np

from engines.quality.slices import Pair, Pixels, blurred

_TURNED: Final = ((slice(None, None, -1), slice(None)), (slice(None), slice(None, None, -1)))
_REACH: Final = 6
"""Slices on either side within which a source must change. Neighbours alone do not do: in thin slices of little dose
noise is nearly all that they differ by."""

_FEWEST: Final = 3  # slices on a side, to ask whether it changes
_GRAIN_PX: Final = 2.0
_OF_NOISE: Final = 0.06
"""Share of a difference's power that a Gaussian of 2 px of a quarter of the resolution leaves of noise: 0.02 where it
is white, 0.06 of the softest kernels. Of anatomy three slices and more apart it leaves 0.08 to 0.7."""

_SPREADS: Final = 3.0
_SAME: Final = 1e-6
"""Two slices whose squared difference is below this share of their variance are one image."""


@dataclass
class Fit:
    """How well each output slice fits its own source slice, gathered slice by slice, in order.

    An engine keeps what is coarse, noise included; the noise of two slices is not the same. So the output, at a quarter
    of the resolution, lies nearer to its own source than to the slices before and after it, and nearer than flipped.
    Where slices differ by noise alone, as those of a uniform phantom do, and an engine takes it away, nothing tells
    them apart: such a slice is compared neither with its neighbours nor, where that too differs by noise alone, with
    itself flipped.

    worst  largest misfit (root of the mean square) to the own slice, as a share of that to the next best
    index  of that slice
    alike  how many slices differ from those around them by noise alone
    """

    worst: float | None = None
    index: int | None = None
    alike: int = 0
    _taken: int = 0
    _near: deque[tuple[Pixels, Pixels]] = field(default_factory=lambda: deque(maxlen=2 * _REACH + 1))

    def add(self, pair: Pair) -> None:
        """Take in the next slice."""
        self._near.append((pair.coarse_old, pair.coarse_old - pair.coarse_residual))
        self._taken += 1
        if self._taken > _REACH:
            self._judge(self._taken - 1 - _REACH)

    def finish(self) -> None:
        """Judge the last slices, which fewer follow."""
        for index in range(max(self._taken - _REACH, 0), self._taken):
            self._judge(index)

    def _judge(self, index: int) -> None:
        at = index - self._taken + len(self._near)
        source, output = self._near[at]
        others = [turned for turned in (source[turn] for turn in _TURNED) if _differ(source, turned)]
        if self._changes(at):
            others += [self._near[beside][0] for beside in (at - 1, at + 1) if 0 <= beside < len(self._near)]
        elif len(self._near) > 1:
            self.alike += 1
        if not others:
            return
        share = sqrt(_apart(output, source) / max(min(_apart(output, other) for other in others), 1e-12))
        if self.worst is None or share > self.worst:
            self.worst, self.index = share, index

    def _changes(self, at: int) -> bool:
        """Whether the source changes on either side of a slice; in a stack of few slices, from its first to its last.

        On either: where a uniform part of a phantom ends, its last slices still are like those before them.
        """
        first, last = max(at - _REACH, 0), min(at + _REACH, len(self._near) - 1)
        sides = [end for end in (first, last) if abs(end - at) >= _FEWEST]
        asked = [(at, end) for end in sides] or [(first, last)]
        return all(_differ(self._near[one][0], self._near[other][0]) for one, other in asked)


def _differ(one: Pixels, other: Pixels) -> bool:
    """Whether two slices differ by more than noise, which has little that is coarse; anatomy has much."""
    difference = one - other
    power = float(np.mean(np.square(difference)))
    if power <= _SAME * float(one.var()):
        return False
    cells = one.size / (4 * pi * _GRAIN_PX**2)  # of the blurred noise: so many independent values
    most = _OF_NOISE * (1 + _SPREADS * sqrt(2 / cells))
    return float(np.mean(np.square(blurred(difference, _GRAIN_PX)))) > most * power


def _apart(one: Pixels, other: Pixels) -> float:
    return float(np.mean(np.square(one - other)))
