"""One of the associations with a destination: sends one instance after the other, and opens the next while it waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicomnode.core.types import Outcome, Outgoing, Receipt
from dicomnode.deliver.forms import Forms, answered, chosen
from dicomnode.deliver.work import Work
from dicomnode.errors import AssociationLostError, DicomNodeError, InputError, PeerError, StoreError
from dicomnode.net.contexts import MAXIMUM_CONTEXTS, Kind, ProposedContext
from dicomnode.net.pdu import StoppedError
from dicomnode.net.scu import Association, Opening, PeerAddress, associate
from dicomnode.net.transcode import reencode
from dicomnode.net.upload import Upload


@dataclass(frozen=True, slots=True)
class Line:
    """What all lanes to one destination share."""

    address: PeerAddress
    opening: Opening
    forms: Forms

    @property
    def is_cut(self) -> bool:
        return bool(self.opening.interruption)


@dataclass(frozen=True, slots=True)
class _Ready:
    """An instance that is open and can be sent."""

    outgoing: Outgoing
    upload: Upload


@dataclass(slots=True)
class _Kept:
    """The association that is kept, and what it was opened for. `is_proven`: it lived in this batch."""

    association: Association
    calling_ae: str
    proposed: frozenset[ProposedContext]
    is_proven: bool = True

    def serves(self, calling_ae: str, contexts: Sequence[ProposedContext]) -> bool:
        return self.calling_ae == calling_ae and self.proposed.issuperset(contexts) and self.association.usable


class Lane:
    """For one thread at a time. It keeps its association for the next batch; `end` releases it."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._kept: _Kept | None = None
        self._ahead: _Ready | None = None

    @property
    def is_open(self) -> bool:
        return self._kept is not None

    def run(self, work: Work, contexts: Sequence[ProposedContext]) -> None:
        """Send what waits until nothing does. Raises nothing that a destination or a file can cause."""
        if self._kept is not None:
            self._kept.is_proven = False
        is_connected = False
        try:
            while (outgoing := self._next(work)) is not None:
                association = self._association_or_none(outgoing, contexts, work)
                if association is None:
                    return
                if not is_connected:
                    work.connected()
                    is_connected = True
                self._send(association, outgoing, work)
        finally:
            self._forget_ahead(work)
            if is_connected:
                work.disconnected()

    def end(self) -> None:
        """Release the association, if there is one."""
        if self._kept is not None:
            self._kept.association.release()
            self._kept = None

    def _next(self, work: Work) -> Outgoing | None:
        if self._ahead is None:
            return work.take()
        return None if work.is_ending else self._ahead.outgoing

    def _association_or_none(
        self, outgoing: Outgoing, contexts: Sequence[ProposedContext], work: Work
    ) -> Association | None:
        """An open association; None where this lane can have none, and what it was to send waits for another."""
        try:
            return self._association(outgoing.calling_ae, contexts)
        except PeerError as error:
            if self._ahead is None:
                work.put_back(outgoing)
            if not self._line.is_cut:
                work.refused(error)
            return None

    def _association(self, calling_ae: str, contexts: Sequence[ProposedContext]) -> Association:
        if self._line.is_cut:
            raise StoppedError("this node is stopping")
        if self._kept is None or not self._kept.serves(calling_ae, contexts):
            before = self._kept.proposed if self._kept is not None else frozenset[ProposedContext]()
            self.end()
            wanted = before.union(contexts)  # what came before comes again: batches alternate between classes
            if len(wanted) > MAXIMUM_CONTEXTS:
                wanted = frozenset(contexts)
            association = associate(self._line.address, calling_ae, sorted(wanted), self._line.opening)
            self._kept = _Kept(association, calling_ae, wanted)
        return self._kept.association

    def _send(self, association: Association, outgoing: Outgoing, work: Work) -> None:
        """Send one instance, see that it has its receipt, and open the next one meanwhile."""
        try:
            prepared = self._prepared(association, outgoing)
            if isinstance(prepared, Receipt):
                work.tell(prepared)
                return
            with prepared:
                association.begin_store(prepared)
            self._look_ahead(association, work)
            response = association.answer()
        except AssociationLostError as error:
            self._lost(outgoing, error, work)
        except (InputError, StoreError) as error:  # of ours: the destination has no part in it
            work.tell(_failed(outgoing, error))
        else:
            assert self._kept is not None
            self._kept.is_proven = True
            work.tell(answered(outgoing, response))

    def _lost(self, outgoing: Outgoing, error: AssociationLostError, work: Work) -> None:
        """One kept from before may be dead without a sign: what it was to carry is tried anew."""
        self._forget_ahead(work)
        is_proven = self._kept is not None and self._kept.is_proven
        self.end()
        if is_proven and not self._line.is_cut:
            work.broke_off(outgoing, error)
        else:
            work.put_back(outgoing)

    def _prepared(self, association: Association, outgoing: Outgoing) -> Upload | Receipt:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            if ahead.upload.kind in association.accepted:
                return ahead.upload
            ahead.upload.close()
        kind = chosen(self._line.forms.of(outgoing), association.accepted)
        if kind is None:
            return self._line.forms.not_accepted(outgoing, association.class_refused(outgoing.sop_class_uid))
        return self._upload(outgoing, kind)

    def _look_ahead(self, association: Association, work: Work) -> None:
        """Open the next instance while the destination works. What has to be transcoded waits for its turn."""
        outgoing = work.take()
        if outgoing is None:
            return
        kind = chosen(self._line.forms.of(outgoing), association.accepted)
        if kind is None or kind.transfer_syntax_uid != outgoing.transfer_syntax_uid:
            work.put_back(outgoing)
            return
        try:
            self._ahead = _Ready(outgoing, Upload.stored(outgoing.path, kind, outgoing.sop_instance_uid))
        except (InputError, StoreError) as error:
            work.tell(_failed(outgoing, error))

    def _upload(self, outgoing: Outgoing, kind: Kind) -> Upload:
        uid = outgoing.sop_instance_uid
        if kind.transfer_syntax_uid == outgoing.transfer_syntax_uid:
            return Upload.stored(outgoing.path, kind, uid)
        return Upload(kind, uid, around=(reencode(outgoing.path, kind.transfer_syntax_uid), b""))

    def _forget_ahead(self, work: Work) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.upload.close()
            work.put_back(ahead.outgoing)


def _failed(outgoing: Outgoing, error: DicomNodeError) -> Receipt:
    return Receipt(outgoing.outbox_id, Outcome.FAILED, None, str(error), error.hint, error.transient)
