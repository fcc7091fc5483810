"""Small CT series that need no test data: a body of water with fat, bone and air in it, and noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SIDE = 128
SPACING_MM = 1.5
STEP_MM = 2.5
NOISE_HU = 25.0


def phantom_series(folder: Path, slices: int, seed: int = 0) -> list[Path]:
    """Write one series of its own study; the same `seed` gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed)
    paths = []
    for index in range(slices):
        dataset = _slice(f"2.25.{4711 + seed}", index)
        hu = np.clip(_body() + noise.normal(0.0, NOISE_HU, (SIDE, SIDE)), -1024, 3071)
        dataset.PixelData = np.rint(hu + 1024).astype("<u2").tobytes()
        paths.append(folder / f"{index:03d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def _body() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    radius = np.hypot(rows, columns)
    hu = np.full((SIDE, SIDE), -1000.0)
    hu[radius < 55] = -100.0
    hu[radius < 48] = 40.0
    hu[np.hypot(rows - 15, columns) < 10] = 700.0
    hu[np.hypot(rows + 15, columns) < 12] = -850.0
    return hu


def _slice(study_uid: str, index: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"{study_uid}.1.{index + 1}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, f"{study_uid}.1"
    dataset.FrameOfReferenceUID = f"{study_uid}.2"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality, dataset.Manufacturer = "CT", "Phantom"
    dataset.PatientName, dataset.PatientID = "Phantom^Test", "PHANTOM"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260101", "120000", "1"
    dataset.BodyPartExamined, dataset.KVP, dataset.AcquisitionNumber = "CHEST", "120", 1
    dataset.SeriesNumber, dataset.InstanceNumber = 2, index + 1
    dataset.PositionReferenceIndicator, dataset.PatientPosition = "", "HFS"
    dataset.SliceThickness, dataset.PixelSpacing = STEP_MM, [SPACING_MM, SPACING_MM]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-SIDE * SPACING_MM / 2, -SIDE * SPACING_MM / 2, index * STEP_MM]
    dataset.Rows = dataset.Columns = SIDE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    return dataset
