"""A-ASSOCIATE requests and answers (PS3.8 9.3.2 to 9.3.4): read with bounds, judged and encoded by pynetdicom.

pynetdicom's own decoder is not used on what comes from outside: it fails on items that PS3.8 9.3.1 tells to skip, and
its time grows with the square of the transfer syntaxes in one context.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from dicomnode.core.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.net.contexts import (
    MAXIMUM_CONTEXTS,
    REENCODABLE,
    TRANSFER_SYNTAXES,
    UID_FORM,
    VERIFICATION,
    ProposedContext,
)
from dicomnode.net.pdu import MAXIMUM_LENGTH_BYTES, ProtocolError

APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
_FIXED_BYTES: Final = 68  # protocol version, AE titles, reserved: before the variable items
_KNOWN_SYNTAXES: Final = frozenset(TRANSFER_SYNTAXES)


@dataclass(frozen=True, slots=True)
class RequestedContext:
    """A presentation context as asked for. `transfer_syntaxes` are those we know, in the order of the request."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """What an A-ASSOCIATE-RQ asks for.

    roles           (as SCU, as SCP) that the requestor proposes for itself, by abstract syntax (PS3.7 D.3.3.4)
    maximum_bytes   largest P-DATA-TF that it takes, 0 for any
    implementation  its Implementation Version Name, "" where it gives none
    ae_fields       both AE titles as they came: an answer repeats them (PS3.8 table 9-17)
    """

    called_ae: str
    calling_ae: str
    protocol_version: int
    application_context: str
    contexts: tuple[RequestedContext, ...]
    roles: Mapping[str, tuple[bool, bool]]
    maximum_bytes: int
    implementation: str
    ae_fields: bytes


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """A presentation context that both sides agreed on."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class AssociationAnswer:
    """What an A-ASSOCIATE-AC says: (result, transfer syntax) by presentation context ID (PS3.8 9.3.3.2)."""

    results: Mapping[int, tuple[int, str]]
    maximum_bytes: int


def printable(text: str) -> str:
    """Text from outside, fit for a log line: what is not printable ASCII becomes "?"."""
    return "".join(character if " " <= character <= "~" else "?" for character in text)


def read_request(body: bytes) -> AssociationRequest:
    """Decode the body of an A-ASSOCIATE-RQ. Raises ProtocolError."""
    if len(body) < _FIXED_BYTES:
        raise ProtocolError("an A-ASSOCIATE-RQ shorter than its fixed fields")
    items = tuple(_items(body[_FIXED_BYTES:]))
    contexts = tuple(_requested_context(content) for kind, content in items if kind == 0x20)
    if len(contexts) > MAXIMUM_CONTEXTS or len({context.context_id for context in contexts}) < len(contexts):
        raise ProtocolError("more presentation contexts than IDs, or an ID used twice")
    user = tuple(_user_items(items))
    return AssociationRequest(
        called_ae=_ae_title(body[4:20]),
        calling_ae=_ae_title(body[20:36]),
        protocol_version=int.from_bytes(body[:2], "big"),
        application_context=next((_text(content) for kind, content in items if kind == 0x10), ""),
        contexts=contexts,
        roles=dict(_role(content) for kind, content in user if kind == 0x54),
        maximum_bytes=_maximum_bytes(user),
        implementation=next((printable(_text(content))[:16] for kind, content in user if kind == 0x55), ""),
        ae_fields=body[4:36],
    )


def read_answer(body: bytes) -> AssociationAnswer:
    """Decode the body of an A-ASSOCIATE-AC. Raises ProtocolError."""
    items = tuple(_items(body[_FIXED_BYTES:]))
    results = dict(_context_result(content) for kind, content in items if kind == 0x21)
    return AssociationAnswer(results, _maximum_bytes(tuple(_user_items(items))))


def accept(request: AssociationRequest, supported: Collection[str]) -> tuple[bytes, tuple[AcceptedContext, ...]]:
    """The A-ASSOCIATE-AC for a request, and what it accepts. `supported`: abstract syntaxes that we serve."""
    proposed = [_as_pynetdicom(context) for context in request.contexts if context.transfer_syntaxes]
    hopeless = [_refused(context.context_id) for context in request.contexts if not context.transfer_syntaxes]
    wanted = dict.fromkeys(context.abstract_syntax for context in request.contexts)
    ours = [_supported(abstract_syntax) for abstract_syntax in wanted if abstract_syntax in supported]
    proposed_roles: dict[UID, tuple[bool | None, bool | None]] = {UID(key): role for key, role in request.roles.items()}
    answered, roles = negotiate_as_acceptor(proposed, ours, proposed_roles)
    primitive = _primitive("ANY", "ANY")
    primitive.result, primitive.result_source = 0, 1
    primitive.presentation_context_definition_results_list = answered + hopeless
    primitive.user_information += roles
    encoded = bytes(A_ASSOCIATE_AC(primitive).encode())
    accepted = tuple(
        AcceptedContext(int(context.context_id or 0), str(context.abstract_syntax), str(context.transfer_syntax[0]))
        for context in answered
        if context.result == 0
    )
    return encoded[:10] + request.ae_fields + encoded[42:], accepted


def request(called_ae: str, calling_ae: str, contexts: Sequence[ProposedContext]) -> bytes:
    """An A-ASSOCIATE-RQ; the n-th context gets the ID 2n + 1."""
    primitive = _primitive(called_ae, calling_ae)
    primitive.presentation_context_definition_list = [
        _as_pynetdicom(RequestedContext(2 * number + 1, context.abstract_syntax, context.transfer_syntaxes))
        for number, context in enumerate(contexts)
    ]
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def reject(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    return bytes([3, 0, 0, 0, 0, 4, 0, result, source, reason])


@lru_cache(maxsize=1024)
def _supported(abstract_syntax: str) -> PresentationContext:
    """What we support of a class: to be its SCP, in every transfer syntax that makes sense, our preference first."""
    syntaxes = [each for each in TRANSFER_SYNTAXES if abstract_syntax != VERIFICATION or each in REENCODABLE]
    context = build_context(abstract_syntax, syntaxes)
    context.scu_role, context.scp_role = True, False  # of the requestor: it sends, we store
    return context


def _as_pynetdicom(requested: RequestedContext) -> PresentationContext:
    context = build_context(requested.abstract_syntax, list(requested.transfer_syntaxes))
    context.context_id = requested.context_id
    return context


def _refused(context_id: int) -> PresentationContext:
    """Result 4, transfer syntaxes not supported; the syntax in such an answer means nothing (PS3.8 9.3.3.2)."""
    context = build_context(VERIFICATION, ImplicitVRLittleEndian)
    context.context_id, context.result = context_id, 4
    return context


def _primitive(called_ae: str, calling_ae: str) -> Any:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.called_ae_title, primitive.calling_ae_title = called_ae, calling_ae
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    length.maximum_length_received = MAXIMUM_LENGTH_BYTES
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    primitive.user_information = [length, implementation, version]
    return primitive


def _items(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Items or sub-items: (type, content). Those of unknown type are the caller's to skip (PS3.8 9.3.1)."""
    position = 0
    while position < len(encoded):
        end = position + 4 + int.from_bytes(encoded[position + 2 : position + 4], "big")
        if end > len(encoded) or position + 4 > len(encoded):
            raise ProtocolError("an item of an A-ASSOCIATE PDU is longer than the PDU")
        yield encoded[position], encoded[position + 4 : end]
        position = end


def _user_items(items: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    for kind, content in items:
        if kind == 0x50:
            yield from _items(content)


def _requested_context(content: bytes) -> RequestedContext:
    if len(content) < 4 or not content[0] % 2:
        raise ProtocolError("a presentation context without an odd ID")
    items = tuple(_items(content[4:]))
    abstract_syntax = next((_uid(value) for kind, value in items if kind == 0x30), None)
    if abstract_syntax is None:
        raise ProtocolError("a presentation context without an abstract syntax")
    syntaxes = (_text(value) for kind, value in items if kind == 0x40)
    known = tuple(dict.fromkeys(syntax for syntax in syntaxes if syntax in _KNOWN_SYNTAXES))
    return RequestedContext(content[0], abstract_syntax, known)


def _context_result(content: bytes) -> tuple[int, tuple[int, str]]:
    if len(content) < 4:
        raise ProtocolError("a presentation context result without its fields")
    syntax = next((_text(value) for kind, value in _items(content[4:]) if kind == 0x40), "")
    return content[0], (content[2], syntax)


def _role(content: bytes) -> tuple[str, tuple[bool, bool]]:
    length = int.from_bytes(content[:2], "big")
    if len(content) < length + 4:
        raise ProtocolError("a role selection item without its fields")
    return _uid(content[2 : 2 + length]), (bool(content[2 + length]), bool(content[3 + length]))


def _maximum_bytes(user: Sequence[tuple[int, bytes]]) -> int:
    maximum = next((int.from_bytes(content, "big") for kind, content in user if kind == 0x51), 0)
    if 0 < maximum < 128:  # a command set would come in crumbs: nobody means that
        raise ProtocolError(f"a maximum length of {maximum} bytes")
    return maximum


def _uid(content: bytes) -> str:
    """A UID of the only form we answer to; anything else is no DICOM."""
    text = _text(content)
    if not UID_FORM.fullmatch(text):
        raise ProtocolError("an A-ASSOCIATE PDU holds a UID that is none")
    return text


def _text(content: bytes) -> str:
    return content.rstrip(b"\0 ").decode("ascii", "replace")


def _ae_title(field: bytes) -> str:
    """Leading and trailing spaces are not significant (PS3.8 table 9-11); some senders pad with NUL."""
    return printable(field.decode("ascii", "replace").strip(" \0"))
