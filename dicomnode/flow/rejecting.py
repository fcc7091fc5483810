"""Reading the rejection notes that came (IHE RAD IOCM), and acting on them.

The receiver only notes that a Key Object Selection Document came. What it says is read here, in a pixel worker, and
acted on in one transaction: whoever reads it first, on any machine, does it for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from dicomnode.core.rejections import RejectionNote
from dicomnode.core.routing import Routing
from dicomnode.errors import DicomNodeError, StoreError
from dicomnode.flow.repeating import Repeating
from dicomnode.flow.rooms import Rooms
from dicomnode.store.index import rejections
from dicomnode.store.index.rejections import Applied, Authority
from dicomnode.store.schema import Instance
from dicomnode.telemetry import event

_POLL_S: Final = 1.0
_READ_TIMEOUT_S: Final = 60.0
_ATTEMPTS: Final = 5
_UNREADABLE: Final = "it cannot be read"
_MAY_NOT: Final = 'if it may, say so with `rejects = "any"` in its [peer.NAME]'


class Rejector(Repeating):
    """A thread that reads what came until it is stopped. `routing` gives the configuration as it is now."""

    def __init__(self, rooms: Rooms, routing: Callable[[], Routing]) -> None:
        super().__init__("reject", _POLL_S, self.read_notes)
        self._rooms = rooms
        self._routing = routing
        self._failures: Counter[int] = Counter()

    def read_notes(self, now: float) -> int:
        """Read every document that came and was not read; how many were rejection notes."""
        with self._rooms.database.read() as session:
            unread = [(row.id, instance) for row, instance in rejections.unread_notes(session)]
        return sum(self._read(row, instance, now) for row, instance in unread)

    def _read(self, rejection_row: int, instance: Instance, now: float) -> bool:
        try:
            (path,) = self._rooms.paths([instance])
            answer = self._rooms.pixels.call("read_rejection", _READ_TIMEOUT_S, path=path)
        except StoreError:  # no fault of the note, which stays unread until the store answers
            return False
        except DicomNodeError as error:
            self._failures[rejection_row] += 1
            if not error.transient or self._failures[rejection_row] == _ATTEMPTS:
                with self._rooms.database.write() as session:
                    rejections.ignore_note(session, rejection_row, "", f"{_UNREADABLE}: {error}", now)
                _tell_ignored(instance, 0, _UNREADABLE, error.hint)
            return False
        if not answer["title"]:
            with self._rooms.database.write() as session:
                rejections.forget_note(session, rejection_row)
            return False
        self._apply(rejection_row, instance, RejectionNote(answer["title"], tuple(answer["sop_instance_uids"])), now)
        return True

    def _apply(self, rejection_row: int, instance: Instance, note: RejectionNote, now: float) -> None:
        routing = self._routing()
        authority = Authority(routing.peer_policy(instance.peer).rejects, routing.destinations_of_peer(instance.peer))
        with self._rooms.database.write() as session:
            applied = rejections.apply_note(session, rejection_row, note, authority, now)
        if applied is not None:
            _tell(instance, applied)


def _tell(instance: Instance, applied: Applied) -> None:
    if applied.state == rejections.IGNORED:
        _tell_ignored(instance, applied.instances, applied.reason, _MAY_NOT)
        return
    event(
        "rejection_applied",
        peer=instance.peer,
        sop_instance_uid=instance.sop_instance_uid,
        state=applied.state,
        instances=applied.instances,
        reason=f"{applied.reason}; cancelled: {applied.deliveries} deliveries, {applied.jobs} jobs",
    )


def _tell_ignored(instance: Instance, instances: int, reason: str, hint: str) -> None:
    event(
        "rejection_ignored",
        peer=instance.peer,
        sop_instance_uid=instance.sop_instance_uid,
        instances=instances,
        reason=reason,
        hint=hint,
    )
