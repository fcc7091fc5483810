"""PNG and JPEG files that nobody has checked, decoded within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomnode.pixels.limits import codestream_size
from trainers.errors import SourceError

_LARGEST_FILE_BYTES: Final = 256 << 20
_LARGEST_PX: Final = 1 << 26
_PNG: Final = b"\x89PNG\r\n\x1a\n"


def read_picture(path: Path, *, grey: bool) -> NDArray[Any]:
    """The pixels as they are stored, or with `grey` as one float32 grey level of 255 (ITU-R BT.601).

    Raises SourceError where it is no PNG or JPEG, is damaged, or claims more than 64 megapixels.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise SourceError(f"{path.name} is too large for a picture", f"{_LARGEST_FILE_BYTES >> 20} MiB are read")
        encoded = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path.name} cannot be read ({type(error).__name__})", "look at its permissions") from None
    size = _claimed_size(encoded)
    if size is None or not 0 < size[0] * size[1] <= _LARGEST_PX:
        raise SourceError(f"{path.name} is no PNG or JPEG of up to {_LARGEST_PX >> 20} megapixels", "leave it out")
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise SourceError(f"{path.name} is damaged", "fetch it again")
    return _grey(pixels) if grey else np.asarray(pixels)


def _claimed_size(encoded: bytes) -> tuple[int, int] | None:
    if encoded.startswith(_PNG):
        return int.from_bytes(encoded[20:24], "big"), int.from_bytes(encoded[16:20], "big")
    return codestream_size(encoded) if encoded.startswith(b"\xff\xd8") else None


def _grey(pixels: NDArray[Any]) -> NDArray[np.float32]:
    white = float(np.iinfo(pixels.dtype).max)
    levels = pixels.astype(np.float32) * np.float32(255.0 / white)
    if levels.ndim == 3:
        levels = np.asarray(cv2.cvtColor(levels[:, :, :3], cv2.COLOR_BGR2GRAY), dtype=np.float32)
    return levels
