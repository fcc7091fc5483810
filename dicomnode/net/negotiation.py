"""A-ASSOCIATE requests and answers (PS3.8 9.3.2 to 9.3.4, PS3.7 annex D.3): read with bounds, and encoded.

A request is read in two steps. Its fixed fields say who calls whom; its items, which may be a megabyte of anything, are
looked at only once the caller is admitted (`dicomnode.net.scp.agreement` judges them).

pynetdicom's classes are not used here: its decoder fails on items that PS3.8 9.3.1 tells to skip, takes time with the
square of the transfer syntaxes in one context, and its negotiation of 120 contexts takes 9 ms. The tests hold what is
written here against them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from dicomnode.core.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.net.contexts import (
    MAXIMUM_CONTEXTS,
    TRANSFER_SYNTAXES,
    UID_FORM,
    ProposedContext,
)
from dicomnode.net.pdu import MAXIMUM_LENGTH_BYTES, PduType, ProtocolError

APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
_FIXED: Final = struct.Struct(">H2x16s16s32s")  # protocol version, called and calling AE title, reserved
_MOST_ITEMS: Final = 8192  # at one level; 128 contexts and an option for each are 500
_KNOWN_SYNTAXES: Final = frozenset(TRANSFER_SYNTAXES)


class Item(IntEnum):
    """Types of items and sub-items (PS3.8 9.3.2, PS3.7 D.3.3)."""

    APPLICATION_CONTEXT = 0x10
    PROPOSED_CONTEXT = 0x20
    CONTEXT_RESULT = 0x21
    ABSTRACT_SYNTAX = 0x30
    TRANSFER_SYNTAX = 0x40
    USER_INFORMATION = 0x50
    MAXIMUM_LENGTH = 0x51
    IMPLEMENTATION_CLASS_UID = 0x52
    OPERATIONS_WINDOW = 0x53
    ROLE_SELECTION = 0x54
    IMPLEMENTATION_VERSION_NAME = 0x55
    EXTENDED_NEGOTIATION = 0x56
    COMMON_EXTENDED_NEGOTIATION = 0x57


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """Who calls whom: the fixed fields of an A-ASSOCIATE-RQ.

    echoed  the fields that an answer repeats (PS3.8 table 9-17)
    items   what is proposed, still encoded: for `read_proposal`
    """

    called_ae: str
    calling_ae: str
    protocol_version: int
    echoed: bytes
    items: bytes


@dataclass(frozen=True, slots=True)
class RequestedContext:
    """A presentation context as asked for. `transfer_syntaxes` are those we know, in the order of the request."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an A-ASSOCIATE-RQ asks for.

    roles            (as SCU, as SCP) that the requestor proposes for itself, by abstract syntax (PS3.7 D.3.3.4)
    extended         abstract syntaxes with a SOP Class Extended Negotiation item (PS3.7 D.3.3.5)
    service_classes  service class by abstract syntax, where the requestor says it (PS3.7 D.3.3.6)
    operations       how many outstanding operations it asks for, 0 for any number, None where it does not ask
    maximum_bytes    largest P-DATA-TF that it takes, 0 for any
    implementation   its Implementation Version Name, "" where it gives none
    """

    application_context: str
    contexts: tuple[RequestedContext, ...]
    roles: Mapping[str, tuple[bool, bool]]
    extended: frozenset[str]
    service_classes: Mapping[str, str]
    operations: int | None
    maximum_bytes: int
    implementation: str


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """A presentation context that both sides agreed on."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class AssociationAnswer:
    """What an A-ASSOCIATE-AC says: (result, transfer syntax) by presentation context ID (PS3.8 9.3.3.2).

    maximum_bytes             largest P-DATA-TF that the acceptor takes, 0 for any
    implementation_class_uid  and `implementation`, its Implementation Version Name: "" where it gives none
    operations                outstanding at once (invoked, performed) where it answers so (PS3.7 D.3.3.3), 0 for any
    """

    results: Mapping[int, tuple[int, str]]
    maximum_bytes: int
    implementation_class_uid: str = ""
    implementation: str = ""
    operations: tuple[int, int] | None = None


def printable(text: str) -> str:
    """Text from outside, fit for a log line: what is not printable ASCII becomes "?"."""
    return "".join(character if " " <= character <= "~" else "?" for character in text)


def read_request(body: bytes) -> AssociationRequest:
    """Decode the fixed fields of an A-ASSOCIATE-RQ. Raises ProtocolError."""
    if len(body) < _FIXED.size:
        raise ProtocolError("an A-ASSOCIATE-RQ shorter than its fixed fields")
    version, called_ae, calling_ae, _ = _FIXED.unpack_from(body)
    return AssociationRequest(
        _ae_title(called_ae), _ae_title(calling_ae), version, body[4 : _FIXED.size], body[_FIXED.size :]
    )


def read_proposal(encoded: bytes) -> Proposal:
    """Decode the items of an A-ASSOCIATE-RQ. Raises ProtocolError."""
    items = tuple(read_items(encoded))
    contexts = [content for kind, content in items if kind == Item.PROPOSED_CONTEXT]
    if len(contexts) > MAXIMUM_CONTEXTS:
        raise ProtocolError(f"{len(contexts)} presentation contexts, there are IDs for {MAXIMUM_CONTEXTS}")
    requested = tuple(_requested_context(content) for content in contexts)
    if len({context.context_id for context in requested}) < len(requested):
        raise ProtocolError("a presentation context ID is used twice")
    user = tuple(_user_items(items))
    return Proposal(
        application_context=next((_text(content) for kind, content in items if kind == Item.APPLICATION_CONTEXT), ""),
        contexts=requested,
        roles=dict(_role(content) for kind, content in user if kind == Item.ROLE_SELECTION),
        extended=frozenset(_leading_uid(content)[0] for kind, content in user if kind == Item.EXTENDED_NEGOTIATION),
        service_classes=dict(
            _service_class(content) for kind, content in user if kind == Item.COMMON_EXTENDED_NEGOTIATION
        ),
        operations=_operations(user),
        maximum_bytes=_maximum_bytes(user),
        implementation=_implementation(user),
    )


def read_answer(body: bytes) -> AssociationAnswer:
    """Decode the body of an A-ASSOCIATE-AC. Raises ProtocolError."""
    items = tuple(read_items(body[_FIXED.size :]))
    results = dict(_context_result(content) for kind, content in items if kind == Item.CONTEXT_RESULT)
    user = tuple(_user_items(items))
    said = dict(user)
    window = said.get(Item.OPERATIONS_WINDOW, b"")
    return AssociationAnswer(
        results,
        _maximum_bytes(user),
        implementation_class_uid=printable(_text(said.get(Item.IMPLEMENTATION_CLASS_UID, b"")))[:64],
        implementation=printable(_text(said.get(Item.IMPLEMENTATION_VERSION_NAME, b"")))[:16],
        operations=struct.unpack(">HH", window) if len(window) == 4 else None,
    )


def request(called_ae: str, calling_ae: str, contexts: Sequence[ProposedContext]) -> bytes:
    """An A-ASSOCIATE-RQ; the n-th context gets the ID 2n + 1. What we serve on it we do not use."""
    fixed = _FIXED.pack(1, called_ae.encode("ascii").ljust(16), calling_ae.encode("ascii").ljust(16), bytes(32))
    proposed = (_encoded_context(2 * number + 1, context) for number, context in enumerate(contexts))
    served = dict.fromkeys(context.abstract_syntax for context in contexts if context.as_scp)
    roles = (encode_item(Item.ROLE_SELECTION, counted(abstract_syntax) + b"\0\1") for abstract_syntax in served)
    return encode_pdu(PduType.ASSOCIATE_RQ, fixed + message_items(proposed, roles))


def reject(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    return encode_pdu(PduType.ASSOCIATE_RJ, bytes((0, result, source, reason)))


def message_items(contexts: Iterable[bytes], options: Iterable[bytes]) -> bytes:
    """All items of an A-ASSOCIATE-RQ or -AC of ours."""
    user = (
        encode_item(Item.MAXIMUM_LENGTH, MAXIMUM_LENGTH_BYTES.to_bytes(4, "big")),
        encode_item(Item.IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_CLASS_UID.encode("ascii")),
        *options,
        encode_item(Item.IMPLEMENTATION_VERSION_NAME, IMPLEMENTATION_VERSION_NAME.encode("ascii")),
    )
    application_context = encode_item(Item.APPLICATION_CONTEXT, APPLICATION_CONTEXT.encode("ascii"))
    return b"".join((application_context, *contexts, encode_item(Item.USER_INFORMATION, b"".join(user))))


def _encoded_context(context_id: int, context: ProposedContext) -> bytes:
    syntaxes = (encode_item(Item.TRANSFER_SYNTAX, syntax.encode("ascii")) for syntax in context.transfer_syntaxes)
    abstract_syntax = encode_item(Item.ABSTRACT_SYNTAX, context.abstract_syntax.encode("ascii"))
    return encode_item(Item.PROPOSED_CONTEXT, b"".join((bytes((context_id, 0, 0, 0)), abstract_syntax, *syntaxes)))


def encode_pdu(kind: PduType, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def encode_item(kind: Item, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def counted(uid: str) -> bytes:
    return len(uid).to_bytes(2, "big") + uid.encode("ascii")


def read_items(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Items or sub-items: (type, content). Those of unknown type are the caller's to skip (PS3.8 9.3.1)."""
    position = count = 0
    while position < len(encoded):
        count += 1
        if count > _MOST_ITEMS:
            raise ProtocolError("an A-ASSOCIATE PDU of too many items")
        end = position + 4 + int.from_bytes(encoded[position + 2 : position + 4], "big")
        if end > len(encoded) or position + 4 > len(encoded):
            raise ProtocolError("an item of an A-ASSOCIATE PDU is longer than the PDU")
        yield encoded[position], encoded[position + 4 : end]
        position = end


def _user_items(items: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    for kind, content in items:
        if kind == Item.USER_INFORMATION:
            yield from read_items(content)


def _requested_context(content: bytes) -> RequestedContext:
    if len(content) < 4 or not content[0] % 2:
        raise ProtocolError("a presentation context without an odd ID")
    items = tuple(read_items(content[4:]))
    abstract_syntax = next((_uid(value) for kind, value in items if kind == Item.ABSTRACT_SYNTAX), None)
    if abstract_syntax is None:
        raise ProtocolError("a presentation context without an abstract syntax")
    syntaxes = (_text(value) for kind, value in items if kind == Item.TRANSFER_SYNTAX)
    known = tuple(dict.fromkeys(syntax for syntax in syntaxes if syntax in _KNOWN_SYNTAXES))
    return RequestedContext(content[0], abstract_syntax, known)


def _context_result(content: bytes) -> tuple[int, tuple[int, str]]:
    if len(content) < 4:
        raise ProtocolError("a presentation context result without its fields")
    syntax = next((_text(value) for kind, value in read_items(content[4:]) if kind == Item.TRANSFER_SYNTAX), "")
    return content[0], (content[2], syntax)


def _role(content: bytes) -> tuple[str, tuple[bool, bool]]:
    uid, rest = _leading_uid(content)
    if len(rest) < 2:
        raise ProtocolError("a role selection item without its fields")
    return uid, (bool(rest[0]), bool(rest[1]))


def _service_class(content: bytes) -> tuple[str, str]:
    uid, rest = _leading_uid(content)
    return uid, _leading_uid(rest)[0]


def _leading_uid(content: bytes) -> tuple[str, bytes]:
    """A UID with its length in front, and what follows it."""
    end = 2 + int.from_bytes(content[:2], "big")
    if end > len(content):
        raise ProtocolError("a negotiation item ends within a UID")
    return _uid(content[2:end]), content[end:]


def _operations(user: Sequence[tuple[int, bytes]]) -> int | None:
    """How many operations the requestor wants to have outstanding (PS3.7 table D.3-7)."""
    window = next((content for kind, content in user if kind == Item.OPERATIONS_WINDOW), None)
    if window is None:
        return None
    if len(window) != 4:
        raise ProtocolError("an asynchronous operations window that is not of four bytes")
    return int.from_bytes(window[:2], "big")


def _maximum_bytes(user: Sequence[tuple[int, bytes]]) -> int:
    maximum = next((int.from_bytes(content, "big") for kind, content in user if kind == Item.MAXIMUM_LENGTH), 0)
    if 0 < maximum < 128:  # a command set would come in crumbs: nobody means that
        raise ProtocolError(f"a maximum length of {maximum} bytes")
    return maximum


def _implementation(user: Sequence[tuple[int, bytes]]) -> str:
    name = next((content for kind, content in user if kind == Item.IMPLEMENTATION_VERSION_NAME), b"")
    return printable(_text(name[:16]))


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
