"""Rejection notes of ours: Key Object Selection Documents that say which derived objects are not to be used any more
(PS3.3 A.35.4, PS3.16 TID 2010; IHE RAD TF-2 4.66).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, KeyObjectSelectionDocumentStorage

from dicomnode.core.derive.codes import Code, encoded_code
from dicomnode.core.derive.derivation import Equipment
from dicomnode.core.derive.elements import (
    ascii_text,
    encoded_item,
    explicit_copy,
    names_character_sets,
    our_text,
    put_encoded,
    tag_of,
)
from dicomnode.core.derive.image import writable
from dicomnode.core.derive.provenance import local_time
from dicomnode.core.derive.standard import MODULES
from dicomnode.core.identity import INSTANCE_CREATOR_UID, is_valid_uid, rejection_note_uids
from dicomnode.core.rejections import TITLES
from dicomnode.errors import InputError

_OF_THE_STUDY: Final = (
    "patient", "clinical-trial-subject", "general-study", "patient-study", "clinical-trial-study",
)  # fmt: skip
_TYPE_2: Final = """
    PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber ReferringPhysicianName StudyID
    ReferencedPerformedProcedureStepSequence
"""
"""Of the KO IOD's mandatory modules: must be there, may be empty."""

_OBSERVER_TYPE: Final = Code("121005", "DCM", "Observer Type")
_DEVICE: Final = Code("121007", "DCM", "Device")
_DEVICE_UID: Final = Code("121012", "DCM", "Device Observer UID")
_DEVICE_NAME: Final = Code("121013", "DCM", "Device Observer Name")
_DESCRIPTION: Final = Code("113012", "DCM", "Key Object Description")
_SERIES_NUMBER: Final = 1
_LO_CHARACTERS: Final = 64
_UT_CHARACTERS: Final = 1024


@dataclass(frozen=True, slots=True)
class RejectedObject:
    """One instance that a note rejects."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


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
    said, _ = explicit_copy(source, _copied_tags())
    study = ascii_text(said, "StudyInstanceUID")
    if not is_valid_uid(study) or not rejection.objects:
        raise InputError("a rejection note needs a study and what it rejects", "this is a defect: report it")
    note = Dataset()
    for tag in said.keys():  # noqa: SIM118  iterating would decode all
        note[tag] = said.get_item(tag)
    if "SpecificCharacterSet" in note and not names_character_sets(ascii_text(note, "SpecificCharacterSet")):
        del note.SpecificCharacterSet
    for keyword in _TYPE_2.split():
        if tag_of(keyword) not in note:
            put_encoded(note, keyword, b"")
    objects = tuple(sorted(rejection.objects, key=lambda one: (one.series_instance_uid, one.sop_instance_uid)))
    _put_document(note, rejection, local_time(rejection.created_at, said))
    put_encoded(note, "CurrentRequestedProcedureEvidenceSequence", _evidence(study, objects))
    put_encoded(note, "ContentSequence", b"".join(_content(rejection, objects)))
    return writable(note, note.SOPInstanceUID)


@cache
def _copied_tags() -> frozenset[BaseTag]:
    keywords = {keyword for module in _OF_THE_STUDY for keyword in MODULES[module].split()}
    return frozenset(tag_of(keyword) for keyword in keywords | {"SpecificCharacterSet", "TimezoneOffsetFromUTC"})


def _put_document(note: Dataset, rejection: Rejection, created: datetime) -> None:
    """Series, equipment, and the root of the document (PS3.3 C.17.6)."""
    uids = rejection_note_uids(rejection.title, [one.sop_instance_uid for one in rejection.objects])
    title = Code(rejection.title, "DCM", TITLES[rejection.title])
    equipment = rejection.equipment
    note.SOPClassUID = KeyObjectSelectionDocumentStorage
    note.SeriesInstanceUID, note.SOPInstanceUID = uids
    note.InstanceCreatorUID = INSTANCE_CREATOR_UID
    note.Modality, note.SeriesNumber, note.InstanceNumber = "KO", _SERIES_NUMBER, 1
    note.SeriesDescription = our_text(title.meaning, _LO_CHARACTERS)
    for name in ("InstanceCreation", "Series", "Content"):
        setattr(note, f"{name}Date", created.strftime("%Y%m%d"))
        setattr(note, f"{name}Time", created.strftime("%H%M%S.%f"))
    note.Manufacturer = our_text(equipment.manufacturer, _LO_CHARACTERS)
    note.ManufacturerModelName = our_text(equipment.model_name, _LO_CHARACTERS)
    note.SoftwareVersions = our_text(f"dicomnode {equipment.software_version}", _LO_CHARACTERS)
    note.DeviceUID = equipment.device_uid
    note.ValueType, note.ContinuityOfContent = "CONTAINER", "SEPARATE"
    put_encoded(note, "ConceptNameCodeSequence", encoded_code(title))
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    put_encoded(note, "ContentTemplateSequence", encoded_item(template))


def _evidence(study_instance_uid: str, objects: Sequence[RejectedObject]) -> bytes:
    """Current Requested Procedure Evidence Sequence: what is rejected, by study and series (C.17.2.1)."""
    series = []
    for uid in dict.fromkeys(one.series_instance_uid for one in objects):
        item = Dataset()
        item.SeriesInstanceUID = uid
        members = (_reference(one) for one in objects if one.series_instance_uid == uid)
        put_encoded(item, "ReferencedSOPSequence", b"".join(members))
        series.append(encoded_item(item))
    study = Dataset()
    study.StudyInstanceUID = study_instance_uid
    put_encoded(study, "ReferencedSeriesSequence", b"".join(series))
    return encoded_item(study)


def _content(rejection: Rejection, objects: Sequence[RejectedObject]) -> Iterable[bytes]:
    """The items of TID 2010: who says so (TID 1004), why, and of what."""
    yield _coded(_OBSERVER_TYPE, _DEVICE)
    observer = _named_item("HAS OBS CONTEXT", "UIDREF", _DEVICE_UID)
    observer.UID = rejection.equipment.device_uid
    yield encoded_item(observer)
    name = _named_item("HAS OBS CONTEXT", "TEXT", _DEVICE_NAME)
    name.TextValue = our_text(rejection.equipment.model_name, _LO_CHARACTERS)
    yield encoded_item(name)
    description = _named_item("CONTAINS", "TEXT", _DESCRIPTION)
    description.TextValue = our_text(rejection.description, _UT_CHARACTERS)
    yield encoded_item(description)
    for one in objects:
        item = Dataset()
        item.RelationshipType = "CONTAINS"
        item.ValueType = "IMAGE" if "Image Storage" in UID(one.sop_class_uid).name else "COMPOSITE"
        put_encoded(item, "ReferencedSOPSequence", _reference(one))
        yield encoded_item(item)


def _coded(name: Code, value: Code) -> bytes:
    item = _named_item("HAS OBS CONTEXT", "CODE", name)
    put_encoded(item, "ConceptCodeSequence", encoded_code(value))
    return encoded_item(item)


def _named_item(relationship: str, value_type: str, name: Code) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, value_type
    put_encoded(item, "ConceptNameCodeSequence", encoded_code(name))
    return item


def _reference(one: RejectedObject) -> bytes:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    return encoded_item(item)
