"""What peers tell us by N-services (PS3.7 section 10): results of Storage Commitment, procedure steps, availability.

Storage Commitment is served as its user (PS3.4 J.3.3): an archive that was asked opens an association to report.
Modality Performed Procedure Step (PS3.4 F.7) and Instance Availability Notification (PS3.4 R.3) are served as provider.
Only configured peers are heard.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dicomnode import metrics, telemetry
from dicomnode.core.identity import is_valid_uid
from dicomnode.core.notification import (
    AVAILABILITY,
    PROCEDURE_STEP,
    STORAGE_COMMITMENT,
    StepState,
    read_availability,
    read_commitment_report,
    read_step,
)
from dicomnode.core.ports import Noted, Notifications
from dicomnode.errors import DicomNodeError, DiskFullError
from dicomnode.net.dimse import Command, CommandField, Element
from dicomnode.net.negotiation import AcceptedContext
from dicomnode.net.scp.exchange import Exchange, Service
from dicomnode.net.scp.storage import unrecognized
from dicomnode.net.status import Status

MOST_BYTES: Final = 16 << 20
"""Largest data set of an N-service: a procedure step of 10,000 images has 2 MB."""

_EVENT_TYPES: Final = (1, 2)  # of Storage Commitment (PS3.4 J.3.3)
_MAY_NO_LONGER_BE_UPDATED: Final = 0xA710
"""Error ID of a step that has ended (PS3.4 table F.7.2-2)."""


@dataclass(frozen=True, slots=True)
class Told:
    """One request with its data set: who tells it, about which SOP instance, in which encoding."""

    peer: str
    sop_instance_uid: str
    encoded: bytes
    transfer_syntax_uid: str
    event_type: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """The status of a response, and why it is no success (an Error Comment: LO, no PHI)."""

    status: Status
    comment: str = ""
    error_id: int | None = None


_SUCCESS: Final = Reply(Status.SUCCESS)
_Take = Callable[[Notifications, Told], Reply]


def notification_services(notifications: Notifications | None) -> Mapping[int, Service]:
    """What serves N-EVENT-REPORT, N-CREATE and N-SET; nothing where nobody takes in what they tell."""
    if notifications is None:
        return {}
    created: Mapping[str, _Take] = {PROCEDURE_STEP: _step_created, AVAILABILITY: _available}
    return {
        CommandField.N_EVENT_REPORT_RQ: _service(notifications, {STORAGE_COMMITMENT: _committed}),
        CommandField.N_CREATE_RQ: _service(notifications, created),
        CommandField.N_SET_RQ: _service(notifications, {PROCEDURE_STEP: _step_changed}),
    }


def _service(notifications: Notifications, takes: Mapping[str, _Take]) -> Service:
    """Serves one command field for the SOP classes that know it."""

    def serve(exchange: Exchange, context: AcceptedContext, request: Command) -> None:
        take = takes.get(context.abstract_syntax)
        if take is None:
            unrecognized(exchange, context, request)
            return
        encoded = _read(exchange, context, request)
        sop_instance_uid = _named_instance(request)
        if not sop_instance_uid and request.field == CommandField.N_CREATE_RQ:  # then we name it (PS3.7 10.1.5.1.4)
            sop_instance_uid = f"2.25.{uuid.uuid4().int}"
        told = Told(
            exchange.sender.peer,
            sop_instance_uid,
            encoded or b"",
            context.transfer_syntax,
            request.number(Element.EVENT_TYPE_ID) or 0,
        )
        reply = _problem(told, request, encoded) or _taken(notifications, told, take)
        if reply.status != Status.SUCCESS:
            _tell_refused(exchange, context, told, reply)
        _respond(exchange, context, request, (told, reply))

    return serve


def _read(exchange: Exchange, context: AcceptedContext, request: Command) -> bytes | None:
    """The request's data set, b"" where it has none, None where it is too large: then it is read and forgotten."""
    if not request.has_data_set:
        return b""
    content = bytearray()
    size_bytes = 0

    def write(pieces: Sequence[memoryview]) -> None:
        nonlocal size_bytes
        size_bytes += sum(map(len, pieces))
        if size_bytes <= MOST_BYTES:
            for piece in pieces:
                content.extend(piece)

    exchange.wire.read_data(context.context_id, write)
    return bytes(content) if size_bytes <= MOST_BYTES else None


def _named_instance(request: Command) -> str:
    """N-SET requests something of an instance; N-CREATE and N-EVENT-REPORT affect one (PS3.7 annex E)."""
    is_set = request.field == CommandField.N_SET_RQ
    return request.uid(Element.REQUESTED_SOP_INSTANCE_UID if is_set else Element.AFFECTED_SOP_INSTANCE_UID)


def _problem(told: Told, request: Command, encoded: bytes | None) -> Reply | None:
    if not told.peer:
        return Reply(Status.NOT_AUTHORIZED, "only configured peers may tell us this")
    if encoded is None:
        return Reply(Status.RESOURCE_LIMITATION, "data set larger than accepted")
    if not is_valid_uid(told.sop_instance_uid):
        return Reply(Status.INVALID_SOP_INSTANCE, "not a UID")
    if not encoded:
        return Reply(Status.MISSING_ATTRIBUTE, "there is no data set")
    if request.field == CommandField.N_EVENT_REPORT_RQ and told.event_type not in _EVENT_TYPES:
        return Reply(Status.NO_SUCH_EVENT_TYPE, "no event type of storage commitment")
    return None


def _taken(notifications: Notifications, told: Told, take: _Take) -> Reply:
    try:
        return take(notifications, told)
    except DicomNodeError as error:
        is_full = isinstance(error, DiskFullError)
        return Reply(Status.RESOURCE_LIMITATION if is_full else Status.PROCESSING_FAILURE, str(error)[:64])


def _committed(notifications: Notifications, told: Told) -> Reply:
    report = read_commitment_report(told.encoded, told.transfer_syntax_uid, told.event_type)
    if notifications.committed(told.peer, report) is Noted.UNKNOWN:
        return Reply(Status.NO_SUCH_SOP_INSTANCE, "this peer was not asked in such a transaction")
    return _SUCCESS


def _step_created(notifications: Notifications, told: Told) -> Reply:
    step = read_step(told.encoded, told.transfer_syntax_uid)
    if step.state is not StepState.IN_PROGRESS:  # PS3.4 F.7.2.1.2
        return Reply(Status.INVALID_ATTRIBUTE_VALUE, "a step begins IN PROGRESS")
    if notifications.step_created(told.peer, told.sop_instance_uid, step) is Noted.KNOWN:
        return Reply(Status.DUPLICATE_SOP_INSTANCE, "there is a step of this UID")
    return _SUCCESS


def _step_changed(notifications: Notifications, told: Told) -> Reply:
    step = read_step(told.encoded, told.transfer_syntax_uid)
    match notifications.step_changed(told.peer, told.sop_instance_uid, step):
        case Noted.UNKNOWN:
            return Reply(Status.NO_SUCH_SOP_INSTANCE, "this peer has begun no step of this UID")
        case Noted.FINAL:
            return Reply(Status.PROCESSING_FAILURE, "the step has ended", _MAY_NO_LONGER_BE_UPDATED)
        case _:
            return _SUCCESS


def _available(notifications: Notifications, told: Told) -> Reply:
    notifications.available(told.peer, read_availability(told.encoded, told.transfer_syntax_uid))
    return _SUCCESS


def _respond(exchange: Exchange, context: AcceptedContext, request: Command, said: tuple[Told, Reply]) -> None:
    told, reply = said
    values: dict[Element, int | str] = {Element.STATUS: reply.status}
    if is_valid_uid(told.sop_instance_uid):
        values[Element.AFFECTED_SOP_INSTANCE_UID] = told.sop_instance_uid
    if request.field == CommandField.N_EVENT_REPORT_RQ:
        values[Element.EVENT_TYPE_ID] = told.event_type
    if reply.comment:
        values[Element.ERROR_COMMENT] = reply.comment
    if reply.error_id is not None:
        values[Element.ERROR_ID] = reply.error_id
    exchange.respond(context, request, values)


def _tell_refused(exchange: Exchange, context: AcceptedContext, told: Told, reply: Reply) -> None:
    metrics.count("dicomnode_notifications_refused_total", peer=told.peer or metrics.STRANGER)
    telemetry.event(
        "notification_refused",
        association_id=exchange.association_id,
        peer=told.peer,
        sop_class_uid=context.abstract_syntax,
        sop_instance_uid=told.sop_instance_uid or None,
        status=int(reply.status),
        reason=reply.comment,
    )
