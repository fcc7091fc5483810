"""Coded concepts that derived objects carry, and how a code is written (PS3.3 8.8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from pydicom.dataset import Dataset

from dicomnode.core.derive.elements import encoded_item
from dicomnode.core.identity import CODING_SCHEME_UID


class Code(NamedTuple):
    """A coded concept: value, coding scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


OWN_SCHEME: Final = "99DICOMNODE"
"""Scheme of the codes that DICOM lacks; names that begin with 99 are for private schemes (PS3.3 8.2)."""

SOURCE_IMAGE: Final = Code("121322", "DCM", "Source image for image processing operation")  # CID 7202
ACQUISITION_EQUIPMENT: Final = Code("109101", "DCM", "Acquisition Equipment")  # CID 7005
PROCESSING_EQUIPMENT: Final = Code("109102", "DCM", "Processing Equipment")  # CID 7005

REPLACED_SERIES: Final = Code("REPLACED", OWN_SCHEME, "Series that this one replaces")
"""CID 7210 has no purpose of reference for that; it may be extended."""

DERIVATIONS: Final[Mapping[str, Code]] = {
    "denoise": Code("113087", "DCM", "Smoothing"),
    "contrast": Code("CONTRAST", OWN_SCHEME, "Local contrast enhancement"),
    "enhance": Code("ENHANCE", OWN_SCHEME, "Image enhancement"),
    "super-resolution": Code("113085", "DCM", "Spatial resampling"),
}
"""By an engine's operation. CID 7203 has no code for noise reduction or enhancement; it may be extended."""


def encoded_code(code: Code) -> bytes:
    """The code as the item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return encoded_item(item)


def encoded_own_scheme() -> bytes:
    """What `OWN_SCHEME` is, as an item of Coding Scheme Identification Sequence (PS3.3 C.12.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = OWN_SCHEME
    item.CodingSchemeUID = CODING_SCHEME_UID
    item.CodingSchemeName = "Codes of dicomnode"
    item.CodingSchemeResponsibleOrganization = "dicomnode"
    return encoded_item(item)
