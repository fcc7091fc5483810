"""How full a disk is, in levels that do not flutter, and how long it will do: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_DAY_S: Final = 86400.0
_WINDOW_S: Final = 7 * _DAY_S
"""Hospitals live by the week: what a weekend spares, Monday uses."""

_LEAST_SPAN_S: Final = 6 * 3600.0
_MARGIN: Final = 0.02
"""Of the disk: so much more than a limit has to be free before its level is left again."""


class Level(StrEnum):
    """AMPLE; WARNING: below `disk_warning`; REFUSING: below `disk_reserve`, and C-STORE is answered with 0xA700."""

    AMPLE = "ample"
    WARNING = "warning"
    REFUSING = "refusing"


@dataclass(frozen=True, slots=True)
class Marks:
    """Free bytes below which it is warned, and below which new input is refused."""

    warning_bytes: int
    reserve_bytes: int


@dataclass(frozen=True, slots=True)
class Sample:
    """How much was free when."""

    at: float
    free_bytes: int
    total_bytes: int


def level(former: Level, sample: Sample, marks: Marks) -> Level:
    """The level now. It is what people are told: input is refused exactly while less than the reserve is free."""
    margin = int(_MARGIN * sample.total_bytes)
    if sample.free_bytes < marks.reserve_bytes:
        return Level.REFUSING
    if former is Level.REFUSING and sample.free_bytes < marks.reserve_bytes + margin:
        return Level.REFUSING
    if sample.free_bytes < marks.warning_bytes:
        return Level.WARNING
    if former is not Level.AMPLE and sample.free_bytes < marks.warning_bytes + margin:
        return Level.WARNING
    return Level.AMPLE


def days_left(samples: Sequence[Sample], reserve_bytes: int) -> float | None:
    """Days until new input is refused, if things go on as in the last week; what was deleted meanwhile counts.

    samples  in order of time. None where they tell too little (less than 6 hours, or since then the disk itself became
             larger or smaller), or where there is no end in sight
    """
    recent = _recent(samples)
    if not recent or recent[-1].at - recent[0].at < _LEAST_SPAN_S:
        return None
    used_a_day = (recent[0].free_bytes - recent[-1].free_bytes) / (recent[-1].at - recent[0].at) * _DAY_S
    if used_a_day <= 0:
        return None
    return max(0.0, (recent[-1].free_bytes - reserve_bytes) / used_a_day)


def _recent(samples: Sequence[Sample]) -> list[Sample]:
    """Those of the last week on a disk of the size that it has now."""
    recent: list[Sample] = []
    for sample in reversed(samples):
        if sample.at < samples[-1].at - _WINDOW_S or sample.total_bytes != samples[-1].total_bytes:
            break
        recent.append(sample)
    return recent[::-1]
