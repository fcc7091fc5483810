"""Rejection notes of ours: Key Object Selection Documents that say which derived objects are not to be used any more
(PS3.3 A.35.4, PS3.16 TID 2010; IHE RAD TF-2 4.66).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID, KeyObjectSelectionDocumentStorage

from dicomnode.core.derive.codes import Code, encoded_code
from dicomnode.core.derive.derivation import Equipment
from dicomnode.core.derive.document import (
    ObjectReference,
    evidence,
    named_item,
    observer,
    put_maker,
    reference,
    study_of,
)
from dicomnode.core.derive.elements import ascii_text, encoded_item, our_text, put_encoded
from dicomnode.core.derive.image import writable
from dicomnode.core.derive.provenance import local_time
from dicomnode.core.identity import rejection_note_uids
from dicomnode.core.rejections import TITLES
from dicomnode.errors import InputError

_DESCRIPTION: Final = Code("113012", "DCM", "Key Object Description")
_SERIES_NUMBER: Final = 1
_LO_CHARACTERS: Final = 64
_UT_CHARACTERS: Final = 1024


RejectedObject = ObjectReference
"""One instance that a note rejects."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """What a note says, beside whom and which study it is about.

    title        code value of its document title, a key of `TITLES`
    objects      what it rejects: one or more, all of one study
    description  why, in plain ASCII without patient data
    """

    title: str
    objects: tuple[RejectedObject, ...]
    description: str
    created_at: datetime
    equipment: Equipment


def rejection_note(source: Dataset, rejection: Rejection) -> Dataset:
    """The note, ready to be written in Explicit VR Little Endian.

    source  one of the rejected instances, its pixels not needed: patient and study are copied byte for byte

    Raises InputError where it lacks what identifies its study, or nothing is rejected.
    """
    note, said = study_of(source)
    if not rejection.objects:
        raise InputError("a rejection note needs something to reject", "this is a defect: report it")
    objects = tuple(sorted(rejection.objects, key=lambda one: (one.series_instance_uid, one.sop_instance_uid)))
    _put_document(note, rejection, local_time(rejection.created_at, said))
    study = ascii_text(said, "StudyInstanceUID")
    put_encoded(note, "CurrentRequestedProcedureEvidenceSequence", evidence(study, objects))
    put_encoded(note, "ContentSequence", b"".join(_content(rejection, objects)))
    return writable(note, note.SOPInstanceUID)


def _put_document(note: Dataset, rejection: Rejection, created: datetime) -> None:
    """Series, equipment, and the root of the document (PS3.3 C.17.6)."""
    uids = rejection_note_uids(rejection.title, [one.sop_instance_uid for one in rejection.objects])
    title = Code(rejection.title, "DCM", TITLES[rejection.title])
    note.SOPClassUID = KeyObjectSelectionDocumentStorage
    note.SeriesInstanceUID, note.SOPInstanceUID = uids
    note.Modality, note.SeriesNumber, note.InstanceNumber = "KO", _SERIES_NUMBER, 1
    note.SeriesDescription = our_text(title.meaning, _LO_CHARACTERS)
    put_maker(note, rejection.equipment, created)
    note.ValueType, note.ContinuityOfContent = "CONTAINER", "SEPARATE"
    put_encoded(note, "ConceptNameCodeSequence", encoded_code(title))
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    put_encoded(note, "ContentTemplateSequence", encoded_item(template))


def _content(rejection: Rejection, objects: Sequence[RejectedObject]) -> Iterable[bytes]:
    """The items of TID 2010: who says so (TID 1004), why, and of what."""
    yield from observer(rejection.equipment)
    description = named_item("CONTAINS", "TEXT", _DESCRIPTION)
    description.TextValue = our_text(rejection.description, _UT_CHARACTERS)
    yield encoded_item(description)
    for one in objects:
        item = Dataset()
        item.RelationshipType = "CONTAINS"
        item.ValueType = "IMAGE" if "Image Storage" in UID(one.sop_class_uid).name else "COMPOSITE"
        put_encoded(item, "ReferencedSOPSequence", reference(one))
        yield encoded_item(item)
