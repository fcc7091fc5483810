"""Quality reports as DICOM objects: a structured report of the figures (PS3.3 A.35.2), and a secondary capture of the
page (PS3.3 A.8.1).

The report is an Enhanced SR without a template: a measurement for each figure, under codes of our own, since DICOM has
none for what an engine did to an image. It speaks of the source images; of the patient it says what they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedSRStorage, SecondaryCaptureImageStorage

from dicomnode.core.derive.codes import OWN_SCHEME, Code, encoded_code, encoded_own_scheme
from dicomnode.core.derive.derivation import ContentQualification, Equipment
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
from dicomnode.core.figures import FIGURES, IN_UNIT_OF_THE_IMAGE
from dicomnode.core.identity import named_uid

TITLE: Final = Code("QUALITY", OWN_SCHEME, "Image quality report")
ENGINE: Final = Code("ENGINE", OWN_SCHEME, "Engine that was measured")
SUBJECT: Final = Code("SUBJECT", OWN_SCHEME, "What was measured, and how it was computed")
GATE: Final = Code("GATE", OWN_SCHEME, "What the gate after the engine says")

UNITS: Final[Mapping[str, Code]] = {
    "HU": Code("[hnsf'U]", "UCUM", "Hounsfield unit"),
    "px": Code("{pixels}", "UCUM", "pixels"),
    "1/mm": Code("/mm", "UCUM", "per millimeter"),
    "": Code("1", "UCUM", "no units"),
}
"""By the unit of a figure (PS3.16 CID 83)."""

_LO_CHARACTERS: Final = 64
_UT_CHARACTERS: Final = 1024
_CODE_CHARACTERS: Final = 16
_SHORTER: Final = (("SLICE_BIAS", "SBIAS"), ("SOFT_TISSUE", "SOFT"), ("EDGE_WIDTH", "WIDTH"))


@dataclass(frozen=True)
class QualityDocument:
    """What a report says, beside whom it is about.

    engine     name@version, or "phantom"         unit  of the image's values
    subjects   how it was computed, and whether the gate passed: without patient data
    figures    by the names of `dicomnode.core.figures`
    sentences  what the gate checked, ASCII without patient data
    sources    the images that were measured
    identity   what the UIDs are made of: sources, engine, settings
    """

    engine: str
    subjects: tuple[str, ...]
    unit: str
    figures: Mapping[str, float]
    sentences: tuple[str, ...]
    sources: tuple[ObjectReference, ...]
    identity: Mapping[str, str]
    series_number: int
    created_at: datetime
    equipment: Equipment
    content_qualification: ContentQualification


def figure_code(name: str) -> Code:
    """The code of a figure; code values have 16 characters (PS3.3 8.1)."""
    value = name.upper()
    for long, short in _SHORTER:
        value = value.replace(long, short)
    return Code(value[:_CODE_CHARACTERS], OWN_SCHEME, FIGURES[name].meaning[:_LO_CHARACTERS])


def quality_sr(source: Dataset, document: QualityDocument) -> Dataset:
    """The structured report, ready to be written in Explicit VR Little Endian.

    source  one of the measured images, its pixels not needed. Raises InputError where it names no study.
    """
    report, said = study_of(source)
    created = _put_series(report, said, document, "SR", "quality report")
    report.SOPClassUID = EnhancedSRStorage
    report.CompletionFlag, report.VerificationFlag = "COMPLETE", "UNVERIFIED"
    put_encoded(report, "PerformedProcedureCodeSequence", b"")
    report.ValueType, report.ContinuityOfContent = "CONTAINER", "SEPARATE"
    put_encoded(report, "ConceptNameCodeSequence", encoded_code(TITLE))
    put_encoded(report, "CodingSchemeIdentificationSequence", encoded_own_scheme())
    study = ascii_text(said, "StudyInstanceUID")
    put_encoded(report, "CurrentRequestedProcedureEvidenceSequence", evidence(study, document.sources))
    put_encoded(report, "ContentSequence", b"".join(_content(document)))
    put_maker(report, document.equipment, created)
    return writable(report, report.SOPInstanceUID)


def quality_capture(source: Dataset, document: QualityDocument, page: NDArray[np.uint8]) -> Dataset:
    """The page, (rows, columns) uint8, as a secondary capture. Arguments and errors as `quality_sr`."""
    image, said = study_of(source)
    created = _put_series(image, said, document, "OT", "quality page")
    image.SOPClassUID = SecondaryCaptureImageStorage
    put_maker(image, document.equipment, created)
    image.ConversionType = "WSD"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.ContentQualification = document.content_qualification
    image.BurnedInAnnotation = "NO"  # of the patient there is nothing on the page
    put_encoded(image, "PatientOrientation", b"")
    put_encoded(image, "Laterality", b"")
    del image.ReferencedPerformedProcedureStepSequence  # of documents alone it may be there and empty
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = page.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    encoded = np.ascontiguousarray(page).tobytes()
    image.add_new("PixelData", "OB", encoded + b"\0" * (len(encoded) % 2))
    return writable(image, image.SOPInstanceUID)


def _put_series(made: Dataset, said: Dataset, document: QualityDocument, modality: str, what: str) -> datetime:
    """A series of its own for each form, so that viewers do not mix them; when it was made, in the source's zone."""
    parts = {**document.identity, "form": what}
    made.SOPInstanceUID, made.SeriesInstanceUID = (
        named_uid({**parts, "role": role}) for role in ("quality", "quality series")
    )
    made.Modality, made.InstanceNumber = modality, 1
    made.SeriesNumber = document.series_number
    made.SeriesDescription = our_text(f"{document.engine} {what}", _LO_CHARACTERS)
    return local_time(document.created_at, said)


def _content(document: QualityDocument) -> Iterator[bytes]:
    yield from observer(document.equipment)
    yield _text(ENGINE, document.engine)
    for subject in document.subjects:
        yield _text(SUBJECT, subject)
    for name, value in document.figures.items():
        yield encoded_item(_measured(document, name, value))
    for sentence in document.sentences:
        yield _text(GATE, sentence)
    for one in document.sources:
        image = Dataset()
        image.RelationshipType, image.ValueType = "CONTAINS", "IMAGE"
        put_encoded(image, "ReferencedSOPSequence", reference(one))
        yield encoded_item(image)


def _text(concept: Code, text: str) -> bytes:
    item = named_item("CONTAINS", "TEXT", concept)
    item.TextValue = our_text(text, _UT_CHARACTERS)
    return encoded_item(item)


def _measured(document: QualityDocument, name: str, value: float) -> Dataset:
    item = named_item("CONTAINS", "NUM", figure_code(name))
    unit = document.unit if name in IN_UNIT_OF_THE_IMAGE else FIGURES[name].unit
    measured = Dataset()
    put_encoded(measured, "MeasurementUnitsCodeSequence", encoded_code(UNITS.get(unit, UNITS[""])))
    measured.NumericValue = f"{value:.8g}"
    put_encoded(item, "MeasuredValueSequence", encoded_item(measured))
    return item
