"""From pixel data in any transfer syntax to stored values. Decoders are native code: run this in a process apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
)

from dicomnode.core.headers import header_of, number, unreadable, value
from dicomnode.core.types import Header
from dicomnode.errors import InputError, UnsupportedError
from dicomnode.pixels.limits import FrameShape, check_encoded, check_shape

_KEYWORDS: Final = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "NumberOfFrames", "PhotometricInterpretation",
)  # fmt: skip


_NATIVE: Final = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian})


def decode(dataset: Dataset) -> NDArray[np.int32]:
    """Stored values (rows, columns) of a single-frame grayscale image.

    Whatever lies outside BitsStored, such as an overlay in the unused bits of old scanners (PS3.5 8.1.1), is masked.
    Raises InputError where the pixels cannot be decoded, UnsupportedError where they are of a kind that we do not.
    """
    if "PixelData" not in dataset:
        raise UnsupportedError("the object has no pixel data", "it is forwarded as it is")
    shape = _frame_shape(header_of(dataset, _KEYWORDS))
    check_shape(shape)
    with no_other_errors():
        return _stored_values(_decoded(dataset, shape), shape)


def _decoded(dataset: Dataset, shape: FrameShape) -> NDArray[Any]:
    syntax = dataset.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    encoded = _first_frame(dataset.PixelData or b"", syntax)
    check_encoded(shape, syntax, encoded)
    if syntax in _NATIVE:
        return _native(encoded, shape)
    if syntax == JPEGExtended12Bit and shape.bits_stored > 8:
        return jpeg_12_bit(encoded, shape)
    # `_stored_values` takes care of the unused bits; pydicom supposes that High Bit is the highest stored one
    array, _ = decoder.as_array(dataset, raw=True, index=0, correct_unused_bits=False)  # type: ignore[arg-type]
    return array


def _native(encoded: bytes, shape: FrameShape) -> NDArray[Any]:
    """Uncompressed values lie there as they are (PS3.5 8.2); asking pydicom for them takes ten times as long."""
    array = np.frombuffer(encoded, f"<{'i' if shape.signed else 'u'}{shape.bits_allocated // 8}", shape.pixels)
    return array.reshape(shape.rows, shape.columns)


def jpeg_12_bit(encoded: bytes, shape: FrameShape) -> NDArray[Any]:
    """Process 4 of JPEG extended (T.81), which pydicom does not ask of GDCM; GDCM can do it."""
    import gdcm  # only this rare case needs it here

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(encoded)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((shape.columns, shape.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(
        gdcm.PixelFormat(1, shape.bits_allocated, shape.bits_stored, shape.high_bit, int(shape.signed))
    )
    frame = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM hands bytes out as text
    return np.frombuffer(frame, dtype="<u2").reshape(shape.rows, shape.columns)


def _frame_shape(header: Header) -> FrameShape:
    if (number(header, "NumberOfFrames") or 1) > 1:
        raise UnsupportedError("multi-frame images are not decoded yet", "they are forwarded as they are")
    if value(header, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2", ""):
        raise UnsupportedError("colour images are not decoded", "they are forwarded as they are")
    if (number(header, "SamplesPerPixel") or 1) != 1:
        raise UnsupportedError("images of several samples a pixel are not decoded", "they are forwarded as they are")
    bits_stored = integer(header, "BitsStored")
    return FrameShape(
        rows=integer(header, "Rows"),
        columns=integer(header, "Columns"),
        bits_allocated=integer(header, "BitsAllocated"),
        bits_stored=bits_stored,
        high_bit=integer(header, "HighBit") if "HighBit" in header else bits_stored - 1,
        signed=value(header, "PixelRepresentation") == "1",
    )


def integer(header: Header, keyword: str) -> int:
    parsed = number(header, keyword)
    if parsed is None:
        raise InputError(f"{keyword} is missing", "the object is malformed: report it to its vendor")
    return int(parsed)


def _first_frame(pixel_data: bytes, syntax: UID) -> bytes:
    if not syntax.is_encapsulated:
        return pixel_data
    return next(generate_frames(pixel_data, number_of_frames=1))


@contextmanager
def no_other_errors() -> Iterator[None]:
    """Whatever a parser or decoder raises on hostile bytes becomes one of our errors, without its text."""
    try:
        yield
    except (MemoryError, InputError):
        raise
    except NotImplementedError:
        raise UnsupportedError("there is no decoder for its transfer syntax", "it is forwarded as it is") from None
    except Exception as error:  # noqa: BLE001  nothing is swallowed
        raise unreadable(error) from None


def _stored_values(array: NDArray[Any], shape: FrameShape) -> NDArray[np.int32]:
    """Bits `high_bit` down to `high_bit - bits_stored + 1`, with their sign."""
    if array.shape != (shape.rows, shape.columns):
        raise InputError("the decoded image has another shape than its data set says", "the object is malformed")
    values = array.astype(np.int32)
    if shape.bits_stored == array.dtype.itemsize * 8 and (array.dtype.kind == "i") == shape.signed:
        return values  # all bits are the value's, and the sign is theirs
    values >>= shape.high_bit + 1 - shape.bits_stored
    values &= (1 << shape.bits_stored) - 1
    if shape.signed:
        values -= (values >> shape.bits_stored - 1) << shape.bits_stored
    return values
