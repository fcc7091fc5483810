"""The images of one derived series as encoded files: what a slice has in common with the one before is made once.

Of a hundred attributes of a slice ten differ from its neighbour's. `image.describe_image` decides what is said; this
remembers what it said of the slice before, and where only copied attributes differ, copies these.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, cast

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicomnode.core.derive.derivation import Derivation
from dicomnode.core.derive.elements import (
    Element,
    ascii_text,
    encoded_elements,
    explicit_copy,
    held,
    put_encoded,
    tag_of,
)
from dicomnode.core.derive.image import PixelGrid, describe_image, file_meta_of, require_identity, shape_of
from dicomnode.core.derive.iod import iod_of, readable_tags
from dicomnode.core.derive.provenance import OF_THE_SOURCE, put_sources

_ENTERING: Final = frozenset(
    tag_of(keyword)
    for keyword in (
        "SOPClassUID", "PhotometricInterpretation", "SpecificCharacterSet", "PixelRepresentation", "SeriesInstanceUID",
        "StudyInstanceUID", "TimezoneOffsetFromUTC", "SeriesNumber", "SeriesDescription", "ImageType",
        "DerivationDescription", "CodingSchemeIdentificationSequence", "ReferencedSeriesSequence",
        "RelatedSeriesSequence", "ContributingEquipmentSequence", "BitsStored", "PixelPaddingValue",
        "PixelPaddingRangeLimit", "LossyImageCompression", "Rows", "Columns", *OF_THE_SOURCE,
    )
)  # fmt: skip
"""What `describe_image` reads, and does not only copy. Where one of them differs, all is said anew."""

_SAID_BY_US: Final = frozenset(
    tag_of(keyword)
    for keyword in (
        "SOPInstanceUID", "InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "ImageComments",
    )
)  # fmt: skip
"""What the image has whatever the source's is."""

_PREAMBLE: Final = bytes(128) + b"DICM"


@dataclass
class _Former:
    """What was said of the slice before.

    common   what must be the same for the next one
    source   its source's elements as they were read
    said     as in `image.Described`; `copied`: which of them stand in the image as they are
    encoded  the image's elements
    unreadable  how many of the source's could not be read, which the image counts
    same_grid   see `put_sources`
    """

    common: tuple[object, ...]
    source: dict[BaseTag, Element]
    said: Dataset
    copied: frozenset[BaseTag]
    encoded: dict[BaseTag, bytes]
    unreadable: int
    same_grid: bool

    def become(self, source: Dataset, now: dict[BaseTag, Element], derivation: Derivation) -> bool:
        """Say the same of the next slice, whose elements are `now`; False where that cannot be."""
        changed = frozenset(tag for tag, element in now.items() if not _same(element, self.source[tag]))
        if changed & _ENTERING or changed & self.encoded.keys() - self.copied - _SAID_BY_US:
            return False
        copies, unreadable = explicit_copy(source, changed)
        if unreadable:
            return False
        self.said.update({tag: copies.get_item(tag) for tag in changed})
        require_identity(self.said, derivation)
        own = Dataset()
        put_encoded(own, "SOPInstanceUID", derivation.sop_instance_uid.encode("ascii"))
        put_sources(own, self.said, derivation, same_grid=self.same_grid)
        encoded = encoded_elements(copies)
        self.encoded |= {tag: encoded[tag] for tag in changed & self.copied} | encoded_elements(own)
        self.source = now
        return True


class DerivedSeries:
    """Encodes the images of a series, one after the other."""

    def __init__(self) -> None:
        self._former: _Former | None = None

    def encode_start(self, source: Dataset, grid: PixelGrid, derivation: Derivation) -> bytes:
        """A Part 10 file in Explicit VR Little Endian up to its first pixel. The pixels in little endian are to follow,
        and a zero where their bytes are odd: then it is, to the byte, what `image.derive_image` makes of the same.
        Raises the same."""
        now = _elements(source)
        common = _common(source, frozenset(now), grid, derivation)
        former, self._former = self._former, None
        if former is None or former.common != common or not former.become(source, now, derivation):
            image, said, unreadable = describe_image(source, grid, derivation)
            copied = frozenset(tag for tag in said.keys() & image.keys() if held(image, tag) is held(said, tag))
            same_grid = shape_of(said) == grid.shape
            former = _Former(common, now, said, copied, encoded_elements(image), unreadable, same_grid)
        if not former.unreadable:
            self._former = former
        return b"".join((
            _PREAMBLE,
            _meta(ascii_text(source, "SOPClassUID"), derivation.sop_instance_uid),
            *(former.encoded[tag] for tag in sorted(former.encoded)),
            _pixel_data_header(grid),
        ))  # fmt: skip


def _common(source: Dataset, tags: frozenset[BaseTag], grid: PixelGrid, derivation: Derivation) -> tuple[object, ...]:
    meta = getattr(source, "file_meta", None)
    return (
        meta.get("TransferSyntaxUID") if meta is not None else None,
        tags,
        any(tag.is_private for tag in source.keys()),  # noqa: SIM118  iterating would decode all
        grid,
        replace(derivation, sop_instance_uid="", sources=(), others=()),
    )


def _elements(source: Dataset) -> dict[BaseTag, Element]:
    tags = readable_tags(iod_of(ascii_text(source, "SOPClassUID"))) & source.keys()
    return {tag: cast(Element, held(source, tag)) for tag in tags}


def _same(one: Element, other: Element) -> bool:
    """Whether two elements were encoded alike. One that is decoded is not compared: that could decode what is in it."""
    if not isinstance(one, RawDataElement) or not isinstance(other, RawDataElement):
        return False
    return _encoding(one) == _encoding(other)


def _encoding(element: RawDataElement) -> tuple[object, ...]:
    return element.value, element.VR, element.length, element.is_implicit_VR, element.is_little_endian


def _meta(sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Group 2 (PS3.10 7.1)."""
    own = Dataset()
    put_encoded(own, "MediaStorageSOPInstanceUID", sop_instance_uid.encode("ascii"))
    encoded = _common_meta(sop_class_uid) | encoded_elements(own)
    elements = b"".join(encoded[tag] for tag in sorted(encoded))
    return struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(elements)) + elements


@lru_cache(maxsize=16)
def _common_meta(sop_class_uid: str) -> dict[BaseTag, bytes]:
    meta = file_meta_of(sop_class_uid, "")
    meta.FileMetaInformationVersion = b"\0\1"
    return encoded_elements(meta)


def _pixel_data_header(grid: PixelGrid) -> bytes:
    """(7FE0,0010) as OW, of even length (PS3.5 7.1.2)."""
    size_bytes = math.prod(grid.shape) * grid.dtype.itemsize
    return struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, size_bytes + size_bytes % 2)
