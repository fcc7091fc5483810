"""Storage Commitment Push Model as service class user (PS3.4 J.3): does a peer keep what it was sent?

The result comes by N-EVENT-REPORT, on the association that asked or on one that the peer opens to our server. Either
way `dicomnode.net.scp.notification` serves it: taken in durably first, answered then.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from typing import Final

from dicomnode.core.notification import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from dicomnode.core.ports import Notifications
from dicomnode.core.types import Sender
from dicomnode.errors import AssociationRejectedError
from dicomnode.net.contexts import Kind
from dicomnode.net.dimse import RESPONSE, Command, CommandField, Element
from dicomnode.net.negotiation import AcceptedContext
from dicomnode.net.pdu import AbortReason, ProtocolError
from dicomnode.net.query import IMPLICIT_LITTLE_ENDIAN, contexts_of
from dicomnode.net.scp.notification import notification_services
from dicomnode.net.scp.storage import unrecognized
from dicomnode.net.scu import Association, Response

COMMITMENT_CONTEXTS: Final = contexts_of(STORAGE_COMMITMENT)
"""What to propose for it."""

_ELEMENT: Final = struct.Struct("<HHL")
_EXPLICIT: Final = struct.Struct("<HH2sH")
_SEQUENCE: Final = struct.Struct("<HH2s2xL")
_REQUEST_COMMITMENT: Final = 1  # Action Type ID (PS3.4 J.3.2)
_POLL_S: Final = 0.05
_NO_ASSOCIATION_ROW: Final = 0

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


class CommitmentUser:
    """Asks on one association, and serves the reports that come on it.

    peer  our name for whom we called: reports count as its
    """

    def __init__(self, association: Association, notifications: Notifications, peer: Sender) -> None:
        self._association = association
        self._services = notification_services(notifications)
        self._exchange = association.exchange(peer, _NO_ASSOCIATION_ROW)

    def ask(self, transaction_uid: str, instances: Sequence[Reference]) -> Response:
        """Request storage commitment; what the peer says to the request itself (PS3.4 J.3.2.1.2).

        Raises AssociationRejectedError where it does not accept the SOP class, AssociationLostError.
        """
        kind = accepted_kind(self._association)
        content = _request(transaction_uid, instances, implicit=kind.transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN)
        values: dict[Element, int | str] = {
            Element.REQUESTED_SOP_INSTANCE_UID: STORAGE_COMMITMENT_INSTANCE,
            Element.ACTION_TYPE_ID: _REQUEST_COMMITMENT,
        }
        self._association.ask(kind, CommandField.N_ACTION_RQ, values, content)
        while True:  # some peers report before they have answered
            context, said = self._association.next_command()
            if (said.field or 0) & RESPONSE:
                response = self._association.response(said)
                if said.has_data_set:
                    self._association.read_identifier(context, 1 << 16)
                return response
            self._serve(context, said)

    def serve_reports(self, timeout_s: float, is_done: Callable[[], bool], wait: Callable[[float], object]) -> None:
        """Serve what comes within a time, until `is_done`; `wait` sleeps. Raises AssociationLostError."""
        until = time.monotonic() + timeout_s
        while not is_done() and time.monotonic() < until:
            if self._association.usable:  # nothing has come
                wait(_POLL_S)
                continue
            context, said = self._association.next_command()
            if (said.field or 0) & RESPONSE:
                raise ProtocolError("a response to no request", AbortReason.UNEXPECTED_PDU)
            self._serve(context, said)

    def _serve(self, context: AcceptedContext, said: Command) -> None:
        serve = self._services[CommandField.N_EVENT_REPORT_RQ]
        (serve if said.field == CommandField.N_EVENT_REPORT_RQ else unrecognized)(self._exchange, context, said)


def accepted_kind(association: Association) -> Kind:
    """How the peer accepted Storage Commitment. Raises AssociationRejectedError where it did not."""
    for kind in sorted(association.accepted, reverse=True):  # Explicit VR first
        if kind.sop_class_uid == STORAGE_COMMITMENT:
            return kind
    raise AssociationRejectedError(
        "the peer does not accept the Storage Commitment SOP Class", "allow our AE title to ask for it there"
    )


def _request(transaction_uid: str, instances: Sequence[Reference], *, implicit: bool) -> bytes:
    """The Action Information (PS3.4 table J.3-1), encoded with defined lengths."""
    items = b"".join(_item(each, implicit=implicit) for each in instances)
    head = _ELEMENT.pack(0x0008, 0x1199, len(items)) if implicit else _SEQUENCE.pack(0x0008, 0x1199, b"SQ", len(items))
    return _uid((0x0008, 0x1195), transaction_uid, implicit=implicit) + head + items


def _item(instance: Reference, *, implicit: bool) -> bytes:
    sop_class_uid, sop_instance_uid = instance
    content = _uid((0x0008, 0x1150), sop_class_uid, implicit=implicit)
    content += _uid((0x0008, 0x1155), sop_instance_uid, implicit=implicit)
    return _ELEMENT.pack(0xFFFE, 0xE000, len(content)) + content


def _uid(tag: tuple[int, int], uid: str, *, implicit: bool) -> bytes:
    value = uid.encode("ascii")
    value += b"\0" * (len(value) % 2)
    head = _ELEMENT.pack(*tag, len(value)) if implicit else _EXPLICIT.pack(*tag, b"UI", len(value))
    return head + value
