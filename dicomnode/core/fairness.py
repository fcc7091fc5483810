"""Which deliveries go next: urgent and normal ones two to one, the oldest first, series in turn; pure.

Two things keep anything from starving. While both kinds wait, what urgent ones take beyond their share is owed to
normal ones, and paid. And the instance of its kind that waits longest is always in the batch that its kind begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_URGENT_SHARE: Final = 2
"""So many urgent instances go for one normal one, while both wait."""

_IN_A_ROW: Final = 16
"""Instances of one series that go together: a huge study must not hold up a small one for long."""

_MOST_OWED: Final = 128
"""No batch goes on with urgent ones beyond this: the normal ones call with another AE title, so the next pays."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An instance that waits. All of one batch have the same `calling_ae`."""

    outbox_id: int
    is_urgent: bool
    calling_ae: str
    series: int


def next_batch(waiting: Sequence[Waiting], limit: int, owed: int) -> tuple[list[Waiting], int]:
    """At most `limit` of those that wait, in the order in which they go; and what is owed after them.

    waiting  those that have waited longest first; more than fit one batch, so that there is something to choose from
    owed     how many urgent ones went while a normal one waited, less two for each normal one since; 0 at first
    """
    urgent = _in_turn(each for each in waiting if each.is_urgent)
    normal = _in_turn(each for each in waiting if not each.is_urgent)
    urgent_left, normal_left = len(urgent), len(normal)
    if not waiting:
        return [], 0
    owed = owed if urgent and normal else 0
    calling_ae = (normal if normal and (owed >= _URGENT_SHARE or not urgent) else urgent)[0].calling_ae
    urgent = deque(each for each in urgent if each.calling_ae == calling_ae)
    normal = deque(each for each in normal if each.calling_ae == calling_ae)
    batch: list[Waiting] = []
    while len(batch) < limit:
        if normal and (owed >= _URGENT_SHARE or not urgent_left):
            batch.append(normal.popleft())
            normal_left -= 1
            owed = max(0, owed - _URGENT_SHARE) if urgent_left else 0
        elif urgent and owed < _MOST_OWED:
            batch.append(urgent.popleft())
            urgent_left -= 1
            owed = owed + 1 if normal_left else 0
        else:
            break
    return batch, owed


def surplus(mine: int, held: int, machines: int) -> int:
    """How many of `mine` leases are more than one machine's share of all that are held."""
    return max(0, mine - -(-held // max(machines, 1)))


def _in_turn(waiting: Iterable[Waiting]) -> deque[Waiting]:
    """A few of each series in turn; the longest waiting stays the first."""
    by_series: dict[int, list[Waiting]] = {}
    for each in waiting:
        by_series.setdefault(each.series, []).append(each)
    ordered: deque[Waiting] = deque()
    place = 0
    while by_series:
        for series, members in list(by_series.items()):
            ordered.extend(members[place : place + _IN_A_ROW])
            if len(members) <= place + _IN_A_ROW:
                del by_series[series]
        place += _IN_A_ROW
    return ordered
