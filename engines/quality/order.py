"""Whether each slice of an output is the slice of the source that it stands for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from engines.quality.slices import Pair, Pixels

_TURNED: Final = ((slice(None, None, -1), slice(None)), (slice(None), slice(None, None, -1)))
_SAME: Final = 1e-6
"""Two slices whose squared difference is below this share of their variance are one image: neither fits better."""


@dataclass
class Fit:
    """How well each output slice fits its own source slice, gathered slice by slice, in order.

    An engine keeps what is coarse, noise included; the noise of two slices is not the same. So the output, at a quarter
    of the resolution, lies nearer to its own source than to the slices before and after it, and nearer than flipped.

    worst  largest misfit (root of the mean square) to the own slice, as a share of that to the next best
    index  of that slice
    """

    worst: float | None = None
    index: int | None = None
    _coarse: list[tuple[Pixels, Pixels]] = field(default_factory=list)
    _next: int = 0

    def add(self, pair: Pair) -> None:
        """Take in the next slice."""
        self._coarse.append((pair.coarse_old, pair.coarse_old - pair.coarse_residual))
        if len(self._coarse) > 1:
            self._judge(len(self._coarse) - 2)
        self._coarse = self._coarse[-2:]

    def finish(self) -> None:
        """Judge the last slice, which none follows."""
        if self._coarse:
            self._judge(len(self._coarse) - 1)

    def _judge(self, at: int) -> None:
        source, output = self._coarse[at]
        own = _apart(output, source)
        others = [_apart(output, other) for other in self._others(at) if not _same(other, source)]
        share = float(np.sqrt(own / max(min(others), 1e-12))) if others else None
        if share is not None and (self.worst is None or share > self.worst):
            self.worst, self.index = share, self._next
        self._next += 1

    def _others(self, at: int) -> list[Pixels]:
        source = self._coarse[at][0]
        beside = [self._coarse[index][0] for index in (at - 1, at + 1) if 0 <= index < len(self._coarse)]
        return [*beside, *(source[turn] for turn in _TURNED)]


def _apart(one: Pixels, other: Pixels) -> float:
    return float(np.mean(np.square(one - other)))


def _same(one: Pixels, other: Pixels) -> bool:
    return _apart(one, other) <= _SAME * float(other.var())
