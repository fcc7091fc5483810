"""Phantom slices, encoded in the ways that data sets travel."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.uid import UID

from dicomnode.core.phantom import phantom_study
from dicomnode.testing.objects import data_set_bytes


def phantom_slice(size: int = 32, **attributes: object) -> Dataset:
    (dataset,) = phantom_study(np.random.default_rng(7), slices=1, size=size)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def in_syntax(dataset: Dataset, transfer_syntax_uid: str) -> Dataset:
    """The data set, its pixels swapped or compressed for the transfer syntax."""
    syntax = UID(transfer_syntax_uid)
    if syntax.is_compressed and not syntax.is_deflated:
        dataset.compress(syntax, generate_instance_uid=False)
        return dataset
    if not syntax.is_little_endian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def file_bytes(dataset: Dataset) -> bytes:
    written = BytesIO()
    dcmwrite(written, dataset, enforce_file_format=True)
    return written.getvalue()


def encoded(dataset: Dataset) -> bytes:
    return data_set_bytes(file_bytes(dataset))


def stored(folder: Path, dataset: Dataset) -> Path:
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    path.write_bytes(file_bytes(dataset))
    return path
