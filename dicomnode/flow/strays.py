"""Taking in files without a row that a person asked for (`dicomnode quarantine requeue stray:...`).

They go the way of everything received, from a sender that nobody knows any more: rules that ask for one do not match.
The very same bytes under a known UID change nothing, so that a kill half way, or two machines at once, do no harm.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

from dicomnode.core.ports import Intake
from dicomnode.core.types import AssociationEnd, Offer, Sender
from dicomnode.errors import InputError, StoreError
from dicomnode.flow.repeating import Repeating
from dicomnode.net.part10 import read_file_meta
from dicomnode.store.strays import Stray, Strays
from dicomnode.telemetry import event

_POLL_S: Final = 5.0
_PIECE_BYTES: Final = 1 << 20


class StrayIntake(Repeating):
    """Takes in what was asked for, one after another."""

    def __init__(self, strays: Strays, intake: Intake, ae_title: str) -> None:
        super().__init__("strays", _POLL_S, lambda _: self.take_in_all())
        self._strays = strays
        self._intake = intake
        self._ae_title = ae_title

    def take_in_all(self) -> int:
        """Take in everything that was asked for; how many files. What cannot be read is put back."""
        return sum(self._settle(stray) for stray in self._strays.requeued())

    def _settle(self, stray: Stray) -> bool:
        try:
            uid = self._take_in(stray)
        except FileNotFoundError:  # another machine was faster
            return False
        except (InputError, StoreError) as error:
            with suppress(StoreError):  # it is still asked for, then
                self._strays.put_back(stray)
            event("stray_refused", path=stray.path.name, error=type(error).__name__, reason=str(error), hint=error.hint)
            return False
        self._strays.forget(stray)
        event("stray_taken_in", path=stray.path.name, sop_instance_uid=uid)
        return True

    def _take_in(self, stray: Stray) -> str:
        sender = Sender("", "", self._ae_title, "", time.time())
        with stray.path.open("rb") as file:
            meta = read_file_meta(file)
            association = self._intake.association_opened(sender)
            offer = Offer(sender, association, meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid)
            incoming = self._intake.begin(offer)
            try:
                file.seek(meta.offset_bytes)
                while piece := file.read(_PIECE_BYTES):
                    incoming.write([piece])
                incoming.commit()
            finally:
                self._intake.association_ended(association, AssociationEnd.RELEASED)
        return meta.sop_instance_uid
