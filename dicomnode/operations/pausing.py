"""`dicomnode pause` and `dicomnode resume`: a person stops and starts what is sent to a destination.

It is a row of the index: it holds on every machine within a second, and through restarts, until it is ended.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.errors import NotFoundError
from dicomnode.operations.index import writing
from dicomnode.operations.terminal import printable_lines
from dicomnode.operations.wording import counted
from dicomnode.store.index import deliveries, health
from dicomnode.store.index.actions import record_action
from dicomnode.store.index.deliveries import Which
from dicomnode.store.schema import OutboxState
from dicomnode.telemetry import event


@dataclass(frozen=True)
class Paused:
    """How a destination is now; `changed` is False where it was so before. `waiting` is how much waits for it."""

    destination: str
    paused: bool
    changed: bool
    waiting: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Sequence[str]:
        state = "paused" if self.paused else "sent to"
        again = "" if self.changed else " already"
        next_step = f"; dicomnode resume {self.destination} ends it" if self.paused else ""
        return printable_lines(
            (f"{self.destination} is {state}{again}, {counted(self.waiting, 'instance')} waiting{next_step}",)
        )


def pause(config: Config, destination: str, reason: str) -> Paused:
    """Send nothing to a destination until it is resumed. Raises NotFoundError where there is none of that name."""
    _require(config, destination)
    now = time.time()
    with writing(config) as session:
        changed = health.pause(session, destination, reason, now)
        if changed:
            record_action(session, "pause", destination, reason, now)
        answer = Paused(destination, True, changed, _waiting(session, destination))
    if changed:
        event("destination_paused", destination=destination)
    return answer


def resume(config: Config, destination: str) -> Paused:
    """Send to a destination again. One that is not configured any more may be resumed too."""
    now = time.time()
    with writing(config) as session:
        changed = health.resume(session, destination, now)
        if not changed:
            _require(config, destination)
        else:
            record_action(session, "resume", destination, "", now)
        answer = Paused(destination, False, changed, _waiting(session, destination))
    if changed:
        event("destination_resumed", destination=destination)
    return answer


def _waiting(session: Session, destination: str) -> int:
    which = Which((OutboxState.HELD, OutboxState.READY), destination)
    return deliveries.counts(session, which).get(destination, 0)


def _require(config: Config, destination: str) -> None:
    if destination not in config.destination:
        known = ", ".join(config.destination) or "none"
        raise NotFoundError(f"there is no [destination.{destination}]", f"there are: {known}")
