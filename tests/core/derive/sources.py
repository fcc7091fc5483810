"""A small CT image and how to have it read as a stored file is read, with every element still encoded."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomnode.core.derive.derivation import Derivation, SeriesLabel, SourceReference, Stage

SOP_INSTANCE_UID = "1.2.3.4.5"
CREATED_AT = datetime(2024, 5, 6, 22, 30, 15, 250000, tzinfo=UTC)
DENOISE = Stage("ct-nlm@1.0.0", "ab" * 32, "numpy/float32", "denoise", {"strength": 0.8})
CONTRAST = Stage("contrast-glcae@1.0.0", "cd" * 32, "numpy/float32", "contrast")


def ct_image(**attributes: Any) -> Dataset:
    """A CT image of 4 rows and 6 columns without pixels; `attributes` replace or (None) remove its own."""
    image = Dataset()
    given: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": SOP_INSTANCE_UID,
        "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "FrameOfReferenceUID": "1.2.3.9",
        "StudyDate": "20240101", "SeriesDate": "20240101", "AcquisitionDate": "20240101", "StudyTime": "101010",
        "AccessionNumber": "A1", "Modality": "CT", "Manufacturer": "ACME", "ManufacturerModelName": "Scan 9",
        "PatientName": "Doe^Jane", "PatientID": "P1", "SeriesDescription": "Thorax 1.0", "SeriesNumber": 3,
        "InstanceNumber": 17, "ImagePositionPatient": ["-1.50", "2", "+3e0"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"], "PixelSpacing": ["0.70", "0.70"],
        "SliceThickness": "1.0", "SliceLocation": "3", "KVP": "120",
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": 4, "Columns": 6,
        "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0,
        "RescaleSlope": "1", "RescaleIntercept": "-1024", "RescaleType": "HU",
        "WindowCenter": "40", "WindowWidth": "400",
    }  # fmt: skip
    for keyword, value in {**given, **attributes}.items():
        if value is not None:
            setattr(image, keyword, value)
    return image


def as_read(image: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> Dataset:
    """The image written in a transfer syntax and read again."""
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = transfer_syntax_uid
    file = BytesIO()
    dcmwrite(file, image, enforce_file_format=True)
    file.seek(0)
    return dcmread(file)


def written(image: Dataset) -> bytes:
    file = BytesIO()
    dcmwrite(file, image, enforce_file_format=True)
    return file.getvalue()


def read_back(image: Dataset) -> Dataset:
    """The derived image as a PACS reads it."""
    return dcmread(BytesIO(written(image)))


def pixels(dtype: str = "uint16", shape: tuple[int, int] = (4, 6)) -> np.ndarray[Any, np.dtype[Any]]:
    return np.arange(shape[0] * shape[1], dtype=dtype).reshape(shape)


def derivation(**changes: Any) -> Derivation:
    given: dict[str, Any] = {
        "sop_instance_uid": "2.25.11", "series_instance_uid": "2.25.12", "series": SeriesLabel("AI ct-nlm ", 700),
        "stages": (DENOISE,), "presentation": False,
        "sources": (SourceReference(CTImageStorage, SOP_INSTANCE_UID),), "created_at": CREATED_AT,
    }  # fmt: skip
    return Derivation(**{**given, **changes})


def presentation(**changes: Any) -> Derivation:
    return derivation(**{"stages": (CONTRAST,), "presentation": True, **changes})
