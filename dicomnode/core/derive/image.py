"""An image derived from one source image, with other pixel values on the same grid."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomnode.core.derive.derivation import Derivation
from dicomnode.core.derive.elements import (
    ascii_text,
    character_encodings,
    explicit_copy,
    followed_by,
    keep_bytes_when_written,
    names_character_sets,
    our_text,
    put_encoded,
    value_bytes,
)  # fmt: skip
from dicomnode.core.derive.grid import factor_of, put_grid
from dicomnode.core.derive.iod import fill_type_2, iod_of, kept_tags, readable_tags
from dicomnode.core.derive.provenance import (
    local_time,
    put_derivation,
    put_equipment,
    put_replaced,
    put_sources,
    require_known,
)  # fmt: skip
from dicomnode.core.identity import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    INSTANCE_CREATOR_UID,
    is_valid_uid,
)  # fmt: skip
from dicomnode.errors import InputError, UnsupportedError

PRESENTATION_BITS: Final = 12
"""Presentation values are 0 to 4095: what every viewer shows without a detour through 16 bits."""

_NUMBERS_PER_SERIES: Final = 1000
_DISTINCT_SERIES: Final = 2_000_000  # times 1000 and an offset is within IS, 2**31 - 1
_LO_CHARACTERS: Final = 64
_COMMENT_CHARACTERS: Final = 1024
_INTEGER: Final = re.compile(r"[+-]?\d{1,12}")
_GRAYSCALE: Final = ("MONOCHROME1", "MONOCHROME2")
_PIXEL_TYPES: Final = ("uint8", "int8", "uint16", "int16")
# Transfer syntaxes that always lose something, with the method's defined term (C.7.6.1.1.5.1). The others of their
# families may be lossless, so only the source's own word counts.
_LOSSY: Final = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}


def derive_image(source: Dataset, stored_pixels: NDArray[Any], derivation: Derivation) -> Dataset:
    """The derived image: what the source says of patient, study, acquisition and place, and what we did.

    source         one image instance, as read, its pixels not needed; its elements are copied byte for byte
    stored_pixels  (rows, columns), or a whole number of times as many, uint8, int8, uint16 or int16: stored values in
                   the source's own representation and rescale; or, where `derivation.presentation`, uint16 of 12 bits
    derivation     how; one of its sources is `source`

    The result is ready to be written in Explicit VR Little Endian. Raises UnsupportedError for a SOP class, colour or
    operation that no image is derived from, InputError where the source lacks what identifies it.
    """
    described = describe_image(source, PixelGrid(stored_pixels.shape, stored_pixels.dtype), derivation)
    encoded = np.ascontiguousarray(stored_pixels, stored_pixels.dtype.newbyteorder("<")).tobytes()
    described.image.add_new("PixelData", "OW", encoded + b"\0" * (len(encoded) % 2))
    return writable(described.image, derivation.sop_instance_uid)


class PixelGrid(NamedTuple):
    """What is to be known of stored pixels before they are there."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Described(NamedTuple):
    """A derived image without its pixels, the source's elements that it may be made of, and how many of these could
    not be read."""

    image: Dataset
    said: Dataset
    unreadable: int


def describe_image(source: Dataset, grid: PixelGrid, derivation: Derivation) -> Described:
    """All of `derive_image` but the pixels."""
    iod = iod_of(ascii_text(source, "SOPClassUID"))
    require_known(derivation.stages)
    _require_grid(source, grid)
    said, unreadable = explicit_copy(source, readable_tags(iod))
    require_identity(said, derivation)
    image = Dataset()
    for tag in kept_tags(iod, derivation.presentation) & said.keys():
        image[tag] = said.get_item(tag)
    fill_type_2(image, iod)
    created = local_time(derivation.created_at, said)
    _put_instance(image, derivation, created)
    _put_series(image, said, derivation, created)
    image.ImageType = _image_type(said, iod)
    put_derivation(image, said, derivation, _remarks(source, iod, unreadable))
    factor = factor_of(shape_of(said), grid.shape)
    put_sources(image, said, derivation, same_grid=factor == 1)
    put_replaced(image, said, derivation.replaces)
    put_equipment(image, said, derivation, created)
    _put_grid(image, said, grid, derivation.presentation)
    put_grid(image, said, factor)
    if derivation.presentation:
        _put_presentation_scale(image, iod)
    _put_lossy_history(image, source)
    return Described(image, said, unreadable)


def series_number(source_series_number: str, offset: int) -> int:
    """Series Number of a derived series: 1000 times the source's plus the offset, so that it sorts beside its source.

    Bounded to what IS can hold (PS3.5 6.2) by leaving out leading digits of large source numbers.
    """
    text = source_series_number.strip()
    number = abs(int(text)) if _INTEGER.fullmatch(text) else 0
    return number % _DISTINCT_SERIES * _NUMBERS_PER_SERIES + offset


def presentation_padding(source: Dataset) -> int:
    """The stored value that stands for "not measured" in a presentation image: the one that is shown darkest."""
    inverse = ascii_text(source, "PhotometricInterpretation") == "MONOCHROME1"
    return (1 << PRESENTATION_BITS) - 1 if inverse else 0


def _require_grid(source: Dataset, grid: PixelGrid) -> None:
    if ascii_text(source, "PhotometricInterpretation") not in _GRAYSCALE:
        raise UnsupportedError("only greyscale images are derived from", "colour objects are forwarded as they are")
    if len(grid.shape) != 2 or grid.dtype.name not in _PIXEL_TYPES:
        raise UnsupportedError(
            f"stored values are {grid.dtype} with {len(grid.shape)} axes",
            "8 or 16 bits and 2 axes are written; objects of 32 bits are forwarded as they are",
        )


def shape_of(said: Dataset) -> tuple[int, int]:
    """(rows, columns) of the source."""
    rows, columns = (int.from_bytes(value_bytes(said, keyword)[:2], "little") for keyword in ("Rows", "Columns"))
    return rows, columns


def require_identity(said: Dataset, derivation: Derivation) -> None:
    """Raises InputError where the source's UIDs are no UIDs, or the derivation is one of another source."""
    own = ascii_text(said, "SOPInstanceUID")
    uids = [own, ascii_text(said, "SeriesInstanceUID"), ascii_text(said, "StudyInstanceUID")]
    if not all(map(is_valid_uid, uids)):
        raise InputError(
            "the source's UIDs are missing or invalid", "the object breaks PS3.5 9.1: report it to its vendor"
        )
    if all(reference.sop_instance_uid != own for reference in derivation.sources):
        raise InputError(f"{own} is not among the sources of what is derived from it", "this is a defect: report it")


def _put_instance(image: Dataset, derivation: Derivation, created: datetime) -> None:
    if "SpecificCharacterSet" in image and not names_character_sets(ascii_text(image, "SpecificCharacterSet")):
        del image.SpecificCharacterSet  # empty, or a word that means nothing: texts are the source's bytes all the same
    image.SOPInstanceUID = derivation.sop_instance_uid
    image.InstanceCreatorUID = INSTANCE_CREATOR_UID
    image.InstanceCreationDate, image.InstanceCreationTime = _date_and_time(created)
    image.ContentDate, image.ContentTime = _date_and_time(created)
    image.ContentQualification = derivation.content_qualification
    engines = ", ".join(stage.reference for stage in derivation.stages)
    caution = "" if derivation.content_qualification == "PRODUCT" else " Not for diagnostic use."
    said = f"Derived by software ({engines}), not acquired.{caution} {derivation.comment}"
    image.ImageComments = our_text(said.rstrip(), _COMMENT_CHARACTERS)


def _put_series(image: Dataset, said: Dataset, derivation: Derivation, created: datetime) -> None:
    image.SeriesInstanceUID = derivation.series_instance_uid
    image.SeriesDate, image.SeriesTime = _date_and_time(created)
    image.SeriesNumber = series_number(ascii_text(said, "SeriesNumber"), derivation.series.number_offset)
    described = value_bytes(said, "SeriesDescription")
    prefix = our_text(derivation.series.description_prefix, _LO_CHARACTERS)
    suffix = our_text(derivation.series.description_suffix, _LO_CHARACTERS).encode("ascii")
    text = followed_by(prefix, described, character_encodings(said), _LO_CHARACTERS - len(suffix))
    put_encoded(image, "SeriesDescription", text + suffix)


def _date_and_time(moment: datetime) -> tuple[str, str]:
    return moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")


def _image_type(said: Dataset, iod: str) -> list[str]:
    """DERIVED, not of the examination itself but made after it; the IOD's own third value stays (C.7.6.1.1.2)."""
    third = [*ascii_text(said, "ImageType").split("\\"), "", "", ""][2].strip()
    if re.fullmatch(r"[A-Z0-9 _]{1,16}", third) is None:
        third = {"ct-image": "AXIAL", "mr-image": "OTHER"}.get(iod, "")
    return ["DERIVED", "SECONDARY", third] if third else ["DERIVED", "SECONDARY"]


def _remarks(source: Dataset, iod: str, unreadable: int) -> list[str]:
    remarks = []
    if unreadable:
        remarks.append(f"Of the source, {unreadable} unreadable attributes are not copied.")
    if iod == "mr-image" and any(tag.is_private for tag in source.keys()):  # noqa: SIM118  iterating would decode all
        remarks.append("Private attributes, such as a vendor's intensity scaling, are not copied.")
    return remarks


def _put_grid(image: Dataset, said: Dataset, grid: PixelGrid, presentation: bool) -> None:
    bits_allocated = grid.dtype.itemsize * 8
    signed = grid.dtype.kind == "i"
    bits_stored = int.from_bytes(value_bytes(said, "BitsStored")[:2], "little")
    if presentation:
        bits_stored = PRESENTATION_BITS
    elif not 0 < bits_stored <= bits_allocated:
        bits_stored = bits_allocated
    image.SamplesPerPixel = 1
    image.Rows, image.Columns = grid.shape
    image.BitsAllocated, image.BitsStored, image.HighBit = bits_allocated, bits_stored, bits_stored - 1
    image.PixelRepresentation = int(signed)
    _put_padding(image, said, signed, presentation)


def _put_padding(image: Dataset, said: Dataset, signed: bool, presentation: bool) -> None:
    """Padding keeps its bits, under the VR that fits the pixels (C.7.5.1.1.2); in a presentation image no value of
    the source's range fits."""
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        bits = value_bytes(said, keyword)
        if keyword in image:
            del image[keyword]
        if len(bits) == 2 and not (presentation and keyword == "PixelPaddingRangeLimit"):
            value = int.from_bytes(bits, "little", signed=signed)
            image.add_new(keyword, "SS" if signed else "US", presentation_padding(said) if presentation else value)


def _put_presentation_scale(image: Dataset, iod: str) -> None:
    """No unit, and one window over all values: 0 to 4095 exactly (C.11.2.1.2.1)."""
    if iod != "mr-image":  # the MR IOD has no rescale
        image.RescaleIntercept, image.RescaleSlope, image.RescaleType = "0", "1", "US"
    image.WindowCenter, image.WindowWidth = str(1 << PRESENTATION_BITS - 1), str(1 << PRESENTATION_BITS)


def _put_lossy_history(image: Dataset, source: Dataset) -> None:
    """What was once compressed with loss stays marked so for ever (C.7.6.1.1.5)."""
    if ascii_text(image, "LossyImageCompression") == "01":
        return
    meta = getattr(source, "file_meta", None)
    method = _LOSSY.get(str(meta.get("TransferSyntaxUID", ""))) if meta is not None else None
    if method is not None:
        image.LossyImageCompression, image.LossyImageCompressionMethod = "01", method


def writable(dataset: Dataset, sop_instance_uid: str) -> Dataset:
    """The data set with what a file in Explicit VR Little Endian says of itself (PS3.10 7.1)."""
    dataset.file_meta = file_meta_of(ascii_text(dataset, "SOPClassUID"), sop_instance_uid)
    keep_bytes_when_written(dataset)
    return dataset


def file_meta_of(sop_class_uid: str, sop_instance_uid: str) -> FileMetaDataset:
    """Group 2 of a file in Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta
