"""How values that have an order are read and compared: numbers, dates, times, ages, hours of the day.

A value comes from a data set and may be anything: `read` gives None for what is not on the scale, and never raises.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Reading = float | str
"""A value on its scale: a float, or for dates and times their digits."""

RELATIVE_TOLERANCE: Final = 1e-6
"""Numbers closer than this are equal: DS, FL and FD write the same thickness as 1.5, 1.4999999 and 1.50000001."""

_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?", re.ASCII)
_DATE_TIME: Final = re.compile(r"(\d{4}(\d\d){0,5}(\.\d{1,6})?)([+-]\d{4})?", re.ASCII)
_AGE: Final = re.compile(r"(\d{1,3})([DWMY])", re.ASCII)
_DAYS: Final = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}


@dataclass(frozen=True)
class Scale:
    """One kind of ordered value.

    what    its name in messages ("a number")
    form    how a person writes one
    read    text -> Reading, or None where the text is not on the scale
    order   (value, bound) -> negative, 0 or positive
    dash    "low-high" is a range, as in C-FIND (PS3.4 C.2.2.2.5); else only "low..high" is
    wraps   a range may go past the end of the scale (22..6 is a night)
    """

    what: str
    form: str
    read: Callable[[str], Reading | None]
    order: Callable[[Reading, Reading], int]
    dash: bool = False
    wraps: bool = False


@dataclass(frozen=True)
class Interval:
    """Values from `low` to `high`; None is no bound, `*_open` leaves the bound itself out."""

    scale: Scale
    low: Reading | None = None
    high: Reading | None = None
    low_open: bool = False
    high_open: bool = False

    @property
    def what(self) -> str:
        return self.scale.what

    @property
    def reversed(self) -> bool:
        """low lies above high: holds for nothing, except on a scale that wraps."""
        return self.low is not None and self.high is not None and self.scale.order(self.low, self.high) > 0

    def holds(self, value: str) -> bool | None:
        """Whether the value lies within; None where it is not on the scale."""
        reading = self.scale.read(value)
        if reading is None:
            return None
        above = self.low is None or self.scale.order(reading, self.low) >= (1 if self.low_open else 0)
        below = self.high is None or self.scale.order(reading, self.high) <= (-1 if self.high_open else 0)
        return (above or below) if self.reversed and self.scale.wraps else (above and below)


def _read_number(text: str) -> float | None:
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _read_hour(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,2}", text, re.ASCII) and int(text) <= 23 else None


def _read_age(text: str) -> float | None:
    match = _AGE.fullmatch(text.upper())
    return int(match[1]) * _DAYS[match[2]] if match else None


def _read_date(text: str) -> str | None:
    digits = text.replace(".", "")  # ACR-NEMA wrote yyyy.mm.dd (PS3.5 6.2, DA)
    if not re.fullmatch(r"\d{8}", digits, re.ASCII):
        return None
    try:
        datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
    return digits


def _read_time(text: str) -> str | None:
    digits = text.replace(":", "")  # ACR-NEMA wrote hh:mm:ss (PS3.5 6.2, TM)
    return digits if _TIME.fullmatch(digits) else None


def _read_date_time(text: str) -> str | None:
    match = _DATE_TIME.fullmatch(text)
    return match[1] if match else None


def _order_numbers(value: Reading, bound: Reading) -> int:
    left, right = float(value), float(bound)
    if math.isclose(left, right, rel_tol=RELATIVE_TOLERANCE):
        return 0
    return -1 if left < right else 1


def _order_moments(value: Reading, bound: Reading) -> int:
    """By text, to the precision of the bound: 12:00:30 is equal to the bound "1200"."""
    right = str(bound)
    left = str(value)[: len(right)]
    return (left > right) - (left < right)


NUMBERS: Final = Scale("a number", "a number such as 1.5", _read_number, _order_numbers)
HOURS: Final = Scale("an hour", "an hour from 0 to 23", _read_hour, _order_numbers, wraps=True)
AGES: Final = Scale("an age", "an age such as 018Y, 006M, 002W or 003D", _read_age, _order_numbers)
DATES: Final = Scale("a date", "a date as YYYYMMDD", _read_date, _order_moments, dash=True)
TIMES: Final = Scale("a time", "a time as HH, HHMM or HHMMSS", _read_time, _order_moments, dash=True)
DATE_TIMES: Final = Scale(
    "a date and time", "YYYY, YYYYMMDD or YYYYMMDDHHMMSS", _read_date_time, _order_moments
)  # fmt: skip

OF_VR: Final = {
    **dict.fromkeys(("DS", "IS", "FD", "FL", "US", "SS", "UL", "SL", "UV", "SV", "US or SS"), NUMBERS),
    "AS": AGES,
    "DA": DATES,
    "TM": TIMES,
    "DT": DATE_TIMES,
}
"""The scale of each value representation that has one (PS3.5 6.2)."""
