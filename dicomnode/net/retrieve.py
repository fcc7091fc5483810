"""C-MOVE and C-GET as service class user (PS3.4 C.4.2, C.4.3).

C-MOVE has the peer send to our receivers by associations of its own. C-GET has it send on ours, where we serve C-STORE:
what comes goes to the same intake as everything that is received.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from pydicom import uid
from pynetdicom import StoragePresentationContexts

from dicomnode.core.retrieving import Wanted
from dicomnode.errors import PeerError
from dicomnode.net.contexts import MAXIMUM_CONTEXTS, TRANSFER_SYNTAXES, ProposedContext
from dicomnode.net.dimse import Command, CommandField, Element
from dicomnode.net.query import (
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    PATIENT_ROOT,
    STUDY_ROOT,
    Level,
    accepted_kind,
    contexts_of,
    encode_identifier,
    failure,
    read_match,
)
from dicomnode.net.query_status import PENDING, SOME_FAILED, SUCCESSES
from dicomnode.net.scp.exchange import Exchange, Service
from dicomnode.net.scu import Association, Response

MOVE_CONTEXTS: Final = contexts_of(STUDY_ROOT.move, PATIENT_ROOT.move)
"""What to propose for `move`."""

_GET_CONTEXTS: Final = contexts_of(STUDY_ROOT.get, PATIENT_ROOT.get)
_OFTEN_STORED_IN: Final = (
    uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.JPEGLosslessSV1, uid.JPEG2000Lossless,
    uid.JPEGLSLossless, uid.RLELossless, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEG2000,
)  # fmt: skip
_SYNTAXES: Final = tuple(dict.fromkeys((*map(str, _OFTEN_STORED_IN), *TRANSFER_SYNTAXES)))
"""All that we store, what archives hold most often first: there may not be contexts for all."""

_MOST_REFUSED: Final = 25
_MOST_IDENTIFIER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SubOperations:
    """How the C-STOREs of a retrieval fare, by the peer's own count; None where it does not say."""

    remaining: int | None = None
    completed: int = 0
    failed: int = 0
    warning: int = 0


@dataclass(frozen=True, slots=True)
class Retrieved:
    """How a retrieval ended by the peer's words. It is not proof: count what arrived.

    failed_sop_instance_uids  what it says that it could not send (0008,0058)
    """

    status: int
    sub_operations: SubOperations
    failed_sop_instance_uids: tuple[str, ...] = ()


Progress = Callable[[SubOperations], None]


def get_contexts(sop_class_uids: Collection[str]) -> tuple[ProposedContext, ...]:
    """What to propose for `get` of objects of these SOP classes; of the commonest ones where none is known.

    A context for each transfer syntax, as far as there are contexts: the peer then sends what it has stored as it is.
    """
    left = MAXIMUM_CONTEXTS - len(_GET_CONTEXTS)
    if not sop_class_uids:
        uncompressed = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)
        common = [str(context.abstract_syntax) for context in StoragePresentationContexts[:left]]
        return (*_GET_CONTEXTS, *(ProposedContext(sop_class, uncompressed, as_scp=True) for sop_class in common))
    classes = sorted(sop_class_uids)[:left]
    syntaxes = _SYNTAXES[: left // len(classes)]
    served = (ProposedContext(each, (syntax,), as_scp=True) for each in classes for syntax in syntaxes)
    return (*_GET_CONTEXTS, *served)


def move(association: Association, wanted: Wanted, destination_ae: str, progress: Progress) -> Retrieved:
    """C-MOVE: have the peer send to an AE title, ours, by associations of its own.

    Raises AssociationRejectedError where the peer does not do this, RequestFailedError, AssociationLostError.
    """
    kind = accepted_kind(association, STUDY_ROOT.move, PATIENT_ROOT.move)
    identifier = _identifier(wanted, kind.sop_class_uid == PATIENT_ROOT.move, kind.transfer_syntax_uid)
    association.ask(kind, CommandField.C_MOVE_RQ, {Element.MOVE_DESTINATION: destination_ae}, identifier)
    return _follow(association, progress, None)


def get(association: Association, wanted: Wanted, store: Service, exchange: Exchange, progress: Progress) -> Retrieved:
    """C-GET: have the peer send on this association, opened with `get_contexts`. `store` serves its C-STOREs.

    Raises as `move` does; PeerError where nothing of what it sends can be stored. After an error abort the association.
    """
    kind = accepted_kind(association, STUDY_ROOT.get, PATIENT_ROOT.get)
    identifier = _identifier(wanted, kind.sop_class_uid == PATIENT_ROOT.get, kind.transfer_syntax_uid)
    association.ask(kind, CommandField.C_GET_RQ, {}, identifier)
    return _follow(association, progress, _Stored(store, exchange))


def _identifier(wanted: Wanted, from_patient: bool, transfer_syntax_uid: str) -> bytes:
    """The unique keys of one level and of those above it (PS3.4 C.4.2.2.1), and nothing else."""
    keys = {"PatientID": wanted.patient_id} if from_patient else {}
    keys["StudyInstanceUID"] = wanted.study_instance_uid
    level = Level.STUDY
    if wanted.series_instance_uid:
        keys["SeriesInstanceUID"] = wanted.series_instance_uid
        level = Level.SERIES
    if wanted.sop_instance_uids:
        keys["SOPInstanceUID"] = "\\".join(wanted.sop_instance_uids)
        level = Level.IMAGE
    return encode_identifier(level, keys, transfer_syntax_uid)


class _Stored:
    """Serves C-STOREs; gives up where one after the other cannot be stored, as on a full disk."""

    def __init__(self, store: Service, exchange: Exchange) -> None:
        self._store = store
        self._exchange = exchange
        self._refused = 0

    def __call__(self, context_id: int, request: Command) -> None:
        before = self._exchange.tally.instances
        self._store(self._exchange, self._exchange.contexts[context_id], request)
        self._refused = self._refused + 1 if self._exchange.tally.instances == before else 0
        if self._refused >= _MOST_REFUSED:
            raise PeerError(f"{self._refused} instances in a row could not be stored", "the log says why: look there")


def _follow(association: Association, progress: Progress, stored: _Stored | None) -> Retrieved:
    """Read until the final response."""
    while True:
        context, said = association.next_command()
        if stored is not None and said.field == CommandField.C_STORE_RQ:
            stored(context.context_id, said)
            continue
        response = association.response(said)
        identifier = association.read_identifier(context, _MOST_IDENTIFIER_BYTES) if said.has_data_set else b""
        sub_operations = _sub_operations(said)
        progress(sub_operations)
        if response.status not in PENDING:
            failed = _failed_uids(identifier, context.transfer_syntax)
            return _end(response, sub_operations, failed)


def _end(response: Response, sub_operations: SubOperations, failed: tuple[str, ...]) -> Retrieved:
    if response.status in SUCCESSES or response.status == SOME_FAILED:
        return Retrieved(response.status, sub_operations, failed)
    raise failure(response.status, response.error_comment)


def _sub_operations(said: Command) -> SubOperations:
    return SubOperations(
        said.number(Element.REMAINING_SUB_OPERATIONS),
        said.number(Element.COMPLETED_SUB_OPERATIONS) or 0,
        said.number(Element.FAILED_SUB_OPERATIONS) or 0,
        said.number(Element.WARNING_SUB_OPERATIONS) or 0,
    )


def _failed_uids(identifier: bytes, transfer_syntax_uid: str) -> tuple[str, ...]:
    keyword = "FailedSOPInstanceUIDList"
    return read_match(identifier, transfer_syntax_uid, [keyword]).get(keyword, ()) if identifier else ()
