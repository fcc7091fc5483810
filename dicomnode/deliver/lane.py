"""One of the associations with a destination: sends one instance after the other, and opens the next while it waits."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

from dicomnode.core.ports import Transcoder
from dicomnode.core.types import Outcome, Outgoing, Receipt
from dicomnode.deliver.forms import Forms, answered, chosen
from dicomnode.deliver.work import Work
from dicomnode.errors import AssociationLostError, DicomNodeError, InputError, PeerError, StoreError, WorkerError
from dicomnode.net.contexts import MAXIMUM_CONTEXTS, REENCODABLE, Kind, ProposedContext
from dicomnode.net.decompressed import decompressed
from dicomnode.net.scu import Association, Interruption, Opening, PeerAddress, associate
from dicomnode.net.transcode import reencode
from dicomnode.net.upload import Upload

_UNANSWERED_S: Final = 1.0
"""A request for an association that was given up after this time counts as refused: some destinations serve only one
association at once, and let others wait."""


@dataclass(frozen=True, slots=True)
class Line:
    """What all lanes to one destination share."""

    address: PeerAddress
    opening: Opening
    forms: Forms
    transcoder: Transcoder | None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an association is opened for."""

    calling_ae: str
    contexts: frozenset[ProposedContext]


@dataclass(frozen=True, slots=True)
class _Ready:
    """An instance that is open and can be sent."""

    outgoing: Outgoing
    upload: Upload


@dataclass(slots=True)
class _Kept:
    """The association that is kept, and what it was opened for. `is_proven`: it lived in this batch."""

    association: Association
    proposal: Proposal
    is_proven: bool = True

    def serves(self, proposal: Proposal) -> bool:
        return (
            self.proposal.calling_ae == proposal.calling_ae
            and self.proposal.contexts >= proposal.contexts
            and self.association.usable
        )


class Lane:
    """For one thread at a time. It keeps its association for the next batch; `end` releases it."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._interruption = Interruption()
        self._kept: _Kept | None = None
        self._ahead: _Ready | None = None

    @property
    def is_open(self) -> bool:
        return self._kept is not None

    def run(self, work: Work, proposal: Proposal) -> None:
        """Send what waits until nothing does. Raises nothing that a destination or a file can cause."""
        if self._kept is not None:
            self._kept.is_proven = False
        is_connected = False
        try:
            while work.waits or self._ahead is not None:
                association = self._association_or_none(proposal, work)
                if association is None:
                    return
                if not is_connected:
                    work.connected()
                    is_connected = True
                if (outgoing := self._next(work)) is None:
                    return
                self._send(association, outgoing, work)
                if self._kept is None:
                    work.disconnected()
                    is_connected = False
        finally:
            self._forget_ahead(work)
            if is_connected:
                work.disconnected()

    def end(self) -> None:
        """Release the association, if there is one."""
        if self._kept is not None:
            self._kept.association.release()
            self._kept = None

    def cut(self) -> None:
        """Make the association fail that is open or being asked for; from any thread. `mend` before the next run."""
        self._interruption.interrupt()

    def mend(self) -> None:
        """Let it open associations again after a `cut`."""
        if self._interruption:
            self._interruption = Interruption()

    def _next(self, work: Work) -> Outgoing | None:
        if self._ahead is None:
            return work.take()
        return None if work.is_ending else self._ahead.outgoing

    def _association_or_none(self, proposal: Proposal, work: Work) -> Association | None:
        """An open association, or None where this lane can have none."""
        started = time.monotonic()
        try:
            return self._association(proposal)
        except PeerError as error:
            if not self._interruption or time.monotonic() - started > _UNANSWERED_S:
                work.refused(error)
            return None

    def _association(self, proposal: Proposal) -> Association:
        if self._kept is None or not self._kept.serves(proposal):
            before = self._kept.proposal.contexts if self._kept is not None else frozenset[ProposedContext]()
            self.end()
            wanted = before | proposal.contexts  # what came before comes again: batches alternate between classes
            if len(wanted) > MAXIMUM_CONTEXTS:
                wanted = proposal.contexts
            opening = replace(self._line.opening, interruption=self._interruption)
            association = associate(self._line.address, proposal.calling_ae, sorted(wanted), opening)
            self._kept = _Kept(association, Proposal(proposal.calling_ae, wanted))
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
        except (InputError, StoreError, WorkerError) as error:  # of ours: the destination has no part in it
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
        if is_proven and not self._interruption:
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
        if outgoing.transfer_syntax_uid in REENCODABLE:
            return Upload(kind, uid, around=(reencode(outgoing.path, kind.transfer_syntax_uid), b""))
        assert self._line.transcoder is not None  # else no such form was proposed
        with self._line.transcoder.decoded(outgoing.path) as pixels:
            return decompressed(outgoing.path, kind, uid, pixels)

    def _forget_ahead(self, work: Work) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.upload.close()
            work.put_back(ahead.outgoing)


def _failed(outgoing: Outgoing, error: DicomNodeError) -> Receipt:
    return Receipt(outgoing.outbox_id, Outcome.FAILED, None, str(error), error.hint, error.transient)
