"""Working hours of a destination: when it may be sent to, in the node's local time; pure.

Hours are intervals between two readings of a wall clock. When the clock is put forward, an end that it skips is where
it would have been; when it is put back, an interval lasts until the second time that the clock shows its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK: Final = r"([01]\d|2[0-4]):([0-5]\d)"
_HOURS: Final = re.compile(rf"(?:([a-z,\- ]+?) +)?{_CLOCK} *- *{_CLOCK}")
_HOW: Final = 'write "18:00-06:00", or "mon-fri 18:00-06:00" with days mon tue wed thu fri sat sun'
_DAY: Final = timedelta(days=1)
_SEARCHED_DAYS: Final = 15
"""Every reading of the clock comes again within a week, and one more for days that a change of the clock cuts short."""


@dataclass(frozen=True, slots=True)
class Hours:
    """One interval of some weekdays (0 is Monday), in minutes of the day; one whose end is not later goes to the next
    day."""

    days: frozenset[int]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class WorkingHours:
    """When a destination may be sent to; without `hours`, always. `zone` is the node's local time."""

    hours: tuple[Hours, ...] = ()
    zone: tzinfo = UTC

    def is_open(self, at: float) -> bool:
        """Whether it is at a time (seconds since the epoch)."""
        return not self.hours or any(begin <= at < end for begin, end in self._around(at))

    def changes_at(self, at: float) -> float | None:
        """When it is the other way round than at a time; None where it never is."""
        if not self.hours:
            return None
        merged = _merged(list(self._around(at)))
        if not self.is_open(at):
            return next((begin for begin, _ in merged if begin > at), None)
        end = next(end for begin, end in merged if begin <= at < end)
        return end if end < at + (_SEARCHED_DAYS - 2) * _DAY.total_seconds() else None

    def open_between(self, since: float, until: float) -> list[tuple[float, float]]:
        """The intervals in which it is, in order, none touching another."""
        if not self.hours:
            return [(since, until)] if since < until else []
        days = _days(self._date(since) - _DAY, self._date(until))
        cut = [(max(begin, since), min(end, until)) for begin, end in self._on(days)]
        return _merged([(begin, end) for begin, end in cut if begin < end])

    def _around(self, at: float) -> Iterator[tuple[float, float]]:
        today = self._date(at)
        return self._on(_days(today - _DAY, today + _SEARCHED_DAYS * _DAY))

    def _on(self, days: Iterator[date]) -> Iterator[tuple[float, float]]:
        for day in days:
            for hours in self.hours:
                if day.weekday() in hours.days:
                    last = day if hours.end > hours.begin else day + _DAY
                    begin, end = self._at(day, hours.begin, fold=0), self._at(last, hours.end, fold=1)
                    if begin < end:
                        yield begin, end

    def _at(self, day: date, minutes: int, fold: int) -> float:
        """When the clock shows a time of a day: for the first (fold 0) or last time, where it does so twice."""
        wall = datetime.combine(day, time(), self.zone) + timedelta(minutes=minutes)  # of wall clocks: no offset enters
        return wall.replace(fold=0 if _skipped(wall) else fold).timestamp()

    def _date(self, at: float) -> date:
        return datetime.fromtimestamp(at, self.zone).date()


ALWAYS: Final = WorkingHours()


def parse_hours(text: str) -> Hours:
    """Read "18:00-06:00" or "mon-fri,sun 18:00-06:00"; ValueError says what is wrong."""
    match = _HOURS.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} are no hours: {_HOW}")
    begin, end = (60 * int(match[place]) + int(match[place + 1]) for place in (2, 4))
    if begin >= 1440 or end > 1440 or begin == end:
        raise ValueError(f"{text!r} are no hours: they begin before 24:00, end by 24:00, and are not empty")
    return Hours(_weekdays(match[1], text), begin, end)


def _weekdays(written: str | None, text: str) -> frozenset[int]:
    if written is None:
        return frozenset(range(7))
    found: set[int] = set()
    for part in re.split(r"[, ]+", re.sub(r" *- *", "-", written.strip())):
        first, _, last = (part if "-" in part else f"{part}-{part}").partition("-")
        if first not in _DAYS or last not in _DAYS:
            raise ValueError(f"{text!r}: {part!r} is no day: {_HOW}")
        count = (_DAYS.index(last) - _DAYS.index(first)) % 7 + 1
        found |= {(_DAYS.index(first) + step) % 7 for step in range(count)}
    return frozenset(found)


def _skipped(wall: datetime) -> bool:
    """Whether the clock never shows it, as it is put forward: PEP 495 gives such times offsets the other way round."""
    early, late = wall.replace(fold=0).utcoffset(), wall.replace(fold=1).utcoffset()
    return early is not None and late is not None and early < late


def _days(first: date, last: date) -> Iterator[date]:
    return (first + step * _DAY for step in range((last - first).days + 1))


def _merged(intervals: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged
