"""One connection to the storage server, from the TCP accept to its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dicomnode import telemetry
from dicomnode.core.ports import Intake
from dicomnode.core.types import AssociationEnd, Sender
from dicomnode.errors import AssociationLostError, DicomNodeError
from dicomnode.net import pdu
from dicomnode.net.dimse import RESPONSE, Command, CommandField, read_command
from dicomnode.net.negotiation import AcceptedContext, AssociationRequest, accept, read_request, reject
from dicomnode.net.pdu import AbortedError, AbortReason, Pdu, PduType, ProtocolError, StoppedError, Wire
from dicomnode.net.scp.admission import AddressesOf, Admitted, Rejected, RejectReason, admit
from dicomnode.net.scp.exchange import Exchange, Service
from dicomnode.net.scp.settings import ScpSettings
from dicomnode.net.scp.storage import unrecognized


@dataclass(frozen=True, slots=True)
class Acceptor:
    """What all associations of one server share.

    supported   abstract syntaxes: storage SOP classes, and others with a service
    services    what serves each command field
    take_slot   called with a connection whose association is granted; False where a limit is reached
    """

    settings: ScpSettings
    intake: Intake
    supported: frozenset[str]
    services: Mapping[int, Service]
    addresses_of: AddressesOf
    take_slot: Callable[[Wire], bool]


def serve(wire: Wire, acceptor: Acceptor) -> None:
    """Serve a connection to its end and close it. Nothing that the other side does raises."""
    try:
        wire.set_timeout(acceptor.settings.limits.artim_s)
        exchange = _establish(wire, acceptor)
        if exchange is not None:
            wire.set_timeout(acceptor.settings.limits.idle_s)
            _converse(exchange, acceptor)
    except ProtocolError as error:
        telemetry.event("protocol_violated", source_address=wire.address, reason=str(error))
        with contextlib.suppress(AssociationLostError):
            wire.send(pdu.abort_by_provider(error.reason))
    except AssociationLostError as error:
        telemetry.event("connection_ended", source_address=wire.address, reason=str(error))
    finally:
        wire.close()


def _establish(wire: Wire, acceptor: Acceptor) -> Exchange | None:
    """Read the association request and answer it; None where it was rejected."""
    first = wire.read()
    if not isinstance(first, Pdu) or first.type is not PduType.ASSOCIATE_RQ:
        raise ProtocolError("the first PDU is no A-ASSOCIATE-RQ", AbortReason.UNEXPECTED_PDU)
    request = read_request(first.body)
    verdict = _judge(request, wire, acceptor)
    if isinstance(verdict, Rejected):
        _reject(wire, request, verdict)
        return None
    answer, contexts = accept(request, acceptor.supported)
    sender = Sender(verdict.peer, request.calling_ae, request.called_ae, wire.address, time.time())
    try:
        association_id = acceptor.intake.association_opened(sender)
    except DicomNodeError as error:
        _reject(wire, request, Rejected(RejectReason.CONGESTION, str(error), error.hint))
        return None
    exchange = Exchange(
        wire, {each.context_id: each for each in contexts}, request.maximum_bytes, sender, association_id
    )
    telemetry.event("association_opened", **_who(request, wire), peer=sender.peer, association_id=association_id)
    with contextlib.suppress(AssociationLostError):  # the conversation finds out, and records it
        wire.send(answer)
    return exchange


def _judge(request: AssociationRequest, wire: Wire, acceptor: Acceptor) -> Admitted | Rejected:
    verdict = admit(request, wire.address, acceptor.settings, acceptor.addresses_of)
    if isinstance(verdict, Admitted) and not acceptor.take_slot(wire):
        hint = "raise limits.associations or limits.per_address"
        return Rejected(RejectReason.LOCAL_LIMIT, "too many associations", hint)
    return verdict


def _reject(wire: Wire, request: AssociationRequest, verdict: Rejected) -> None:
    telemetry.event("association_refused", **_who(request, wire), reason=verdict.why, hint=verdict.hint)
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
