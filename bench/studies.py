"""Studies to send: CT of 512 x 512 and MR of 256 x 256, with headers as rich as a scanner's, of nobody.

Every UID holds `MARKER`, so that a sender can make a study no receiver has seen by writing other digits over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, CTImageStorage, MRImageStorage

from dicomnode.core.phantom import phantom_study

MARKER: Final = "17171717171717171717"
"""Twenty digits of a 2.25 UID (PS3.5 B.2) of thirty-nine, below 2^128 whatever replaces them below 3 * 10^19."""

_STUDY, _SERIES, _FRAME, _INSTANCE, _ELSEWHERE = range(1, 6)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of image."""

    name: str
    sop_class_uid: str
    size: int


CT: Final = Kind("CT 512 x 512", CTImageStorage, 512)
MR: Final = Kind("MR 256 x 256", MRImageStorage, 256)


def written(folder: Path, kind: Kind, instances: int) -> list[Path]:
    """A study in Part 10 files, explicit VR little endian: 0.53 MB (CT) or 0.14 MB (MR) each."""
    folder.mkdir(parents=True)
    paths = []
    for number, dataset in enumerate(phantom_study(np.random.default_rng(1), instances, kind.size)):
        _complete(dataset, kind, number)
        paths.append(folder / f"{number:04d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def _uid(level: int, number: int = 0) -> UID:
    return UID(f"2.25.{MARKER}{level}{number:018d}")


def _complete(dataset: Dataset, kind: Kind, number: int) -> None:
    """Add what scanners write beside the necessary, and give the data set its UIDs."""
    for keyword, value in (_TEXT | (_MR if kind is MR else _CT)).items():
        setattr(dataset, keyword, value)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid(_STUDY), _uid(_SERIES)
    dataset.FrameOfReferenceUID = _uid(_FRAME)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(kind.sop_class_uid)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = _uid(_INSTANCE, number)
    dataset.ProcedureCodeSequence = Sequence([_code("CTTHX", "99LOCAL", "Thorax")])
    dataset.ReferencedImageSequence = Sequence([_localizer(kind, each) for each in range(3)])
    dataset.RequestAttributesSequence = Sequence([_request()])
    block = dataset.private_block(0x0019, "DICOMNODE BENCH", create=True)
    for offset in range(12):
        block.add_new(0x10 + offset, "DS", f"{offset * 1.5}")
    block.add_new(0x60, "OB", bytes(range(256)) * 8)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _localizer(kind: Kind, number: int) -> Dataset:
    referenced = Dataset()
    referenced.ReferencedSOPClassUID = kind.sop_class_uid
    referenced.ReferencedSOPInstanceUID = _uid(_ELSEWHERE, number)
    referenced.PurposeOfReferenceCodeSequence = Sequence([_code("121311", "DCM", "Localizer")])
    return referenced


def _request() -> Dataset:
    request = Dataset()
    request.ScheduledProcedureStepID, request.RequestedProcedureID = "SPS1", "RP1"
    return request


_TEXT: Final[dict[str, object]] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "InstanceCreationDate": "20250102",
    "InstanceCreationTime": "080106.000000",
    "InstitutionName": "Hospital of Nowhere",
    "InstitutionAddress": "1 No Street\r\nNowhere",
    "InstitutionalDepartmentName": "Radiology",
    "StationName": "STATION1",
    "PerformingPhysicianName": "Nobody^At^All",
    "OperatorsName": "Nobody^Else",
    "IssuerOfPatientID": "NOWHERE",
    "PatientAge": "055Y",
    "PatientSize": "1.78",
    "PatientWeight": "81.5",
    "RequestingPhysician": "Nobody^Again",
    "PerformedProcedureStepID": "PPS1",
    "PerformedProcedureStepStartDate": "20250102",
    "PerformedProcedureStepStartTime": "080000",
    "ImageComments": "made up",
}

_CT: Final[dict[str, object]] = {
    "DataCollectionDiameter": "500",
    "ReconstructionDiameter": "360",
    "GantryDetectorTilt": "0",
    "TableHeight": "151",
    "RotationDirection": "CW",
    "Exposure": "20",
    "FilterType": "0",
    "GeneratorPower": "23",
    "FocalSpots": "1.2",
}

_MR: Final[dict[str, object]] = {
    "Modality": "MR",
    "ScanningSequence": "SE",
    "SequenceVariant": "SK",
    "ScanOptions": "PFP",
    "MRAcquisitionType": "2D",
    "RepetitionTime": "500",
    "EchoTime": "14",
    "MagneticFieldStrength": "1.5",
    "FlipAngle": "90",
    "EchoTrainLength": "1",
}
