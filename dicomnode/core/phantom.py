"""A CT study of a body that nobody has: for the demonstration, and for tests that must not carry a patient.

A water-like body with a ring of fat, two lungs, a spine and ribs of bone, and low-contrast spheres in a liver; noise is
correlated as a filtered back projection leaves it. All values in HU.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

AIR_HU: Final = -1000.0
LUNG_HU: Final = -850.0
FAT_HU: Final = -100.0
WATER_HU: Final = 0.0
LIVER_HU: Final = 60.0
BONE_HU: Final = 700.0

LESION_CONTRAST_HU: Final = 50.0
"""How much the lesions are brighter than the liver."""

_FIELD_OF_VIEW_MM: Final = 360.0
_STEP_MM: Final = 2.0
_INTERCEPT_HU: Final = -1024


@dataclass(frozen=True, slots=True)
class Ellipse:
    """Centre and half axes in mm, from the middle of the image: x to the patient's left, y to the back."""

    x_mm: float
    y_mm: float
    half_x_mm: float
    half_y_mm: float
    value_hu: float


@dataclass(frozen=True, slots=True)
class Lesion:
    """A sphere in the middle of the stack."""

    x_mm: float
    y_mm: float
    diameter_mm: float


BODY: Final = (
    Ellipse(0, 0, 160, 115, FAT_HU),
    Ellipse(0, 0, 145, 100, WATER_HU),
    Ellipse(85, -15, 45, 60, LUNG_HU),
    Ellipse(-80, -40, 42, 35, LUNG_HU),
    Ellipse(-75, 40, 55, 42, LIVER_HU),
    Ellipse(0, 68, 18, 18, BONE_HU),
    *(Ellipse(side * x, y, 7, 5, BONE_HU) for side in (-1, 1) for x, y in ((138, 0), (115, 62), (110, -66))),
)
"""Painted in this order, each over the ones before."""

LESIONS: Final = (Lesion(-95, 40, 6), Lesion(-75, 40, 10), Lesion(-55, 40, 10), Lesion(-75, 58, 6))


def phantom_study(
    noise: np.random.Generator, slices: int = 20, size: int = 512, noise_hu: float = 25.0
) -> list[Dataset]:
    """One CT series, by position, each data set complete with file meta information: explicit VR little endian.

    noise     where noise and UIDs are drawn from: equal generators give equal studies
    size      rows and columns; the field of view is 360 mm whatever it is
    noise_hu  standard deviation in flat tissue
    """
    study, series, frame_of_reference = (_uid(noise) for _ in range(3))
    clean = _painted(size)
    built = []
    for index in range(slices):
        height_mm = (index - (slices - 1) / 2) * _STEP_MM
        image = _with_lesions(clean, height_mm) + noise_hu * _correlated_noise(noise, size)
        dataset = _described(size)
        dataset.SOPInstanceUID = _uid(noise)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID = frame_of_reference
        dataset.InstanceNumber = index + 1
        _place(dataset, size, height_mm)
        dataset.PixelData = _stored(image)
        dataset.file_meta = _meta(dataset)
        built.append(dataset)
    return built


def stored_hu(study: Sequence[Dataset]) -> NDArray[np.int16]:
    """What a study of `phantom_study` holds: HU (slices, rows, columns)."""
    stored = [np.frombuffer(one.PixelData, "<i2").reshape(one.Rows, one.Columns) for one in study]
    return np.stack(stored) + np.int16(_INTERCEPT_HU)


def _uid(noise: np.random.Generator) -> str:
    return f"2.25.{uuid.UUID(bytes=noise.bytes(16), version=4).int}"


def _grid_mm(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    axis = ((np.arange(size) - (size - 1) / 2) * (_FIELD_OF_VIEW_MM / size)).astype(np.float32)
    return axis[np.newaxis, :], axis[:, np.newaxis]


def _painted(size: int) -> NDArray[np.float32]:
    """The body without lesions and noise; edges are as soft as half a pixel, so that they have a width to measure."""
    x, y = _grid_mm(size)
    image = np.full((size, size), AIR_HU, dtype=np.float32)
    for ellipse in BODY:
        radius = np.hypot((x - ellipse.x_mm) / ellipse.half_x_mm, (y - ellipse.y_mm) / ellipse.half_y_mm)
        inside = _covered((1 - radius) * min(ellipse.half_x_mm, ellipse.half_y_mm), size)
        image += inside * (np.float32(ellipse.value_hu) - image)
    return image


def _with_lesions(clean: NDArray[np.float32], height_mm: float) -> NDArray[np.float32]:
    image = clean.copy()
    x, y = _grid_mm(len(clean))
    for lesion in LESIONS:
        distance = np.sqrt((x - lesion.x_mm) ** 2 + (y - lesion.y_mm) ** 2 + np.float32(height_mm**2))
        image += np.float32(LESION_CONTRAST_HU) * _covered(lesion.diameter_mm / 2 - distance, len(clean))
    return image


def _covered(depth_mm: NDArray[np.floating[Any]], size: int) -> NDArray[np.float32]:
    """Share of a pixel that lies inside, from how deep its centre does."""
    covered: NDArray[np.float32] = np.clip(depth_mm * (size / _FIELD_OF_VIEW_MM) + 0.5, 0, 1).astype(np.float32)
    return covered


def _correlated_noise(noise: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Noise of standard deviation 1 whose power rises with frequency, then falls with a soft kernel's roll-off."""
    cycles = np.hypot(np.fft.fftfreq(size)[:, np.newaxis], np.fft.rfftfreq(size)[np.newaxis, :])
    amplitude = np.sqrt(cycles) * np.exp(-((cycles / 0.25) ** 2))
    spectrum = np.fft.rfft2(noise.standard_normal((size, size), dtype=np.float32)) * amplitude
    image: NDArray[np.float32] = np.fft.irfft2(spectrum, s=(size, size)).astype(np.float32)
    image /= image.std()
    return image


def _stored(image: NDArray[np.float32]) -> bytes:
    """Signed, so that noise in air is not cut off at the intercept."""
    return np.rint(image - _INTERCEPT_HU).astype("<i2").tobytes()


def _place(dataset: Dataset, size: int, height_mm: float) -> None:
    spacing_mm = _FIELD_OF_VIEW_MM / size
    corner_mm = (spacing_mm - _FIELD_OF_VIEW_MM) / 2
    dataset.PixelSpacing = [f"{spacing_mm:.6f}"] * 2
    dataset.ImagePositionPatient = [f"{corner_mm:.6f}", f"{corner_mm:.6f}", f"{height_mm:.6f}"]
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.SliceThickness = f"{_STEP_MM:g}"
    dataset.SliceLocation = f"{height_mm:.6f}"


def _meta(dataset: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _described(size: int) -> Dataset:
    """All of the CT Image IOD (PS3.3 A.3) that is the same for every slice."""
    dataset = Dataset()
    for keyword, value in (_PATIENT_AND_STUDY | _EQUIPMENT | _IMAGE).items():
        setattr(dataset, keyword, value)
    dataset.Rows = dataset.Columns = size
    return dataset


_PATIENT_AND_STUDY: Final[dict[str, object]] = {
    "PatientName": "PHANTOM^DEMO",
    "PatientID": "PHANTOM-1",
    "PatientBirthDate": "19700101",
    "PatientSex": "O",
    "StudyDate": "20250102",
    "StudyTime": "080000",
    "AccessionNumber": "DEMO-1",
    "ReferringPhysicianName": "",
    "StudyID": "1",
    "StudyDescription": "Phantom chest",
}

_EQUIPMENT: Final[dict[str, object]] = {
    "Modality": "CT",
    "SeriesNumber": 2,
    "SeriesDate": "20250102",
    "SeriesTime": "080100",
    "SeriesDescription": "Low dose 2.0",
    "BodyPartExamined": "CHEST",
    "PatientPosition": "HFS",
    "ProtocolName": "Low dose chest",
    "PositionReferenceIndicator": "",
    "Manufacturer": "dicomnode",
    "ManufacturerModelName": "Phantom",
    "DeviceSerialNumber": "1",
    "SoftwareVersions": "1",
}

_IMAGE: Final[dict[str, object]] = {
    "SOPClassUID": CTImageStorage,
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "AcquisitionNumber": 1,
    "AcquisitionDate": "20250102",
    "AcquisitionTime": "080100",
    "ContentDate": "20250102",
    "ContentTime": "080105",
    "KVP": "100",
    "XRayTubeCurrent": "40",
    "ExposureTime": "500",
    "ConvolutionKernel": "SOFT",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
    "RescaleIntercept": str(_INTERCEPT_HU),
    "RescaleSlope": "1",
    "RescaleType": "HU",
    "WindowCenter": "40",
    "WindowWidth": "400",
}
