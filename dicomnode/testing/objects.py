"""What tests compare of DICOM objects: bytes, elements, pixels, validity, and the texts that identify a patient."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue

_PREAMBLE_BYTES: Final = 132
_IDENTIFYING_VRS: Final = frozenset({"PN", "LO", "SH", "LT", "ST", "UT"})
_IDENTIFYING_KEYWORDS: Final = frozenset({"PatientBirthDate", "PatientBirthTime"})
_SHORTEST_TEXT: Final = 4


def data_set_bytes(file: bytes) -> bytes:
    """The encoded data set of a DICOM file: all that follows its File Meta Information (PS3.10 7.1)."""
    if file[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 6] != b"\x02\x00\x00\x00UL":
        raise ValueError("the file does not begin with File Meta Information Group Length")
    value_at = _PREAMBLE_BYTES + 8
    group_length = int.from_bytes(file[value_at : value_at + 4], "little")
    return file[value_at + 4 + group_length :]


def pixel_digest(file: bytes) -> str:
    """SHA-256 of shape, type and decoded stored values; "" for an object without Pixel Data."""
    dataset = dcmread(BytesIO(file))
    if "PixelData" not in dataset:
        return ""
    pixels = dataset.pixel_array
    return hashlib.sha256(f"{pixels.shape} {pixels.dtype}".encode() + pixels.tobytes()).hexdigest()


def differing_elements(one: Dataset, other: Dataset) -> list[str]:
    """Paths of all elements, also in sequences, whose value differs; how sequences are encoded does not matter."""
    ours, theirs = dict(_elements(one)), dict(_elements(other))
    return sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))


def _elements(dataset: Dataset, path: str = "") -> Iterator[tuple[str, object]]:
    for element in dataset:
        here = f"{path}{element.tag}"
        if element.VR != "SQ":
            yield here, _plain(element)
            continue
        yield here, len(element.value)
        for index, item in enumerate(element.value):
            yield from _elements(item, f"{here}[{index}]")


def _plain(element: DataElement) -> object:
    value = element.value
    if isinstance(value, bytes):
        return bytes(value)
    values = list(value) if isinstance(value, MultiValue) else [value]
    return ["" if item is None else str(item) for item in values]


def validation_errors(path: Path) -> set[str]:
    """The errors that dicom3tools' dciodvfy finds in a file, without the values at fault."""
    answer = subprocess.run(
        ["dciodvfy", "-new", str(path)], capture_output=True, text=True, errors="replace", check=False
    )
    lines = (answer.stdout + answer.stderr).splitlines()
    return {_without_values(line) for line in lines if "Error - " in line}


def _without_values(line: str) -> str:
    return re.sub(r"= <.*?>", "", line).strip()


def identifying_texts(paths: Iterable[Path]) -> set[str]:
    """All names, identifiers, dates of birth and free texts of the files that are long enough to be recognised."""
    found: set[str] = set()
    for path in paths:
        dcmread(path, stop_before_pixels=True, force=True).walk(
            lambda _, element: found.update(_identifying(element)), recursive=True
        )
    return found


def _identifying(element: DataElement) -> Iterator[str]:
    if element.VR not in _IDENTIFYING_VRS and element.keyword not in _IDENTIFYING_KEYWORDS:
        return
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    for value in values:
        text = str(value).strip()
        if len(text) >= _SHORTEST_TEXT:
            yield text
