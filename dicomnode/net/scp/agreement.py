"""What we agree to as association acceptor: the answer to each presentation context and to what else is proposed."""

from __future__ import annotations

import hashlib
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dicomnode.core.headers import DEFLATED
from dicomnode.core.notification import STORAGE_COMMITMENT
from dicomnode.net.contexts import (
    NOTIFICATION_CLASSES,
    REENCODABLE,
    STORAGE_SERVICE,
    TRANSFER_SYNTAXES,
    VERIFICATION,
    is_of_standard,
)
from dicomnode.net.negotiation import (
    AcceptedContext,
    AssociationRequest,
    Item,
    Proposal,
    RequestedContext,
    counted,
    encode_item,
    encode_pdu,
    message_items,
    read_proposal,
)
from dicomnode.net.pdu import PduType

_RANK: Final = {syntax: rank for rank, syntax in enumerate(TRANSFER_SYNTAXES)}
_ANY_SYNTAX: Final = "1.2.840.10008.1.2"  # in the answer to a refused context it means nothing (PS3.8 table 9-18)
_ANSWERS_KEPT: Final = 128
_TAKEN: Final = {VERIFICATION: REENCODABLE, **dict.fromkeys(NOTIFICATION_CLASSES, REENCODABLE - DEFLATED)}
"""Transfer syntaxes of what is not stored: there are no pixels to compress, and a deflated message may be a bomb."""
_FULL_STORAGE: Final = bytes((2, 0, 3, 0, 0, 0))
"""PS3.4 table B.3-1: level 2 (full); digital signatures of level 3 (kept, bit by bit); no element is coerced."""


class _Result:
    """Result of a presentation context (PS3.8 table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class Terms:
    """What we agree to.

    supported               abstract syntaxes that we serve
    accept_unknown_classes  whether a class that the standard does not know is one of storage
    operations              outstanding at once that we let a requestor have (PS3.7 D.3.3.3)
    """

    supported: frozenset[str]
    accept_unknown_classes: bool = False
    operations: int = 1


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a proposal comes to.

    contexts    those accepted, by ID
    operations  how many the requestor may have outstanding
    items       of the A-ASSOCIATE-AC, encoded
    """

    application_context: str
    contexts: Mapping[int, AcceptedContext]
    maximum_bytes: int
    implementation: str
    operations: int
    items: bytes


class Negotiator:
    """Agrees by one set of terms, and remembers what it agreed to last.

    A scanner that opens an association for each image proposes the same each time. Proposals are known by their digest:
    no password of a user identity (PS3.7 D.3.3.7) stays in memory.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Agreement] = OrderedDict()

    def __call__(self, items: bytes) -> Agreement:
        """What encoded items of an A-ASSOCIATE-RQ come to. Raises ProtocolError."""
        key = hashlib.blake2b(items, digest_size=32).digest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        agreement = agree(read_proposal(items), self._terms)
        with self._lock:
            self._known[key] = agreement
            if len(self._known) > _ANSWERS_KEPT:
                self._known.popitem(last=False)
        return agreement


def agree(proposal: Proposal, terms: Terms) -> Agreement:
    """Judge each presentation context, and answer what else was proposed."""
    judged = [(context, *_judge(context, proposal, terms)) for context in proposal.contexts]
    accepted = [
        AcceptedContext(context.context_id, context.abstract_syntax, syntax)
        for context, result, syntax in judged
        if result == _Result.ACCEPTANCE
    ]
    results = (_encoded_result(context.context_id, result, syntax) for context, result, syntax in judged)
    classes = dict.fromkeys(context.abstract_syntax for context in accepted)
    items = message_items(results, _answered_options(proposal, classes, terms))
    return Agreement(
        proposal.application_context,
        {context.context_id: context for context in accepted},
        proposal.maximum_bytes,
        proposal.implementation,
        _operations(proposal, terms),
        items,
    )


def accept(request: AssociationRequest, agreement: Agreement) -> bytes:
    """The A-ASSOCIATE-AC that tells a requestor what was agreed."""
    return encode_pdu(PduType.ASSOCIATE_AC, b"\0\1\0\0" + request.echoed + agreement.items)


def _judge(context: RequestedContext, proposal: Proposal, terms: Terms) -> tuple[int, str]:
    """(result, transfer syntax) of a presentation context; of the syntaxes offered we take the one we like best."""
    if not _serves(context.abstract_syntax, proposal, terms):
        return _Result.ABSTRACT_SYNTAX_NOT_SUPPORTED, _ANY_SYNTAX
    taken = _TAKEN.get(context.abstract_syntax, _RANK)
    offered = [syntax for syntax in context.transfer_syntaxes if syntax in taken]
    if not offered:
        return _Result.TRANSFER_SYNTAXES_NOT_SUPPORTED, _ANY_SYNTAX
    if not _has_our_role(context.abstract_syntax, proposal):
        return _Result.USER_REJECTION, _ANY_SYNTAX
    return _Result.ACCEPTANCE, min(offered, key=_RANK.__getitem__)


def _has_our_role(abstract_syntax: str, proposal: Proposal) -> bool:
    """Whether the requestor takes the role that we do not.

    Of Storage Commitment we are the user: who calls us reports what it keeps, as SCP (PS3.4 J.3.3). Some archives
    forget to say so, and take SCU for the role that is not said.
    """
    if abstract_syntax not in proposal.roles:
        return True
    as_scu, as_scp = proposal.roles[abstract_syntax]
    return as_scp if abstract_syntax == STORAGE_COMMITMENT else as_scu


def _serves(abstract_syntax: str, proposal: Proposal, terms: Terms) -> bool:
    if abstract_syntax in terms.supported:
        return True
    service_class = proposal.service_classes.get(abstract_syntax, STORAGE_SERVICE)
    return terms.accept_unknown_classes and service_class == STORAGE_SERVICE and not is_of_standard(abstract_syntax)


def _answered_options(proposal: Proposal, classes: Iterable[str], terms: Terms) -> Iterator[bytes]:
    """Sub-items for what the requestor asked for; nothing is answered that it did not (PS3.7 D.3.3)."""
    if proposal.operations is not None:
        yield encode_item(Item.OPERATIONS_WINDOW, struct.pack(">HH", _operations(proposal, terms), 1))  # we invoke none
    for abstract_syntax in classes:
        if abstract_syntax in proposal.roles:
            is_ours = abstract_syntax == STORAGE_COMMITMENT  # it may be SCP of that alone, and SCU of all others
            roles = bytes((not is_ours, is_ours))
            yield encode_item(Item.ROLE_SELECTION, counted(abstract_syntax) + roles)
        if abstract_syntax in proposal.extended and abstract_syntax not in _TAKEN:
            yield encode_item(Item.EXTENDED_NEGOTIATION, counted(abstract_syntax) + _FULL_STORAGE)


def _operations(proposal: Proposal, terms: Terms) -> int:
    """How many operations a requestor may have outstanding: one unless it asks for more; 0 asks for any number."""
    asked = 1 if proposal.operations is None else proposal.operations
    return min(asked or terms.operations, terms.operations)


def _encoded_result(context_id: int, result: int, syntax: str) -> bytes:
    fields = bytes((context_id, 0, result, 0))
    return encode_item(Item.CONTEXT_RESULT, fields + encode_item(Item.TRANSFER_SYNTAX, syntax.encode("ascii")))
