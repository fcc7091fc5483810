"""Which files the rows name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.store.index.arrivals import StoredFile
from dicomnode.store.schema import Instance

_LONGEST_TRANSFER_S: Final = 3600.0
_NAMES_A_QUESTION: Final = 1000


def is_recorded(session: Session, file: StoredFile) -> bool:
    """Whether a row names this file."""
    named = select(Instance.id).where(Instance.sop_instance_uid == file.sop_instance_uid, Instance.file == file.file)
    return session.scalar(named) is not None


def without_row(session: Session, files: Collection[str], since: float) -> set[str]:
    """Those of the files, written at `since` or later, that no instance names.

    There is no index by file. The rows are looked through from the newest back; for what is not found among those of
    the time in question (a clock may have jumped) all rows are asked, since what has none will be set aside.
    """
    left = set(files)
    rows = select(Instance.file, Instance.received_at).order_by(Instance.id.desc()).execution_options(yield_per=1000)
    for file, received_at in session.execute(rows):
        if not left or received_at < since - _LONGEST_TRANSFER_S:
            break
        left.discard(file)
    asked = sorted(left)
    for start in range(0, len(asked), _NAMES_A_QUESTION):
        named = select(Instance.file).where(Instance.file.in_(asked[start : start + _NAMES_A_QUESTION]))
        left.difference_update(session.scalars(named))
    return left
