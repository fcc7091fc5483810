"""Service class user: opening associations, C-ECHO and C-STORE on them, and what other requests are made of."""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from dicomnode.core.types import Sender
from dicomnode.errors import (
    AssociationLostError,
    AssociationRejectedError,
    ConfigError,
    DicomNodeError,
    PeerUnreachableError,
)
from dicomnode.net import pdu
from dicomnode.net.certificates import PeerCertificate
from dicomnode.net.contexts import VERIFICATION, Kind, ProposedContext
from dicomnode.net.dimse import DATA_SET, NO_DATA_SET, Command, CommandField, Element, command, read_command
from dicomnode.net.negotiation import AcceptedContext, AssociationAnswer, read_answer, request
from dicomnode.net.pdu import (
    MAXIMUM_LENGTH_BYTES,
    AbortedError,
    Pdu,
    PduType,
    ProtocolError,
    Wire,
    fragments,
)
from dicomnode.net.rejection import rejection
from dicomnode.net.scp.exchange import Exchange
from dicomnode.net.scp.outstanding import Outstanding
from dicomnode.net.tls import ClientSecurity
from dicomnode.net.tls_wire import TlsError, TlsWire
from dicomnode.net.trace import PeerTrace
from dicomnode.net.upload import DataSetWriter, Upload

_SEND_BUFFER_BYTES: Final = 1 << 20
_MEDIUM_PRIORITY: Final = 0
_OF_REQUESTED_INSTANCES: Final = frozenset({CommandField.N_ACTION_RQ})
"""Requests about an instance that is there: they name it in other elements, and have no priority (PS3.7 E.1)."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer listens, the AE title that it answers to, and how the way there is secured (None: not at all)."""

    host: str
    port: int
    called_ae: str
    security: ClientSecurity | None = None

    def __str__(self) -> str:
        return f"{self.called_ae} at {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the other side may take: to be connected to, to answer our request, to answer an operation."""

    connect_s: float = 10.0
    associate_s: float = 30.0
    response_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Response:
    """What a peer answered to a request.

    error_comment       its own words, which may name a patient: never for a log
    offending_elements  tags that it objects to (PS3.7 C.4.2)
    """

    status: int
    error_comment: str = ""
    offending_elements: tuple[int, ...] = ()


class Interruption:
    """Cuts associations off from another thread, once and for all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wires: weakref.WeakSet[Wire] = weakref.WeakSet()
        self._happened = False

    def __bool__(self) -> bool:
        """Whether it happened."""
        return self._happened

    def interrupt(self) -> None:
        """Make every association that is open or asked for fail at once, and every later one."""
        with self._lock:
            self._happened = True
            for wire in self._wires:
                wire.cut()

    def watch(self, wire: Wire) -> None:
        """Cut this connection off when it happens, or now if it has."""
        with self._lock:
            self._wires.add(wire)
            if self._happened:
                wire.cut()


@dataclass(frozen=True, slots=True)
class Opening:
    """How associations with one peer are opened.

    maximum_bytes  largest P-DATA-TF to send, where the peer takes larger ones
    interruption   cuts them off, then and later
    trace          where they are traced, while that is switched on
    """

    timeouts: Timeouts = Timeouts()
    maximum_bytes: int = MAXIMUM_LENGTH_BYTES
    interruption: Interruption | None = None
    trace: PeerTrace | None = None


def associate(
    address: PeerAddress, calling_ae: str, contexts: Sequence[ProposedContext], opening: Opening = Opening()
) -> Association:
    """Open an association; its accepted contexts may be none.

    Raises PeerUnreachableError, AssociationRejectedError, AssociationLostError.
    """
    wire = _connect(address, opening.timeouts)
    try:
        if opening.interruption is not None:
            opening.interruption.watch(wire)
        if opening.trace is not None:
            opening.trace.follow(wire, "requestor")
        wire.set_timeout(opening.timeouts.associate_s)
        wire.secure()
        _prove(address, wire.certificate)
        wire.send(request(address.called_ae, calling_ae, contexts))
        answer = _answer(wire, address)
        wire.set_timeout(opening.timeouts.response_s)
    except TlsError as error:  # with TLS 1.3 it may refuse our certificate as late as in its answer
        wire.close()
        raise PeerUnreachableError(f"no TLS with {address}: {error}", error.hint) from None
    except AssociationLostError as error:
        wire.close()
        if wire.is_secured and type(error) is AssociationLostError:  # its alert may be lost with the connection
            error.hint = "it may refuse our certificate: look at its log"
        raise
    except BaseException:
        wire.close()
        raise
    maximum_bytes = min(answer.maximum_bytes or opening.maximum_bytes, opening.maximum_bytes)
    return Association(wire, contexts, answer, maximum_bytes)


def _connect(address: PeerAddress, timeouts: Timeouts) -> Wire:
    try:
        context = None if address.security is None else address.security.context()
    except ConfigError as error:  # a file changed: the peer is out of reach until it is put right
        raise PeerUnreachableError(str(error), error.hint) from None
    try:
        connection = socket.create_connection((address.host, address.port), timeouts.connect_s)
    except (OSError, UnicodeError) as error:
        why = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or "no such host"
        raise PeerUnreachableError(
            f"cannot connect to {address}: {why}", "check host and port, that the peer runs, and firewalls between"
        ) from None
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if context is None:
        return Wire(connection, address.host)
    return TlsWire(connection, address.host, context, called_host=address.host)


def _prove(address: PeerAddress, certificate: PeerCertificate | None) -> None:
    """Whether the peer is who it should be, where that is not judged by its host."""
    wanted = () if address.security is None else address.security.certificates
    if not wanted or (certificate is not None and certificate.is_one_of(wanted)):
        return
    shown = "no certificate" if certificate is None else f"{certificate.fingerprint}"
    raise PeerUnreachableError(
        f"{address} shows another certificate than is configured: {shown}",
        "if it is right add it to peer.NAME.certificate",
    )


def _answer(wire: Wire, address: PeerAddress) -> AssociationAnswer:
    try:
        answer = wire.read()
    except AbortedError:
        hint = "many applications do so to a caller they do not know: add our AE title and address there"
        raise AssociationRejectedError(f"{address} aborted our association request", hint) from None
    match answer:
        case Pdu(PduType.ASSOCIATE_AC, body):
            return read_answer(body)
        case Pdu(PduType.ASSOCIATE_RJ, body):
            raise rejection(body, str(address))
        case _:
            raise ProtocolError("the answer to A-ASSOCIATE-RQ is none", pdu.AbortReason.UNEXPECTED_PDU)


class Association:
    """An open association; one operation at a time. As a context manager it is released at the end, or aborted.

    After AssociationLostError, and after `store` failed within a file, it is closed.
    """

    def __init__(
        self, wire: Wire, contexts: Sequence[ProposedContext], answer: AssociationAnswer, maximum_bytes: int
    ) -> None:
        """`maximum_bytes`: the largest P-DATA-TF to send."""
        self._wire = wire
        self.answered = answer
        self._maximum_bytes = maximum_bytes
        self._writer = DataSetWriter(wire, maximum_bytes)
        self._message_id = 0
        self._closed = False
        self._contexts: dict[Kind, int] = {}
        self._accepted: dict[int, AcceptedContext] = {}
        self._results: dict[str, set[int]] = {}
        for number, context in enumerate(contexts):
            result, syntax = answer.results.get(2 * number + 1, (2, ""))  # unanswered: rejected by the provider
            self._results.setdefault(context.abstract_syntax, set()).add(result)
            if result == 0 and syntax in context.transfer_syntaxes:
                self._contexts.setdefault(Kind(context.abstract_syntax, syntax), 2 * number + 1)
                self._accepted[2 * number + 1] = AcceptedContext(2 * number + 1, context.abstract_syntax, syntax)

    def __enter__(self) -> Association:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()

    @property
    def accepted(self) -> frozenset[Kind]:
        """What the peer accepted: SOP classes with a transfer syntax."""
        return frozenset(self._contexts)

    def class_refused(self, sop_class_uid: str) -> bool:
        """Whether the peer said that it does not support the class at all (result 3, PS3.8 9.3.3.2)."""
        return self._results.get(sop_class_uid, set()) == {3}

    @property
    def usable(self) -> bool:
        """Whether the next operation has a chance: open here, and nothing (an abort, an end) waits to be read."""
        return not self._closed and self._wire.is_silent()

    def echo(self) -> int:
        """C-ECHO; the status. Raises AssociationRejectedError where Verification was not accepted."""
        kind = next((kind for kind in self._contexts if kind.sop_class_uid == VERIFICATION), None)
        if kind is None:
            raise AssociationRejectedError("the peer does not accept the Verification SOP Class", "it cannot be echoed")
        with self._closing_on_loss():
            self._wire.send(*self._request(kind, CommandField.C_ECHO_RQ, {Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET}))
            return self._response().status

    def store(self, path: Path, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> int:
        """Send the data set of a DICOM file as it is, undecoded; the status.

        Class and transfer syntax must be the file's. Raises AssociationRejectedError where they were not accepted,
        InputError where the file is not there, no DICOM or in another syntax, StoreError where it cannot be read now,
        AssociationLostError.
        """
        with Upload.stored(path, Kind(sop_class_uid, transfer_syntax_uid), sop_instance_uid) as upload:
            self.begin_store(upload)
            return self.answer().status

    def store_encoded(
        self, data_set: bytes, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str
    ) -> int:
        """Send a data set that is already encoded, verbatim; the status. Raises as `store` does."""
        kind = Kind(sop_class_uid, transfer_syntax_uid)
        self.begin_store(Upload(kind, sop_instance_uid, around=(data_set, b"")))
        return self.answer().status

    def begin_store(self, upload: Upload) -> None:
        """Send a C-STORE request with its data set; `answer` waits for what the peer says to it.

        Raises AssociationRejectedError where its kind was not accepted. A message that was begun and cannot be ended
        costs the association: InputError, StoreError, AssociationLostError.
        """
        head = self._request(
            upload.kind,
            CommandField.C_STORE_RQ,
            {
                Element.AFFECTED_SOP_INSTANCE_UID: upload.sop_instance_uid,
                Element.PRIORITY: _MEDIUM_PRIORITY,
                Element.COMMAND_DATA_SET_TYPE: DATA_SET,
            },
        )
        try:
            self._writer.write(upload, head, self._contexts[upload.kind])
        except DicomNodeError:
            self.abort()
            raise

    def answer(self) -> Response:
        """Wait for the response to the last request. Raises AssociationLostError."""
        with self._closing_on_loss():
            return self._response()

    def ask(self, kind: Kind, field: CommandField, values: Mapping[Element, int | str], identifier: bytes) -> None:
        """Send a request with an identifier, encoded; `next_command` reads what is said to it.

        Raises AssociationRejectedError where its kind was not accepted, AssociationLostError.
        """
        values = {Element.COMMAND_DATA_SET_TYPE: DATA_SET, **values}
        if field not in _OF_REQUESTED_INSTANCES:
            values[Element.PRIORITY] = _MEDIUM_PRIORITY
        head = self._request(kind, field, values)
        with self._closing_on_loss():
            self._wire.send(*head, *fragments(self._contexts[kind], False, identifier, self._maximum_bytes))

    def cancel(self, kind: Kind) -> None:
        """Ask the peer to end the last request, which was of this kind (PS3.7 9.3.2.3); it may go on all the same."""
        values: dict[Element, int | str] = {
            Element.COMMAND_FIELD: CommandField.C_CANCEL_RQ,
            Element.MESSAGE_ID_BEING_RESPONDED_TO: self._message_id,
            Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
        }
        with self._closing_on_loss():
            self._wire.send(*fragments(self._contexts[kind], True, command(values), self._maximum_bytes))

    def next_command(self) -> tuple[AcceptedContext, Command]:
        """The command set of the next message: a response, or a request where we serve (`ProposedContext.as_scp`).

        Raises AssociationLostError.
        """
        with self._closing_on_loss():
            read = read_command(self._wire)
            if isinstance(read, Pdu):
                raise ProtocolError(f"{read.type.name} where a response was due", pdu.AbortReason.UNEXPECTED_PDU)
            if read[0] not in self._accepted:
                raise ProtocolError("a command in a presentation context that was not accepted")
            return self._accepted[read[0]], read[1]

    def response(self, said: Command) -> Response:
        """What a command says as the response to the last request. Raises ProtocolError where it is none."""
        with self._closing_on_loss():
            return self._as_response(said)

    def read_identifier(self, context: AcceptedContext, maximum_bytes: int) -> bytes:
        """The data set that follows a response. Raises ProtocolError where it is larger, AssociationLostError."""
        content = bytearray()

        def write(pieces: Sequence[memoryview]) -> None:
            for piece in pieces:
                content.extend(piece)
            if len(content) > maximum_bytes:
                raise ProtocolError(f"an identifier of more than {maximum_bytes} bytes")

        with self._closing_on_loss():
            self._wire.read_data(context.context_id, write)
        return bytes(content)

    def exchange(self, sender: Sender, association_id: int) -> Exchange:
        """This association as the services see it that we offer on it. `sender` is the peer."""
        return Exchange(
            self._wire,
            self._accepted,
            self._maximum_bytes,
            sender,
            association_id,
            Outstanding(1, self._wire.cut),
        )

    @property
    def address(self) -> str:
        """The host that was called."""
        return self._wire.address

    def release(self) -> None:
        """End in good order. A peer that does not answer, or is gone, changes nothing for us."""
        if self._closed:
            return
        with contextlib.suppress(AssociationLostError):
            self._wire.send(pdu.RELEASE_RQ)
            while not isinstance(self._wire.read(), Pdu):  # responses that nobody waits for any more
                pass
        self._close()

    def abort(self) -> None:
        """End at once."""
        if self._closed:
            return
        with contextlib.suppress(AssociationLostError):
            self._wire.send(pdu.ABORT_BY_USER)
        self._close()

    def _close(self) -> None:
        self._closed = True
        self._wire.close()

    def _request(self, kind: Kind, field: CommandField, values: Mapping[Element, int | str]) -> Sequence[bytes]:
        if kind not in self._contexts:
            raise AssociationRejectedError(
                f"no presentation context was accepted for {kind.sop_class_uid} in {kind.transfer_syntax_uid}",
                "the peer does not store this kind of object, or not in this transfer syntax",
            )
        self._message_id = self._message_id % 0xFFFF + 1
        is_requested = field in _OF_REQUESTED_INSTANCES
        encoded = command(
            {
                Element.REQUESTED_SOP_CLASS_UID if is_requested else Element.AFFECTED_SOP_CLASS_UID: kind.sop_class_uid,
                Element.COMMAND_FIELD: field,
                Element.MESSAGE_ID: self._message_id,
                **values,
            }
        )
        return fragments(self._contexts[kind], True, encoded, self._maximum_bytes)

    def _response(self) -> Response:
        read = read_command(self._wire)
        if isinstance(read, Pdu):
            raise ProtocolError(f"{read.type.name} where a response was due", pdu.AbortReason.UNEXPECTED_PDU)
        return self._as_response(read[1])

    def _as_response(self, response: Command) -> Response:
        status = response.number(Element.STATUS)
        if status is None or response.number(Element.MESSAGE_ID_BEING_RESPONDED_TO) != self._message_id:
            raise ProtocolError("a response without a status, or to another request", pdu.AbortReason.UNEXPECTED_PDU)
        return Response(status, response.text(Element.ERROR_COMMENT), response.tags(Element.OFFENDING_ELEMENT))

    @contextlib.contextmanager
    def _closing_on_loss(self) -> Iterator[None]:
        try:
            yield
        except AssociationLostError:
            self.abort()
            raise
