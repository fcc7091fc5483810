"""What a data set claims of its pixels, held against limits and against what it brings, before a decoder sees it.

A few bytes can claim 30000 x 30000 pixels; a decoder believes them, allocates, and only then fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dicomnode.errors import InputError, UnsupportedError

MAX_PIXELS: Final = 1 << 26
"""Largest frame that is decoded: 8192 x 8192."""

RLE_RATIO: Final = 64
"""PackBits writes at most 128 bytes for 2 (PS3.5 G.3)."""

JPEG_FAMILY: Final = "1.2.840.10008.1.2.4."
RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"

_FRAME_HEADERS: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
"""Second byte of the JPEG SOF markers (ITU-T T.81 B.1.1.3) and of JPEG-LS's (T.87)."""
_JPEG2000_START: Final = b"\xff\x4f\xff\x51"
"""SOC and SIZ; some writers wrap them in a JP2 file."""
_WITHOUT_LENGTH: Final = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})


@dataclass(frozen=True, slots=True)
class FrameShape:
    """One frame as its data set describes it (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    samples: int = 1

    @property
    def pixels(self) -> int:
        return self.rows * self.columns

    @property
    def size_bytes(self) -> int:
        """Of the frame uncompressed."""
        return self.pixels * self.samples * self.bits_allocated // 8


def check_shape(shape: FrameShape) -> None:
    """Raise InputError for a shape that cannot be, UnsupportedError for one that we do not decode."""
    if not shape.rows or not shape.columns:
        raise InputError("the image has no rows or no columns", "it is forwarded as it is")
    if shape.rows * shape.columns > MAX_PIXELS:
        raise UnsupportedError(f"an image of {shape.rows} x {shape.columns} pixels", f"up to {MAX_PIXELS} are decoded")
    if shape.bits_allocated not in (8, 16):
        raise UnsupportedError(f"{shape.bits_allocated} bits allocated for a pixel", "8 and 16 are decoded")
    if not 1 <= shape.bits_stored <= shape.high_bit + 1 <= shape.bits_allocated:
        raise InputError("Bits Allocated, Bits Stored and High Bit contradict each other", "the object is malformed")


def check_encoded(shape: FrameShape, transfer_syntax_uid: str, encoded: bytes) -> None:
    """Raise InputError where `encoded`, the pixel data of one frame, cannot hold the frame, or claims a larger one."""
    if transfer_syntax_uid == RLE_LOSSLESS:
        needed = shape.size_bytes // RLE_RATIO
    elif transfer_syntax_uid.startswith(JPEG_FAMILY):
        needed = 1
        _check_codestream(shape, encoded)
    else:
        needed = shape.size_bytes
    if len(encoded) < needed:
        raise InputError(
            f"the pixel data has {len(encoded)} bytes, at least {needed} are needed",
            "it was cut short: ask for it again",
        )


def codestream_size(encoded: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 codestream claims, or None where it claims none."""
    start = encoded[:4096].find(_JPEG2000_START)
    if start >= 0:
        return _jpeg2000_size(encoded[start:])
    return _jpeg_size(encoded)


def _check_codestream(shape: FrameShape, encoded: bytes) -> None:
    claimed = codestream_size(encoded)
    if claimed is not None and claimed != (shape.rows, shape.columns):
        raise InputError(
            f"the compressed image is {claimed[0]} x {claimed[1]}, its data set says {shape.rows} x {shape.columns}",
            "the object is malformed",
        )
    if claimed is not None and not shape.signed and _is_signed_jpeg2000(encoded):
        raise InputError("the compressed image is signed, its data set says unsigned", "its values cannot be trusted")


def _is_signed_jpeg2000(encoded: bytes) -> bool:
    """Highest bit of Ssiz (ISO 15444-1 A.5.1). A JPEG 2000 image unsigned within a signed data set is harmless."""
    start = encoded[:4096].find(_JPEG2000_START)
    return start >= 0 and encoded[start + 42 : start + 43] >= b"\x80"


def _jpeg2000_size(encoded: bytes) -> tuple[int, int] | None:
    """Xsiz - XOsiz and Ysiz - YOsiz (ISO 15444-1 A.5.1)."""
    if len(encoded) < 24:
        return None
    xsiz, ysiz, xosiz, yosiz = (int.from_bytes(encoded[at : at + 4], "big") for at in (8, 12, 16, 20))
    return ysiz - yosiz, xsiz - xosiz


def _jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    at = encoded[:4096].find(b"\xff\xd8") + 2
    while 2 <= at < len(encoded) - 9 and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker in _FRAME_HEADERS:
            return int.from_bytes(encoded[at + 5 : at + 7], "big"), int.from_bytes(encoded[at + 7 : at + 9], "big")
        at += (
            1
            if marker == 0xFF
            else 2
            if marker in _WITHOUT_LENGTH
            else 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
        )
    return None
