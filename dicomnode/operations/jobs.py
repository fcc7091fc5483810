"""`dicomnode jobs`: deliveries that wait, failed or were kept back; have them made again, or not at all.

What engines could not do is in quarantine (`dicomnode.operations.quarantine`); here it is only counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.errors import UsageError
from dicomnode.operations.index import reading, writing
from dicomnode.operations.terminal import printable_lines
from dicomnode.operations.wording import counted
from dicomnode.store.index import deliveries, reviews
from dicomnode.store.index.actions import record_action
from dicomnode.store.index.deliveries import Which
from dicomnode.store.schema import OutboxState
from dicomnode.telemetry import event

_LISTED: Final = 200
_AT_ONCE: Final = 1000
"""Receivers must not wait for a transaction that changes a week of deliveries."""


@dataclass(frozen=True)
class Deliveries:
    """Deliveries of one series to one destination in one state; `reason` is the last answer, or why it is kept back.

    since  when the first of them began to wait, or ended; seconds since the epoch
    """

    destination: str
    state: str
    series_instance_uid: str
    instances: int
    since: float
    reason: str

    @property
    def line(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        why = f": {self.reason}" if self.reason else ""
        return (
            f"to {self.destination:<12} {self.state:<9} {counted(self.instances, 'instance'):<14} since {when}  "
            f"series {self.series_instance_uid}{why}"
        )


@dataclass(frozen=True)
class Jobs:
    """Deliveries, the latest first; `total` counts the instances of all, listed or not. `quarantine` counts by kind
    what engines and rules could not do."""

    deliveries: tuple[Deliveries, ...]
    total: int
    quarantine: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        listed = sum(one.instances for one in self.deliveries)
        more = (f"... and {counted(self.total - listed, 'instance')} more",) if self.total > listed else ()
        told = ", ".join(f"{count} {kind}" for kind, count in self.quarantine.items())
        engines = (f"engines and rules: {told}  (dicomnode quarantine list)",) if told else ()
        return printable_lines((*(one.line for one in self.deliveries), *more, *engines) or ("nothing",))


@dataclass(frozen=True)
class Changed:
    """How many deliveries were changed, by destination. `word` says what is so now."""

    word: str
    instances: dict[str, int]

    @property
    def nothing(self) -> bool:
        return not self.instances

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        if self.nothing:
            return ("nothing of that kind is there",)
        return printable_lines(
            f"to {name}: {counted(count, 'instance')} {self.word}" for name, count in self.instances.items()
        )


def which(states: Sequence[str], destination: str | None, uids: tuple[str | None, str | None, str | None]) -> Which:
    """Deliveries in states, to a destination, of a study, a series, an instance; None leaves open."""
    return Which(tuple(map(OutboxState, states)), destination, *uids)


def jobs(config: Config, which: Which) -> Jobs:
    """What there is of these deliveries. Raises NotFoundError where nothing was stored yet."""
    with reading(config) as session:
        found = deliveries.groups(session, which, _LISTED)
        listed = tuple(
            Deliveries(
                one.destination, one.state, one.series_instance_uid, one.instances, one.since, _reason(session, one)
            )
            for one in found
        )
        total = sum(deliveries.counts(session, which).values())
        return Jobs(listed, total, reviews.quarantine_counts(session))


def retry(config: Config, which: Which) -> Changed:
    """Have deliveries made, from the start; back-off and patience begin anew. Raises UsageError without a state."""
    if not set(which.states) <= {OutboxState.FAILED, OutboxState.EXCLUDED} or not which.states:
        raise UsageError("which deliveries?", "--failed, or --excluded for those that the configuration kept back")

    def change(session: Session, now: float) -> int:
        return deliveries.send_again(session, which, now, _AT_ONCE)

    changed = _change(config, which, "jobs retry", "", change)
    now = time.time()
    if changed:
        with writing(config) as session:
            for name in changed:
                deliveries.try_now(session, name, now)
    for name, count in changed.items():
        event("deliveries_retried", destination=name, instances=count)
    return Changed("wait to be sent again", changed)


def cancel(config: Config, which: Which, reason: str) -> Changed:
    """Have deliveries not made. Raises UsageError where it could be all of them."""
    if which == Which(which.states):
        raise UsageError("which deliveries?", "--to, --study, --series or --instance")

    def change(session: Session, now: float) -> int:
        return deliveries.cancel(session, which, reason or "cancelled by a person", now, _AT_ONCE)

    changed = _change(config, which, "jobs cancel", reason, change)
    for name, count in changed.items():
        event("deliveries_cancelled", destination=name, instances=count)
    return Changed("will not be sent", changed)


def _change(
    config: Config, which: Which, what: str, reason: str, change: Callable[[Session, float], int]
) -> dict[str, int]:
    """Do it in parts, each a transaction; how many it is about, by destination. The first notes who did it."""
    now = time.time()
    with writing(config) as session:
        found = deliveries.counts(session, which)
        for name, count in found.items():
            record_action(
                session, what, name, f"{counted(count, 'instance')}: {_narrowed(which)} {reason}".strip(), now
            )
        done = change(session, now)
    while done == _AT_ONCE:
        with writing(config) as session:
            done = change(session, now)
    return found


def _narrowed(which: Which) -> str:
    named = {
        "study": which.study_instance_uid,
        "series": which.series_instance_uid,
        "instance": which.sop_instance_uid,
    }
    states = "/".join(state.value for state in which.states)
    return " ".join((states, *(f"{key} {uid}" for key, uid in named.items() if uid is not None)))


def _reason(session: Session, group: deliveries.Group) -> str:
    """Why they are in that state: what was noted with them, else what was answered last."""
    if group.reason:
        return group.reason
    receipt = deliveries.last_receipt(session, group.last_outbox_id) if group.state != OutboxState.HELD else None
    if receipt is None:
        return "until its series is complete" if group.state == OutboxState.HELD else ""
    return receipt.meaning
