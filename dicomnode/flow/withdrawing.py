"""Telling destinations that want to know it (`withdraw = true`) which derived objects of ours hold no longer.

What was replaced, or whose sources were rejected, is named in a rejection note (IHE RAD IOCM), a derived object as any
other: its UID is computed, the outbox sends it. The old images are withdrawn only when the new ones have arrived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy.orm import Session

from dicomnode.core.routing import PRIORITIES
from dicomnode.errors import DicomNodeError
from dicomnode.flow.pipeline import Pipeline
from dicomnode.flow.repeating import Repeating
from dicomnode.flow.rooms import Rooms
from dicomnode.flow.storing import identity_of, store_built
from dicomnode.store.index import files as index_files
from dicomnode.store.index import outbox, withdrawals
from dicomnode.store.index.arrivals import StoredFile, record_derived
from dicomnode.store.index.withdrawals import Withdrawn
from dicomnode.store.schema import Instance, Series
from dicomnode.telemetry import event

_POLL_S: Final = 2.0
_WRITE_TIMEOUT_S: Final = 300.0
_SETTLED_S: Final = 3600.0
_AGAIN_S: Final = 600.0


class Withdrawer(Repeating):
    """A thread that writes what notes are due until it is stopped. Of the pipeline it uses the configuration."""

    def __init__(self, rooms: Rooms, pipeline: Pipeline) -> None:
        super().__init__("withdraw", _POLL_S, self.tell_all)
        self._rooms = rooms
        self._pipeline = pipeline
        self._settle_at = 0.0
        self._again_at: dict[int, float] = {}

    def tell_all(self, now: float) -> int:
        """Write and enqueue every note that is due; how many."""
        destinations = self._pipeline.routing.withdrawing
        if now >= self._settle_at:
            with self._rooms.database.write() as session:
                withdrawals.settle(session, destinations, now - _SETTLED_S)
            self._settle_at = now + _SETTLED_S
        return sum(self._tell(destination, now) for destination in destinations)

    def _tell(self, destination: str, now: float) -> int:
        with self._rooms.database.read() as session:
            due = withdrawals.due_withdrawals(session, destination)
        waiting = {row for row, until in self._again_at.items() if until > now}
        return sum(self._write(destination, note, now) for note in due if note[0].withdrawal.id not in waiting)

    def _write(self, destination: str, withdrawn: Sequence[Withdrawn], now: float) -> bool:
        try:
            with self._rooms.results.scratch() as scratch:
                made = self._made(withdrawn, scratch / "note.dcm")
                (file,) = store_built(self._rooms, [made])  # the first one stays, for another destination
        except DicomNodeError as error:  # it stays due
            self._again_at[withdrawn[0].withdrawal.id] = now + _AGAIN_S
            told = {"error": type(error).__name__, "reason": str(error), "hint": error.hint}
            event("withdrawal_failed", destination=destination, **told)
            return False
        if not self._record(destination, withdrawn, made["series_instance_uid"], file, now):
            return False
        event(
            "derived_withdrawn",
            destination=destination,
            sop_instance_uid=file.sop_instance_uid,
            instances=len(withdrawn),
            reason=withdrawn[0].withdrawal.reason,
        )
        return True

    def _record(
        self, destination: str, withdrawn: Sequence[Withdrawn], series_uid: str, file: StoredFile, now: float
    ) -> bool:
        """Store and enqueue a note; whether it was still due."""
        with self._rooms.database.write() as session:
            due = withdrawals.still_due(session, withdrawn, destination)
            if due:
                note = self._recorded(session, withdrawn[0].series, series_uid, file, now)
                withdrawals.record_note(session, withdrawn, destination, note.id, now)
                self._enqueue(session, withdrawn[0], note, now)
            needed = index_files.is_recorded(session, file)
        if not needed:  # another machine wrote the same note meanwhile
            self._rooms.files.remove(file.file)
        return due

    def _made(self, withdrawn: Sequence[Withdrawn], out: Path) -> Mapping[str, Any]:
        """Write the note, by the first file that is there to tell whose study it is."""
        with self._rooms.database.read() as session:
            files = [instance.file for instance in withdrawals.readable_instances(session, withdrawn)]
        self._rooms.files.bring(files)
        paths = [self._rooms.files.path(file) for file in files]
        source = next((path for path in paths if path.exists()), paths[0])
        return self._rooms.pixels.call(
            "write_rejection", _WRITE_TIMEOUT_S, source=str(source), out=str(out), **self._content(withdrawn)
        )

    def _content(self, withdrawn: Sequence[Withdrawn]) -> dict[str, Any]:
        first = withdrawn[0]
        return {
            "title": first.withdrawal.title,
            "objects": [
                [one.series.series_instance_uid, one.instance.sop_class_uid, one.instance.sop_instance_uid]
                for one in withdrawn
            ],
            "description": f"Derived images: {first.withdrawal.reason}.",
            "equipment": dict(self._pipeline.deriving.equipment),
            "created_at": first.withdrawal.at,
        }

    def _recorded(self, session: Session, old: Series, series_uid: str, file: StoredFile, now: float) -> Instance:
        """The note in the index, in the study of what it withdraws."""
        identity = replace(identity_of(session, old.id, series_uid), modality="KO")
        assert old.job_row is not None  # it is derived
        (note,) = record_derived(session, identity, [file], old.job_row, self._pipeline.deriving.sender(now))
        return note

    def _enqueue(self, session: Session, withdrawn: Withdrawn, note: Instance, now: float) -> None:
        """Send it as what it withdraws was sent."""
        old = withdrawn.delivery
        to = outbox.DerivedOutgoing(
            destination=old.destination,
            rules=tuple(old.rules),
            calling_ae=old.calling_ae,
            priority=PRIORITIES["normal"],
            after_series=withdrawn.series.id,
            hold_until=now,
            withheld=self._pipeline.routing.withholds(old.destination, old.rules, ()),
        )
        outbox.enqueue_derived(session, [note], to, now)
