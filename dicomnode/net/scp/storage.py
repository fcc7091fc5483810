"""Storage SCP and Verification SCP (PS3.4 annexes A and B): C-STORE and C-ECHO."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from traceback import walk_tb

from dicomnode import metrics, telemetry
from dicomnode.core.ports import Incoming, Intake
from dicomnode.core.types import Offer, Sender
from dicomnode.errors import DicomNodeError
from dicomnode.net.contexts import UID_FORM
from dicomnode.net.dimse import Command, Element
from dicomnode.net.negotiation import AcceptedContext, printable
from dicomnode.net.scp.exchange import Exchange
from dicomnode.net.status import Status, status_of


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an instance is not stored: the status, and an Error Comment (LO: 64 characters, no PHI).

    error  the type of an error that nothing expected
    """

    status: Status
    comment: str
    hint: str = ""
    error: str = ""


def echo(exchange: Exchange, context: AcceptedContext, request: Command) -> None:
    """C-ECHO (PS3.7 9.1.5)."""
    if request.has_data_set:
        exchange.wire.read_data(context.context_id, _forget)
    exchange.respond(context, request, {Element.STATUS: Status.SUCCESS})


def unrecognized(exchange: Exchange, context: AcceptedContext, request: Command) -> None:
    """Any operation that we do not offer (PS3.7 annex C); its data set is read and forgotten."""
    if request.has_data_set:
        exchange.wire.read_data(context.context_id, _forget)
    exchange.respond(context, request, {Element.STATUS: Status.UNRECOGNIZED_OPERATION})


class StorageService:
    """C-STORE (PS3.7 9.1.1): data sets go to the intake as they come, none is decoded here."""

    def __init__(self, intake: Intake, max_dataset_bytes: int) -> None:
        self._intake = intake
        self._max_dataset_bytes = max_dataset_bytes

    def __call__(self, exchange: Exchange, context: AcceptedContext, request: Command) -> None:
        """Store one instance and answer. What cannot be stored is read to its end, so that the association goes on."""
        refusal = _problem(context, request)
        if refusal is None:
            self._receive(exchange, context, request)
            return
        if request.has_data_set:
            exchange.wire.read_data(context.context_id, _forget)
        _answer(exchange, context, request, refusal)

    def _receive(self, exchange: Exchange, context: AcceptedContext, request: Command) -> None:
        offer = Offer(
            replace(exchange.sender, received_at=time.time()),
            exchange.association_id,
            context.abstract_syntax,
            request.uid(Element.AFFECTED_SOP_INSTANCE_UID),
            context.transfer_syntax,
        )
        transfer = _Transfer(self._intake, offer, self._max_dataset_bytes)
        try:
            exchange.wire.read_data(context.context_id, transfer.write)
        except BaseException:
            transfer.forget()
            raise

        def finish() -> None:
            refusal = transfer.finish()
            if refusal is None:
                exchange.count(transfer.size_bytes)
            _answer(exchange, context, request, refusal)
            if refusal is None:
                _measure(offer.sender, transfer.size_bytes)

        exchange.outstanding.end(finish)


class _Transfer:
    """One data set on its way into the intake. After a failure the rest is swallowed."""

    def __init__(self, intake: Intake, offer: Offer, max_dataset_bytes: int) -> None:
        self.size_bytes = 0
        self._max_dataset_bytes = max_dataset_bytes
        self._incoming: Incoming | None = None
        self._refusal: Refusal | None = None
        try:
            self._incoming = intake.begin(offer)
        except Exception as error:  # noqa: BLE001  whatever it is, the sender is answered
            self._refusal = _refusal(error)

    def write(self, pieces: Sequence[memoryview]) -> None:
        if self._incoming is None:
            return
        self.size_bytes += sum(map(len, pieces))
        if self.size_bytes > self._max_dataset_bytes:
            self._fail(
                Refusal(Status.OUT_OF_RESOURCES, "data set larger than accepted", "see limits.max_dataset_bytes")
            )
            return
        try:
            self._incoming.write(pieces)
        except Exception as error:  # noqa: BLE001  as above
            self._fail(_refusal(error))

    def finish(self) -> Refusal | None:
        """Make it durable; why it is not, or None."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            try:
                incoming.commit()
            except Exception as error:  # noqa: BLE001  as above
                self._refusal = _refusal(error)
        return self._refusal

    def _fail(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self.forget()

    def forget(self) -> None:
        """Keep nothing of what came."""
        if self._incoming is not None:
            self._incoming.abort()
            self._incoming = None


def _answer(exchange: Exchange, context: AcceptedContext, request: Command, refusal: Refusal | None) -> None:
    values: dict[Element, int | str] = {Element.STATUS: Status.SUCCESS}
    if UID_FORM.fullmatch(sop_instance_uid := request.uid(Element.AFFECTED_SOP_INSTANCE_UID)):
        values[Element.AFFECTED_SOP_INSTANCE_UID] = sop_instance_uid
    if refusal is not None:
        values |= {Element.STATUS: refusal.status, Element.ERROR_COMMENT: refusal.comment}
        _log_refusal(exchange, request, refusal)
    exchange.respond(context, request, values)


def _forget(_: Sequence[memoryview]) -> None:
    """What is not stored is read to its end all the same."""


def _problem(context: AcceptedContext, request: Command) -> Refusal | None:
    """What is wrong with a C-STORE request by its command set alone."""
    if request.uid(Element.AFFECTED_SOP_CLASS_UID) != context.abstract_syntax:
        return Refusal(Status.SOP_CLASS_NOT_SUPPORTED, "SOP class is not the one of the presentation context")
    if not UID_FORM.fullmatch(request.uid(Element.AFFECTED_SOP_INSTANCE_UID)):
        return Refusal(Status.INVALID_SOP_INSTANCE, "not a UID")
    if not request.has_data_set:
        return Refusal(Status.CANNOT_UNDERSTAND, "C-STORE without a data set")
    return None


def _refusal(error: Exception) -> Refusal:
    if not isinstance(error, DicomNodeError):  # its text is left out: it may quote the data set
        hint = f"this is a fault of the node, at {_place(error)}: report it"
        return Refusal(Status.PROCESSING_FAILURE, "unexpected error", hint, type(error).__name__)
    comment = printable(str(error)).replace("\\", "/")[:64]
    return Refusal(status_of(error), comment, error.hint)


def _place(error: Exception) -> str:
    """The innermost frames, the raising one first."""
    frames = [f"{frame.f_globals.get('__name__', '?')}:{line}" for frame, line in walk_tb(error.__traceback__)]
    return " < ".join(frames[:-4:-1])


def _measure(sender: Sender, size_bytes: int) -> None:
    peer = sender.peer or metrics.STRANGER
    metrics.count("dicomnode_instances_stored_total", peer=peer)
    metrics.count("dicomnode_bytes_stored_total", size_bytes, peer=peer)
    metrics.observe("dicomnode_store_seconds", time.time() - sender.received_at)


def _log_refusal(exchange: Exchange, request: Command, refusal: Refusal) -> None:
    peer = exchange.sender.peer or metrics.STRANGER
    metrics.count("dicomnode_instances_refused_total", peer=peer, status=f"0x{refusal.status:04X}")
    telemetry.event(
        "instance_refused",
        association_id=exchange.association_id,
        peer=exchange.sender.peer,
        sop_class_uid=request.uid(Element.AFFECTED_SOP_CLASS_UID),
        sop_instance_uid=request.uid(Element.AFFECTED_SOP_INSTANCE_UID),
        status=int(refusal.status),
        error=refusal.error or None,
        reason=refusal.comment,
        hint=refusal.hint,
    )
