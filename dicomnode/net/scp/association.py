"""One connection to the storage server, from the TCP accept to its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dicomnode import metrics, telemetry
from dicomnode.core.ports import Intake
from dicomnode.core.types import AssociationEnd, Sender
from dicomnode.errors import AssociationLostError
from dicomnode.net import pdu
from dicomnode.net.dimse import RESPONSE, Command, CommandField, read_command
from dicomnode.net.negotiation import APPLICATION_CONTEXT, AcceptedContext, AssociationRequest, read_request, reject
from dicomnode.net.pdu import AbortedError, AbortReason, Pdu, PduType, ProtocolError, StoppedError, Wire
from dicomnode.net.scp.admission import AddressesOf, Origin, Rejected, RejectReason, admit
from dicomnode.net.scp.agreement import Agreement, Negotiator, accept
from dicomnode.net.scp.exchange import Exchange, Service
from dicomnode.net.scp.outstanding import Outstanding
from dicomnode.net.scp.settings import ScpSettings
from dicomnode.net.scp.storage import unrecognized
from dicomnode.net.tls_wire import TlsError
from dicomnode.net.trace import PeerTrace


@dataclass(frozen=True, slots=True)
class Acceptor:
    """What all associations of one server share.

    negotiate   what a proposal comes to
    services    what serves each command field
    take_slot   called with a connection whose association is granted, and its peer; False where a limit is reached
    """

    settings: ScpSettings
    intake: Intake
    negotiate: Negotiator
    services: Mapping[int, Service]
    addresses_of: AddressesOf
    take_slot: Callable[[Wire, str], bool]


def serve(wire: Wire, acceptor: Acceptor) -> None:
    """Serve a connection to its end and close it. Nothing that the other side does raises."""
    try:
        wire.set_timeout(acceptor.settings.limits.artim_s)
        wire.secure()
        exchange = _establish(wire, acceptor)
        if exchange is not None:
            wire.set_timeout(acceptor.settings.limits.idle_s)
            _converse(exchange, acceptor)
    except ProtocolError as error:
        _cut_off(wire, error)
    except TlsError as error:
        telemetry.event("tls_failed", source_address=wire.address, reason=str(error), hint=error.hint)
    except AssociationLostError as error:
        telemetry.event("connection_ended", source_address=wire.address, reason=str(error))
    finally:
        wire.close()


def _establish(wire: Wire, acceptor: Acceptor) -> Exchange | None:
    """Read the association request and answer it; None where there will be no association."""
    request = _read_request(wire, acceptor)
    if request is None:
        return None
    origin = Origin(wire.address, wire.is_secured, wire.certificate)
    verdict = admit(request, origin, acceptor.settings, acceptor.addresses_of)
    if isinstance(verdict, Rejected):
        _reject(wire, request, verdict, acceptor)
        return None
    if verdict.peer and acceptor.settings.traces is not None:
        trace = PeerTrace(acceptor.settings.traces, verdict.peer).follow(wire, "acceptor")
        if trace is not None:
            trace.associate("received", request.items)
    agreement = acceptor.negotiate(request.items)
    if (obstacle := _obstacle(agreement, wire, verdict.peer, acceptor)) is not None:
        _reject(wire, request, obstacle, acceptor)
        return None
    sender = Sender(verdict.peer, request.calling_ae, request.called_ae, wire.address, time.time())
    association_id = acceptor.intake.association_opened(sender)
    outstanding = Outstanding(agreement.operations, wire.cut)
    exchange = Exchange(wire, agreement.contexts, agreement.maximum_bytes, sender, association_id, outstanding)
    metrics.count("dicomnode_associations_accepted_total", peer=sender.peer or metrics.STRANGER)
    telemetry.event("association_opened", **_who(request, wire), peer=sender.peer, association_id=association_id)
    with contextlib.suppress(AssociationLostError):  # the conversation finds out, and records it
        wire.send(accept(request, agreement))
    return exchange


def _read_request(wire: Wire, acceptor: Acceptor) -> AssociationRequest | None:
    """Who calls whom; None where that is no DICOM and a stranger need not know that we are."""
    try:
        first = wire.read()
        if not isinstance(first, Pdu) or first.type is not PduType.ASSOCIATE_RQ:
            raise ProtocolError("the first PDU is no A-ASSOCIATE-RQ", AbortReason.UNEXPECTED_PDU)
        return read_request(first.body)
    except ProtocolError as error:
        if acceptor.settings.answer_strangers:
            raise
        telemetry.event("protocol_violated", source_address=wire.address, reason=str(error))
        return None


def _obstacle(agreement: Agreement, wire: Wire, peer: str, acceptor: Acceptor) -> Rejected | None:
    """Why a caller that may associate cannot."""
    if agreement.application_context != APPLICATION_CONTEXT:
        return Rejected(RejectReason.APPLICATION_CONTEXT, "unknown application context", "this is no DICOM application")
    if not acceptor.take_slot(wire, peer):
        hint = "raise limits.associations, limits.per_address or the peer's associations"
        return Rejected(RejectReason.LOCAL_LIMIT, "too many associations", hint)
    return None


def _cut_off(wire: Wire, error: ProtocolError) -> None:
    telemetry.event("protocol_violated", source_address=wire.address, reason=str(error))
    with contextlib.suppress(AssociationLostError):
        wire.send(pdu.abort_by_provider(error.reason))


def _reject(wire: Wire, request: AssociationRequest, verdict: Rejected, acceptor: Acceptor) -> None:
    metrics.count("dicomnode_associations_refused_total", reason=verdict.reason.name.lower())
    telemetry.event("association_refused", **_who(request, wire), reason=verdict.why, hint=verdict.hint)
    if verdict.reason is not RejectReason.CALLING_AE or acceptor.settings.answer_strangers:
        wire.send(reject(*verdict.reason.value))


def _who(request: AssociationRequest, wire: Wire) -> dict[str, str]:
    return {"calling_ae": request.calling_ae, "called_ae": request.called_ae, "source_address": wire.address}


def _converse(exchange: Exchange, acceptor: Acceptor) -> None:
    """Serve requests until the association ends; record how it did, then say good-bye."""
    how, farewell = AssociationEnd.ABORTED, pdu.ABORT_BY_USER  # for an error of ours, and when we stop
    try:
        _serve_requests(exchange, acceptor.services)
        how, farewell = AssociationEnd.RELEASED, pdu.RELEASE_RP
    except AbortedError:
        farewell = b""
    except StoppedError:
        pass
    except ProtocolError as error:
        farewell = pdu.abort_by_provider(error.reason)
        telemetry.event("protocol_violated", source_address=exchange.wire.address,
                        association_id=exchange.association_id, reason=str(error))  # fmt: skip
    except AssociationLostError:
        how = AssociationEnd.LOST
    finally:
        exchange.outstanding.wait()
        try:
            _record_end(exchange, acceptor.intake, how)
        finally:
            with contextlib.suppress(AssociationLostError):
                exchange.wire.send(farewell)


def _record_end(exchange: Exchange, intake: Intake, how: AssociationEnd) -> None:
    intake.association_ended(exchange.association_id, how)
    sender = exchange.sender
    telemetry.event(
        "association_ended",
        calling_ae=sender.calling_ae,
        called_ae=sender.called_ae,
        source_address=sender.source_address,
        peer=sender.peer,
        association_id=exchange.association_id,
        how=how,
        instances=exchange.tally.instances,
        bytes=exchange.tally.size_bytes,
        seconds=time.time() - sender.received_at,
    )


def _serve_requests(exchange: Exchange, services: Mapping[int, Service]) -> None:
    """Returns when the other side releases the association."""
    while True:
        read = read_command(exchange.wire)
        if isinstance(read, Pdu):
            if read.type is not PduType.RELEASE_RQ:
                raise ProtocolError(f"{read.type.name} within an association", AbortReason.UNEXPECTED_PDU)
            return
        context_id, request = read
        context = exchange.contexts.get(context_id)
        if context is None:
            raise ProtocolError("a command in a presentation context that was not accepted")
        _dispatch(exchange, context, request, services)


def _dispatch(exchange: Exchange, context: AcceptedContext, request: Command, services: Mapping[int, Service]) -> None:
    field = request.field
    if field is None or field & RESPONSE:
        raise ProtocolError("a command that is no request", AbortReason.UNEXPECTED_PDU)
    if field != CommandField.C_CANCEL_RQ:  # cancels what is over by now (PS3.7 9.3.2.3): it has no response
        services.get(field, unrecognized)(exchange, context, request)
