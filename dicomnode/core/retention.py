"""What may be deleted: pure. Nothing is, unless a number in the configuration says so.

A series goes as a whole, for half a series is worse than none. What its destinations confirmed goes after its days;
each thing that speaks against it (no proof of arrival, no destination, quarantine) has to be named by a number of its
own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LEAST_S: Final = 6 * 3600.0
"""Age before which nothing is ever deleted: late slices come within hours."""

_DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Days after which series are deleted; None is never. See `[retention]` in docs/configuration.md."""

    originals_days: float | None = None
    derived_days: float | None = None
    unconfirmed_days: float | None = None
    unrouted_days: float | None = None
    quarantined_days: float | None = None
    is_by_space: bool = False

    @property
    def deletes(self) -> bool:
        """Whether anything is ever deleted."""
        return self.is_by_space or bool(self._days)

    def youngest_s(self, *, is_scarce: bool) -> float:
        """Age below which no series has to be looked at."""
        if (is_scarce and self.is_by_space) or not self._days:
            return LEAST_S
        return max(LEAST_S, min(self._days) * _DAY_S)

    @property
    def _days(self) -> tuple[float, ...]:
        days = (
            self.originals_days, self.derived_days, self.unconfirmed_days, self.unrouted_days, self.quarantined_days,
        )  # fmt: skip
        return tuple(one for one in days if one is not None)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What is known of a series that might be deleted.

    last_at      when its last instance came
    in_progress  it arrives, is held, is worked on, or some of it waits for a destination or a person
    quarantined  something of it is in quarantine
    unconfirmed  deliveries that ended, and of which nothing proves that they arrived
    unrouted     instances that go nowhere
    """

    is_derived: bool
    last_at: float
    in_progress: bool
    quarantined: bool
    unconfirmed: int
    unrouted: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a series is deleted, and why, or why not: a sentence without patient data."""

    deletes: bool
    reason: str


def judge(found: Holdings, policy: RetentionPolicy, now: float, *, is_scarce: bool = False) -> Judgement:
    """Whether to delete a series. `is_scarce`: less space is free than `[retention] min_free`."""
    if found.in_progress:
        return Judgement(False, "something of it is still to be done")
    age_s = now - found.last_at
    if age_s < LEAST_S:
        return Judgement(False, "it came lately")
    obstacles = tuple(_obstacles(found, policy))
    for what, days in obstacles:
        if days is None or age_s < days * _DAY_S:
            return Judgement(False, what)
    if obstacles:
        what, days = max(obstacles, key=lambda obstacle: obstacle[1] or 0.0)
        return Judgement(True, f"{what}, older than {days:g} days")
    limit = policy.derived_days if found.is_derived else policy.originals_days
    if limit is not None and age_s >= limit * _DAY_S:
        return Judgement(True, f"confirmed at every destination, older than {limit:g} days")
    if is_scarce and policy.is_by_space:
        return Judgement(True, "confirmed at every destination, and the disk has too little space")
    return Judgement(False, "its days are not over")


def _obstacles(found: Holdings, policy: RetentionPolicy) -> Iterator[tuple[str, float | None]]:
    """What speaks against deleting, each with the days after which the policy does so all the same."""
    if found.quarantined:
        yield "in quarantine", policy.quarantined_days
    if found.unconfirmed:
        yield "not confirmed at every destination", policy.unconfirmed_days
    if found.unrouted:
        yield "sent nowhere", policy.unrouted_days
