"""What persons did: each command that changes something writes a row in the same transaction."""

from __future__ import annotations

import os
import pwd

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.store.schema import Action


def record_action(session: Session, what: str, subject: str, reason: str, now: float) -> Action:
    """Note that the user of this process did something.

    what     the command's words ("pause", "jobs retry", "release")
    subject  a UID, a row id or a name of the configuration; never patient data
    """
    row = Action(at=now, who=user(), what=what, subject=subject, reason=reason)
    session.add(row)
    return row


def actions_on(session: Session, subject: str) -> list[Action]:
    """What was done to a subject, the oldest first."""
    return list(session.scalars(select(Action).where(Action.subject == subject).order_by(Action.id)))


def user() -> str:
    """The operating system's user of this process; the environment has no say."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a user without a name, as in some containers
        return f"uid {os.geteuid()}"
