"""From compressed pixel data to native Pixel Data (PS3.5 8.1.1), for a destination that takes nothing else.

Values never change: what a lossless syntax holds comes out as it went in, what a lossy one holds as its decoder gives
it. Only JPEG with subsampled colour leaves as RGB, for its colour model has no native form that all read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit

from dicomnode.core.headers import header_of, number, value
from dicomnode.core.types import Header
from dicomnode.errors import InputError, UnsupportedError
from dicomnode.pixels.decode import integer, jpeg_12_bit, no_other_errors
from dicomnode.pixels.limits import FrameShape, check_encoded, check_shape
from dicomnode.pixels.read import read_dataset

MAX_NATIVE_BYTES: Final = 2 << 30
"""Largest object that is decoded to be sent."""

_KEYWORDS: Final = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "NumberOfFrames", "PhotometricInterpretation",
)  # fmt: skip
_BY_CODEC: Final = frozenset({"YBR_RCT", "YBR_ICT"})
"""Colour transforms of JPEG 2000 itself, which its decoders undo."""


def decode_native(path: str, out: str) -> dict[str, Any]:
    """Write the pixels of a compressed object into the file `out`, padded to an even length.

    Returns photometric_interpretation, samples_per_pixel and bits_allocated of what was written. Raises NotFoundError,
    InputError where the pixels cannot be decoded, UnsupportedError where they are of a kind that we do not.
    """
    dataset = read_dataset(Path(path), with_pixels=True)
    header = header_of(dataset, _KEYWORDS)
    shape, frames = _shape(header), int(number(header, "NumberOfFrames") or 1)
    check_shape(shape)
    if "PixelData" not in dataset or not 1 <= frames * shape.size_bytes <= MAX_NATIVE_BYTES:
        raise UnsupportedError(f"{frames} frames of {shape.size_bytes} bytes are not decoded", "it can go as stored")
    photometric, bits_allocated = value(header, "PhotometricInterpretation"), shape.bits_allocated
    written = 0
    with Path(out).open("wb") as file, no_other_errors():
        for array, found in _frames(dataset, shape, frames):
            _check_frame(array, shape)
            photometric, bits_allocated = found or photometric, array.dtype.itemsize * 8
            file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
            written += 1
    if written != frames:
        raise InputError(f"{written} of {frames} frames are there", "it was cut short: ask for it again")
    with Path(out).open("ab") as file:
        file.write(bytes(file.tell() % 2))
    return {
        "photometric_interpretation": "RGB" if photometric in _BY_CODEC else photometric,
        "samples_per_pixel": shape.samples,
        "bits_allocated": bits_allocated,
    }


def _frames(dataset: Dataset, shape: FrameShape, frames: int) -> Iterator[tuple[NDArray[Any], str]]:
    """Each frame, and its photometric interpretation where the decoder says so."""
    syntax = dataset.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    for encoded in generate_frames(dataset.PixelData, number_of_frames=frames):
        check_encoded(shape, syntax, encoded)
    if syntax == JPEGExtended12Bit and shape.bits_stored > 8:
        if shape.samples > 1:
            raise UnsupportedError("12-bit JPEG in colour is not decoded", "it can go as stored")
        for encoded in generate_frames(dataset.PixelData, number_of_frames=frames):
            yield jpeg_12_bit(encoded, shape), ""
        return
    to_rgb = shape.samples > 1 and syntax in (JPEGBaseline8Bit, JPEGExtended12Bit)
    for array, found in decoder.iter_array(dataset, raw=not to_rgb, correct_unused_bits=False):
        yield array, str(found["photometric_interpretation"])


def _check_frame(array: NDArray[Any], shape: FrameShape) -> None:
    wanted = (shape.rows, shape.columns, shape.samples)[: 2 if shape.samples == 1 else 3]
    if array.shape != wanted or array.dtype.itemsize * 8 > 16:
        raise InputError("the decoded image has another shape than its data set says", "the object is malformed")


def _shape(header: Header) -> FrameShape:
    samples, bits_stored = int(number(header, "SamplesPerPixel") or 1), integer(header, "BitsStored")
    if samples not in (1, 3):
        raise UnsupportedError(f"images of {samples} samples a pixel are not decoded", "it can go as stored")
    return FrameShape(
        rows=integer(header, "Rows"),
        columns=integer(header, "Columns"),
        bits_allocated=integer(header, "BitsAllocated"),
        bits_stored=bits_stored,
        high_bit=integer(header, "HighBit") if "HighBit" in header else bits_stored - 1,
        signed=value(header, "PixelRepresentation") == "1",
        samples=samples,
    )
