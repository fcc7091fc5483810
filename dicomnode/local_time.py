"""The time zone of this machine, by its name: offsets alone would not tell when clocks are changed."""

from __future__ import annotations

import os
from datetime import UTC, tzinfo
from functools import cache
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_LOCAL: Final = Path("/etc/localtime")


@cache
def local_zone() -> tzinfo:
    """`$TZ` where it names a zone, else the machine's own; UTC where there is none."""
    name = os.environ.get("TZ", "").removeprefix(":")
    try:
        if name:
            return ZoneInfo(name)
    except (ValueError, ZoneInfoNotFoundError):  # as POSIX writes it: "CET-1CEST"
        return UTC
    try:
        with _LOCAL.open("rb") as file:
            return ZoneInfo.from_file(file, "local")
    except (OSError, ValueError):
        return UTC
