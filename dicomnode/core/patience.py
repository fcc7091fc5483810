"""How long a destination is waited for: time counts only while it may be sent to; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dicomnode.core.hours import WorkingHours

_STEP_S: Final = 7 * 86400.0

Pause = tuple[float, float | None]
"""From when until when nothing was to be sent; None where it lasts."""


def lost_patience_before(
    now: float, patience_s: float, oldest: float, hours: WorkingHours, pauses: Sequence[Pause]
) -> float | None:
    """What waits since that time or longer has waited through `patience_s` of time in which it could have been sent.

    None where nothing has that waits since `oldest` at the earliest. Pauses and closed hours do not count.
    """
    left, until = patience_s, now
    while until > oldest:
        since = max(oldest, until - _STEP_S)
        for begin, end in reversed(_sendable(hours, pauses, since, until)):
            if end - begin >= left:
                return end - left
            left -= end - begin
        until = since
    return None


def _sendable(hours: WorkingHours, pauses: Sequence[Pause], since: float, until: float) -> list[tuple[float, float]]:
    """The intervals in which it could be sent to, in order."""
    found = hours.open_between(since, until)
    for paused, ended in pauses:
        resumed = until if ended is None else max(paused, ended)  # a clock may have been put back
        found = [
            part
            for begin, end in found
            for part in ((begin, min(end, paused)), (max(begin, resumed), end))
            if part[0] < part[1]
        ]
    return found
