"""Delivery to a DICOM destination by C-STORE."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from dicomnode.core.types import Outcome, Outgoing, Receipt
from dicomnode.errors import AssociationLostError, InputError, PeerError, StoreError
from dicomnode.net.contexts import MAXIMUM_CONTEXTS, REENCODABLE, Kind, ProposedContext, propose, syntaxes_for
from dicomnode.net.pdu import StoppedError
from dicomnode.net.scu import Association, Interruption, PeerAddress, Timeouts, associate
from dicomnode.net.status import interpret
from dicomnode.net.transcode import reencode

_BROKEN_IN_A_ROW: Final = 3
"""Associations that break off one after the other before it is the destination's fault and no instance's."""


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How to deal with one destination.

    idle_s  how long an association is kept for the next batch; destinations limit how many they have open
    """

    timeouts: Timeouts = field(default_factory=Timeouts)
    idle_s: float = 20.0


@dataclass(frozen=True, slots=True)
class _Open:
    """The association that is kept, and what it was opened for."""

    association: Association
    calling_ae: str
    proposed: frozenset[ProposedContext]

    def serves(self, calling_ae: str, contexts: Sequence[ProposedContext]) -> bool:
        return self.calling_ae == calling_ae and self.proposed.issuperset(contexts) and self.association.usable


class DicomDeliverer:
    """A `Deliverer` for one drainer thread. It keeps its association for the next batch; `close` ends it."""

    def __init__(self, address: PeerAddress, settings: DeliverySettings = DeliverySettings()) -> None:
        self._address = address
        self._settings = settings
        self._lock = threading.Lock()  # held while delivering: the idle timer must not end the association then
        self._open: _Open | None = None
        self._timer: threading.Timer | None = None
        self._interruption = Interruption()

    def deliver(self, batch: Sequence[Outgoing]) -> Iterator[Receipt]:
        """See `dicomnode.core.ports.Deliverer`. What cannot be sent gets its receipt, and the rest goes on."""
        with self._lock:
            self._cancel_timer()
            try:
                for contexts in propose(Kind(each.sop_class_uid, each.transfer_syntax_uid) for each in batch):
                    classes = {context.abstract_syntax for context in contexts}
                    yield from self._deliver([each for each in batch if each.sop_class_uid in classes], contexts)
            except PeerError:
                if not self._interruption:
                    raise
            finally:
                self._start_timer()

    def interrupt(self) -> None:
        """See `dicomnode.core.ports.Deliverer`. A connection attempt that is under way still takes its time-out."""
        self._interruption.interrupt()

    def close(self) -> None:
        """Release the association; waits for a batch that is being delivered."""
        with self._lock:
            self._cancel_timer()
            self._end_association()

    def _deliver(self, batch: Sequence[Outgoing], contexts: Sequence[ProposedContext]) -> Iterator[Receipt]:
        """Deliver what fits one association.

        One kept from before may be dead without a sign: what it was to carry is tried anew. An instance at which an
        open one breaks off may be at fault itself (some destinations abort at what they cannot parse): it waits its
        own time, and the next one goes on. The destination as a whole is down where no association can be had, or
        where several break off one after the other.
        """
        kept, broken = self._open is not None, 0
        for outgoing in batch:
            try:
                receipt = self._send_anew_if_lost(outgoing, contexts) if kept else self._send(outgoing, contexts)
            except AssociationLostError as error:
                if self._open is None or self._interruption:
                    raise
                self._end_association()
                broken += 1
                yield Receipt(outgoing.outbox_id, Outcome.FAILED, None, str(error), error.hint, transient=True)
                if broken == _BROKEN_IN_A_ROW:
                    raise
            else:
                broken = 0
                yield receipt
            kept = False

    def _send_anew_if_lost(self, outgoing: Outgoing, contexts: Sequence[ProposedContext]) -> Receipt:
        try:
            return self._send(outgoing, contexts)
        except AssociationLostError:
            self._end_association()
            return self._send(outgoing, contexts)

    def _send(self, outgoing: Outgoing, contexts: Sequence[ProposedContext]) -> Receipt:
        association = self._association(outgoing.calling_ae, contexts)
        for syntax in syntaxes_for(outgoing.transfer_syntax_uid):
            if Kind(outgoing.sop_class_uid, syntax) in association.accepted:
                return _store(association, outgoing, syntax)
        return _not_accepted(association, outgoing)

    def _association(self, calling_ae: str, contexts: Sequence[ProposedContext]) -> Association:
        if self._interruption:
            raise StoppedError("this node is stopping")
        if self._open is None or not self._open.serves(calling_ae, contexts):
            before = self._open.proposed if self._open is not None else frozenset[ProposedContext]()
            self._end_association()
            wanted = before.union(contexts)  # what came before comes again: batches alternate between classes
            if len(wanted) > MAXIMUM_CONTEXTS:
                wanted = frozenset(contexts)
            ordered = sorted(wanted)
            association = associate(self._address, calling_ae, ordered, self._settings.timeouts, self._interruption)
            self._open = _Open(association, calling_ae, wanted)
        return self._open.association

    def _end_association(self) -> None:
        if self._open is not None:
            self._open.association.release()
            self._open = None

    def _start_timer(self) -> None:
        if self._open is not None:
            self._timer = threading.Timer(self._settings.idle_s, self._end_if_idle)
            self._timer.daemon = True
            self._timer.start()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_if_idle(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._end_association()
            finally:
                self._lock.release()


def _store(association: Association, outgoing: Outgoing, syntax: str) -> Receipt:
    """Send one instance in an accepted transfer syntax."""
    sop_class_uid, sop_instance_uid = outgoing.sop_class_uid, outgoing.sop_instance_uid
    try:
        if syntax == outgoing.transfer_syntax_uid:
            status = association.store(outgoing.path, sop_class_uid, sop_instance_uid, syntax)
        else:
            status = association.store_encoded(reencode(outgoing.path, syntax), sop_class_uid, sop_instance_uid, syntax)
    except (InputError, StoreError) as error:  # of ours: the destination has no part in it
        return Receipt(outgoing.outbox_id, Outcome.FAILED, None, str(error), error.hint, error.transient)
    meaning = interpret(status)
    return Receipt(outgoing.outbox_id, meaning.outcome, status, meaning.meaning, meaning.hint, meaning.transient)


def _not_accepted(association: Association, outgoing: Outgoing) -> Receipt:
    """The receipt of an instance for which no presentation context was accepted."""
    if association.class_refused(outgoing.sop_class_uid) or outgoing.transfer_syntax_uid in REENCODABLE:
        meaning = "the destination does not accept this SOP class"
        hint = f"do not send objects of SOP class {outgoing.sop_class_uid} there, or have it enabled at the destination"
        return Receipt(outgoing.outbox_id, Outcome.REFUSED, None, meaning, hint, transient=False)
    meaning = "the destination does not accept the transfer syntax it is stored in"
    hint = f"have transfer syntax {outgoing.transfer_syntax_uid} enabled at the destination: we do not decompress"
    return Receipt(outgoing.outbox_id, Outcome.FAILED, None, meaning, hint, transient=False)
