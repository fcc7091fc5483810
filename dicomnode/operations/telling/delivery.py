"""What keeps deliveries back at a destination, and what persons did about them: for `status` and `why`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.operations.wording import counted
from dicomnode.store.index import deliveries, health
from dicomnode.store.index.actions import actions_on
from dicomnode.store.index.deliveries import Which
from dicomnode.store.schema import OutboxState, Series


def destination_notes(config: Config, session: Session, name: str, now: float) -> tuple[str, ...]:
    """Why a destination is sent nothing though it answers: sentences."""
    return (*_pause(session, name), *_closed(config, name, now))


def delivery_lines(session: Session, series: Series) -> tuple[str, ...]:
    """What of a series is kept from a destination by a person, and by whom."""
    kept = (OutboxState.CANCELLED, OutboxState.WITHHELD)
    waiting = (OutboxState.HELD, OutboxState.READY)
    found = deliveries.groups(session, Which(kept, series_instance_uid=series.series_instance_uid), 20)
    paused = deliveries.counts(session, Which(waiting, series_instance_uid=series.series_instance_uid))
    return (
        *(
            f"to {one.destination}: {counted(one.instances, 'instance')} {one.state}: {one.reason or 'no reason given'}"
            for one in found
        ),
        *(line for name in paused for line in (f"to {name}: {note}" for note in _pause(session, name))),
        *(line for name in {one.destination for one in found} for line in _cancelled(session, name, series)),
    )


def _pause(session: Session, name: str) -> Iterator[str]:
    pause = health.paused(session, name)
    if pause is not None:
        why = f": {pause.reason}" if pause.reason else ""
        yield f"paused since {_when(pause.paused_at)} by {pause.who}{why} (dicomnode resume {name})"


def _closed(config: Config, name: str, now: float) -> Iterator[str]:
    if name not in config.destination:
        return
    hours = config.hours_of(name)
    opens_at = hours.changes_at(now)
    if not hours.is_open(now):
        what = "only what is urgent goes" if config.destination[name].urgent_anytime else "nothing goes"
        yield f"outside of its hours, {what}; opens at {_when(opens_at) if opens_at is not None else 'no time'}"


def _cancelled(session: Session, name: str, series: Series) -> Iterator[str]:
    for action in actions_on(session, name):
        if action.what == "jobs cancel" and series.series_instance_uid in action.reason:
            yield f"to {name}: cancelled by {action.who} at {_when(action.at)}"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
