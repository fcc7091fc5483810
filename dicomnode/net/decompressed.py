"""A compressed object as an uncompressed data set, for a peer that takes nothing else.

Its pixels come decoded from elsewhere (`dicomnode.core.ports.Transcoder`). Here the elements around them are written
anew as `dicomnode.net.transcode` does it: values keep their bytes, but for those that describe the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit

from dicomnode.core.types import DecodedPixels
from dicomnode.errors import UnsupportedError
from dicomnode.net.contexts import Kind
from dicomnode.net.part10 import OpenFile, read_file_meta, reading
from dicomnode.net.transcode import MAXIMUM_BYTES, PIXEL_DATA, SYNTAXES, Context, Rewriter, Syntax, malformed, parsing
from dicomnode.net.upload import Upload

_ENCAPSULATED: Final = Syntax(explicit=True)
"""Every transfer syntax with encapsulated pixels is explicit VR little endian (PS3.5 A.4)."""

_SAMPLES_PER_PIXEL, _PHOTOMETRIC_INTERPRETATION, _PLANAR_CONFIGURATION = 0x00280002, 0x00280004, 0x00280006
_BITS_ALLOCATED: Final = 0x00280100
_LOSSY_IMAGE_COMPRESSION: Final = 0x00282110
_ALWAYS_LOSSY: Final = frozenset({str(JPEGBaseline8Bit), str(JPEGExtended12Bit)})
"""Once decompressed nothing but Lossy Image Compression says so (PS3.3 C.7.6.1.1.5), which some devices leave out."""
_OF_FRAGMENTS: Final = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003})
"""Extended Offset Table, its lengths, and Encapsulated Pixel Data Value Total Length."""


def decompressed(path: Path, kind: Kind, sop_instance_uid: str, pixels: DecodedPixels) -> Upload:
    """The data set of a compressed DICOM file with `pixels` in place of its own, in the uncompressed syntax of `kind`.

    The file of `pixels` may be removed afterwards. Raises InputError, StoreError.
    """
    with reading(path) as file:
        meta = read_file_meta(file)
        file.seek(meta.offset_bytes)
        encoded = file.read(MAXIMUM_BYTES)
    if len(encoded) == MAXIMUM_BYTES:
        raise UnsupportedError("only objects below 2 GiB can be re-encoded")
    native = OpenFile(pixels.path)
    try:
        with parsing():
            described = _description(pixels, meta.transfer_syntax_uid)
            around = _around(encoded, SYNTAXES[kind.transfer_syntax_uid], described, native.size_bytes)
    except BaseException:
        native.close()
        raise
    return Upload(kind, sop_instance_uid, native, 0, around)


def _around(
    encoded: bytes, target: Syntax, description: Mapping[int, tuple[str, bytes]], pixel_bytes: int
) -> tuple[bytes, bytes]:
    """What comes before the pixels, with the header of Pixel Data, and what comes after them."""
    rewriter = Rewriter(memoryview(encoded), target, drops_fragments=True)
    before, after = bytearray(), bytearray()
    described = sorted(description.items(), reverse=True)
    bits_allocated = int.from_bytes(description[_BITS_ALLOCATED][1], "little")
    for tag, element in _elements(rewriter, len(encoded)):
        while described and described[-1][0] <= tag:
            before += _described(rewriter, *described.pop())
        if tag == PIXEL_DATA:
            vr = "OB" if bits_allocated <= 8 else "OW"
            before += rewriter.element_header(PIXEL_DATA, vr, pixel_bytes, pixel_bytes)
        elif tag not in description:
            part = before if tag < PIXEL_DATA else after
            part += element
    if described or not rewriter.fragments_dropped:
        raise malformed("there is no encapsulated pixel data")
    return bytes(before), bytes(after)


def _elements(rewriter: Rewriter, end: int) -> Iterator[tuple[int, bytes]]:
    """The elements of the data set anew. An icon image that is compressed itself is left out."""
    context, position = Context(), 0
    while position < end:
        header = rewriter.header(position, _ENCAPSULATED, context)
        dropped = rewriter.fragments_dropped
        parts, position = rewriter.element(header, end, _ENCAPSULATED, context)
        if header.tag in _OF_FRAGMENTS or (dropped != rewriter.fragments_dropped and header.tag != PIXEL_DATA):
            continue
        yield header.tag, b"".join(parts)


def _description(pixels: DecodedPixels, stored_syntax: str) -> Mapping[int, tuple[str, bytes]]:
    """What describes the decoded pixels (PS3.3 C.7.6.3), as VR and value."""
    photometric = pixels.photometric_interpretation.encode("ascii")
    described = {
        _SAMPLES_PER_PIXEL: ("US", pixels.samples_per_pixel.to_bytes(2, "little")),
        _PHOTOMETRIC_INTERPRETATION: ("CS", photometric + b" " * (len(photometric) % 2)),
        _BITS_ALLOCATED: ("US", pixels.bits_allocated.to_bytes(2, "little")),
    }
    if pixels.samples_per_pixel > 1:
        described[_PLANAR_CONFIGURATION] = ("US", b"\0\0")
    if stored_syntax in _ALWAYS_LOSSY:
        described[_LOSSY_IMAGE_COMPRESSION] = ("CS", b"01")
    return described


def _described(rewriter: Rewriter, tag: int, described: tuple[str, bytes]) -> bytes:
    vr, value = described
    return rewriter.element_header(tag, vr, len(value), len(value)) + value
