"""One established association as its services see it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dicomnode.core.types import Sender
from dicomnode.net.dimse import NO_DATA_SET, RESPONSE, Command, Element, command
from dicomnode.net.negotiation import AcceptedContext
from dicomnode.net.pdu import Wire, fragments
from dicomnode.net.scp.outstanding import Outstanding


@dataclass(slots=True)
class Tally:
    """What came over one association."""

    instances: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Exchange:
    """The connection, what was negotiated on it, and with whom.

    maximum_bytes  the largest P-DATA-TF that the other side takes, 0 for any
    outstanding    ends operations, perhaps several at once
    tally          what was stored so far
    """

    wire: Wire
    contexts: Mapping[int, AcceptedContext]
    maximum_bytes: int
    sender: Sender
    association_id: int
    outstanding: Outstanding
    tally: Tally = field(default_factory=Tally)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def respond(self, context: AcceptedContext, request: Command, values: Mapping[Element, int | str]) -> None:
        """Send the response to `request`; `values` holds at least the status."""
        answer: dict[Element, int | str] = {
            Element.COMMAND_FIELD: (request.field or 0) | RESPONSE,
            Element.MESSAGE_ID_BEING_RESPONDED_TO: request.number(Element.MESSAGE_ID) or 0,
            Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
            Element.AFFECTED_SOP_CLASS_UID: context.abstract_syntax,
            **values,
        }
        parts = fragments(context.context_id, True, command(answer), self.maximum_bytes)
        with self._writing:
            self.wire.send(*parts)

    def count(self, size_bytes: int) -> None:
        """Add an instance to the tally."""
        with self._writing:
            self.tally.instances += 1
            self.tally.size_bytes += size_bytes


Service = Callable[[Exchange, AcceptedContext, Command], None]
"""Serves one request: reads its data set if it has one, and sends every response."""
