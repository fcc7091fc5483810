"""What documents of ours have in common: whose they are, who made them, and the items of their content (PS3.3 C.17)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

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
from dicomnode.core.derive.standard import MODULES
from dicomnode.core.identity import INSTANCE_CREATOR_UID, is_valid_uid
from dicomnode.errors import InputError

_OF_THE_STUDY: Final = (
    "patient", "clinical-trial-subject", "general-study", "patient-study", "clinical-trial-study",
)  # fmt: skip
_TYPE_2: Final = """
    PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber ReferringPhysicianName StudyID
    ReferencedPerformedProcedureStepSequence
"""
"""Of the mandatory modules of a document's IOD: must be there, may be empty."""

_OBSERVER_TYPE: Final = Code("121005", "DCM", "Observer Type")
_DEVICE: Final = Code("121007", "DCM", "Device")
_DEVICE_UID: Final = Code("121012", "DCM", "Device Observer UID")
_DEVICE_NAME: Final = Code("121013", "DCM", "Device Observer Name")
_LO_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """One instance that a document speaks of."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


def study_of(source: Dataset) -> tuple[Dataset, Dataset]:
    """A new data set with what a source says of patient and study, byte for byte; and all that was copied.

    Raises InputError where the source lacks what identifies its study.
    """
    said, _ = explicit_copy(source, _copied_tags())
    if not is_valid_uid(ascii_text(said, "StudyInstanceUID")):
        raise InputError("a document needs a study, and the source names none", "the object breaks PS3.5 9.1")
    made = Dataset()
    for tag in said.keys():  # noqa: SIM118  iterating would decode all
        made[tag] = said.get_item(tag)
    if "SpecificCharacterSet" in made and not names_character_sets(ascii_text(made, "SpecificCharacterSet")):
        del made.SpecificCharacterSet
    for keyword in _TYPE_2.split():
        if tag_of(keyword) not in made:
            put_encoded(made, keyword, b"")
    return made, said


def put_maker(made: Dataset, equipment: Equipment, created: datetime) -> None:
    """Who made the document, and when."""
    made.InstanceCreatorUID = INSTANCE_CREATOR_UID
    for name in ("InstanceCreation", "Series", "Content"):
        setattr(made, f"{name}Date", created.strftime("%Y%m%d"))
        setattr(made, f"{name}Time", created.strftime("%H%M%S.%f"))
    made.Manufacturer = our_text(equipment.manufacturer, _LO_CHARACTERS)
    made.ManufacturerModelName = our_text(equipment.model_name, _LO_CHARACTERS)
    made.SoftwareVersions = our_text(f"dicomnode {equipment.software_version}", _LO_CHARACTERS)
    made.DeviceUID = equipment.device_uid


def evidence(study_instance_uid: str, objects: Sequence[ObjectReference]) -> bytes:
    """Current Requested Procedure Evidence Sequence: what is spoken of, by study and series (C.17.2.1)."""
    series = []
    for uid in dict.fromkeys(one.series_instance_uid for one in objects):
        item = Dataset()
        item.SeriesInstanceUID = uid
        members = (reference(one) for one in objects if one.series_instance_uid == uid)
        put_encoded(item, "ReferencedSOPSequence", b"".join(members))
        series.append(encoded_item(item))
    study = Dataset()
    study.StudyInstanceUID = study_instance_uid
    put_encoded(study, "ReferencedSeriesSequence", b"".join(series))
    return encoded_item(study)


def observer(equipment: Equipment) -> Iterator[bytes]:
    """Who says so (PS3.16 TID 1004)."""
    kind = named_item("HAS OBS CONTEXT", "CODE", _OBSERVER_TYPE)
    put_encoded(kind, "ConceptCodeSequence", encoded_code(_DEVICE))
    yield encoded_item(kind)
    device = named_item("HAS OBS CONTEXT", "UIDREF", _DEVICE_UID)
    device.UID = equipment.device_uid
    yield encoded_item(device)
    name = named_item("HAS OBS CONTEXT", "TEXT", _DEVICE_NAME)
    name.TextValue = our_text(equipment.model_name, _LO_CHARACTERS)
    yield encoded_item(name)


def named_item(relationship: str, value_type: str, name: Code) -> Dataset:
    """An item of the content, its value still to be put in."""
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, value_type
    put_encoded(item, "ConceptNameCodeSequence", encoded_code(name))
    return item


def reference(one: ObjectReference) -> bytes:
    """An item of a Referenced SOP Sequence."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    return encoded_item(item)


@cache
def _copied_tags() -> frozenset[BaseTag]:
    keywords = {keyword for module in _OF_THE_STUDY for keyword in MODULES[module].split()}
    return frozenset(tag_of(keyword) for keyword in keywords | {"SpecificCharacterSet", "TimezoneOffsetFromUTC"})
