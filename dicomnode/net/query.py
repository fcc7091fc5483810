"""C-FIND as service class user (PS3.4 annex C): what does a peer hold?

Study Root, or Patient Root where a peer accepts only that. Matches are given as they come; who stops listening sends
C-CANCEL. Nothing that a peer answers is trusted: neither how much it is nor what it holds.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Final

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset

from dicomnode.core.headers import scan_header
from dicomnode.core.types import Header
from dicomnode.errors import (
    AssociationLostError,
    AssociationRejectedError,
    InputError,
    PeerError,
    RequestFailedError,
    UsageError,
)
from dicomnode.net.contexts import Kind, ProposedContext
from dicomnode.net.dimse import CommandField
from dicomnode.net.query_status import PENDING, SUCCESSES, explain
from dicomnode.net.scu import Association, Response

EXPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
_SYNTAXES: Final = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)

MOST_MATCHES: Final = 20_000
_MOST_IDENTIFIER_BYTES: Final = 1 << 20
_MOST_AFTER_CANCEL: Final = 2_000
_LONGEST_AFTER_CANCEL_S: Final = 10.0


class Level(StrEnum):
    """Query/Retrieve Level (0008,0052), PS3.4 C.3."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


@dataclass(frozen=True, slots=True)
class Model:
    """An information model's SOP classes (PS3.4 C.6)."""

    find: str
    move: str
    get: str


STUDY_ROOT: Final = Model("1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.2.3")
PATIENT_ROOT: Final = Model("1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.1.3")


def contexts_of(*sop_class_uids: str) -> tuple[ProposedContext, ...]:
    """Presentation contexts for services with identifiers, one for each transfer syntax."""
    return tuple(ProposedContext(sop_class, (syntax,)) for sop_class in sop_class_uids for syntax in _SYNTAXES)


FIND_CONTEXTS: Final = contexts_of(STUDY_ROOT.find, PATIENT_ROOT.find)
"""What to propose for `find`."""


def find(
    association: Association, level: Level, keys: Mapping[str, str], most: int = MOST_MATCHES
) -> Generator[Header]:
    """What the peer holds that matches: the values of `keys` of each match, as it comes.

    keys  values to match, by keyword: with the wildcards, lists and ranges of PS3.4 C.2.2.2, or "" for what is only
          wanted to be told; all unique keys of the levels above have to be among them. The Patient ID is one where the
          peer knows the Patient Root only; elsewhere it is left out of queries below the study
    most  matches that are believed: the peer is told to stop at one more

    Closing the iterator before its end cancels the query. Raises UsageError for keys that are none,
    AssociationRejectedError where the peer does not answer C-FIND, RequestFailedError for a failure status, PeerError
    for more than `most` matches, AssociationLostError.
    """
    models = (PATIENT_ROOT,) if level is Level.PATIENT else (STUDY_ROOT, PATIENT_ROOT)  # PS3.4 C.6.2.1
    kind = accepted_kind(association, *(model.find for model in models))
    if kind.sop_class_uid == PATIENT_ROOT.find:
        keys = {"PatientID": "", **keys}  # the unique key above all others there (PS3.4 C.6.1.1.2)
    elif level in (Level.SERIES, Level.IMAGE):
        keys = {keyword: text for keyword, text in keys.items() if keyword != "PatientID"}  # no key of theirs there
    association.ask(kind, CommandField.C_FIND_RQ, {}, encode_identifier(level, keys, kind.transfer_syntax_uid))
    keywords = {*keys, "QueryRetrieveLevel"}
    with closing(_identifiers(association, kind)) as identifiers:
        for count, identifier in enumerate(identifiers):
            if count >= most:
                hint = "narrow it: by date, modality or patient"
                raise PeerError(f"more than {most} matches: the query was ended", hint)
            if not identifier:  # against PS3.7 9.1.2.1.5
                continue
            yield read_match(identifier, kind.transfer_syntax_uid, keywords)


def accepted_kind(association: Association, *sop_class_uids: str) -> Kind:
    """The first of these SOP classes that the peer accepted, with its syntax. Raises AssociationRejectedError."""
    wanted = [Kind(sop_class, syntax) for sop_class in sop_class_uids for syntax in _SYNTAXES]
    kind = next((kind for kind in wanted if kind in association.accepted), None)
    if kind is None:
        raise AssociationRejectedError(
            "the peer does not accept the Query/Retrieve SOP Classes",
            "allow our AE title to query and retrieve there; some peers do so on another port only",
        )
    return kind


def encode_identifier(level: Level, keys: Mapping[str, str], transfer_syntax_uid: str) -> bytes:
    """An identifier (PS3.4 C.2.2.1). Its character set is the plainest that has all characters of the keys.

    Raises UsageError for a word that is no keyword, or a value that its attribute cannot have.
    """
    identifier = Dataset()
    _add(identifier, "QueryRetrieveLevel", level.value)
    character_set = _character_set("".join(keys.values()))
    if character_set:
        _add(identifier, "SpecificCharacterSet", character_set)
    for keyword, value in keys.items():
        _add(identifier, keyword, value)
    target = BytesIO()
    file = DicomIO(target)
    file.is_little_endian, file.is_implicit_VR = True, transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN
    try:
        write_dataset(file, identifier)
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise UsageError(f"the query cannot be encoded ({type(error).__name__})", "look at its values") from None
    return target.getvalue()


def _add(identifier: Dataset, keyword: str, value: str) -> None:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise UsageError(f"{keyword!r} is no DICOM keyword", "keywords are listed in PS3.6, like PatientID")
    vr = dictionary_VR(tag).split(" or ")[0]
    try:
        identifier[tag] = DataElement(tag, vr, value or None, validation_mode=IGNORE)  # wildcards, ranges: no values
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"{keyword} cannot have this value ({type(error).__name__})", f"its VR is {vr}") from None


def _character_set(text: str) -> str:
    """The plainest set that has all characters (PS3.3 C.12.1.1.2): "" is ASCII."""
    for codec, term in (("ascii", ""), ("latin-1", "ISO_IR 100")):
        with suppress(UnicodeEncodeError):
            text.encode(codec)
            return term
    return "ISO_IR 192"


def _identifiers(association: Association, kind: Kind) -> Generator[bytes]:
    """The identifiers of pending responses until the final one; b"" for a response that brings none."""
    is_heard = True
    try:
        while True:
            response, identifier = next_response(association)
            if response.status not in PENDING:
                break
            is_heard = False  # unless the caller comes back for more
            yield identifier
            is_heard = True
    finally:
        if not is_heard:
            stop(association, kind)
    if response.status not in SUCCESSES:
        raise failure(response.status, response.error_comment)


def next_response(association: Association) -> tuple[Response, bytes]:
    """The next response, and its identifier or b"": some peers send one with the final response too."""
    context, said = association.next_command()
    response = association.response(said)
    return response, association.read_identifier(context, _MOST_IDENTIFIER_BYTES) if said.has_data_set else b""


def failure(status: int, comment: str = "") -> RequestFailedError:
    """The error for a final status that tells of a failure."""
    meaning = explain(status, comment)
    return RequestFailedError(
        f"status 0x{status:04X}: {meaning.meaning}", meaning.hint, status, transient=meaning.transient
    )


def stop(association: Association, kind: Kind) -> None:
    """Cancel the request that is answered, and read on until it is over; a peer that does not care is cut off."""
    until = time.monotonic() + _LONGEST_AFTER_CANCEL_S
    with suppress(AssociationLostError):
        association.cancel(kind)
        for _ in range(_MOST_AFTER_CANCEL):
            response, _ = next_response(association)
            if response.status not in PENDING:
                return
            if time.monotonic() > until:
                break
        association.abort()


def read_match(identifier: bytes, transfer_syntax_uid: str, keywords: Collection[str]) -> Header:
    """The values of an identifier, as far as they can be made sense of."""
    try:
        return scan_header(identifier, transfer_syntax_uid, keywords)
    except InputError:
        return {}
