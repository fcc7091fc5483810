"""What the soak's senders send: images of many kinds, and things that are none."""

from __future__ import annotations

import random
import struct
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGLSLossless,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
)

from bench.studies import CT, MR, Kind, written
from bench.wire import Sent, read

SMALL: Final = Kind("CT 64 x 64", CT.sop_class_uid, 64)
_SMALL_INSTANCES: Final = 48
_LARGE_INSTANCES: Final = 12
_FRAMES: Final = 8


Study = list[Sent]
"""One series, whose UIDs hold `bench.studies.MARKER`."""


def small() -> list[Study]:
    """Images of 64 x 64."""
    return [_study(SMALL, _SMALL_INSTANCES)]


def large() -> list[Study]:
    """Images as scanners send them."""
    return [_study(CT, _LARGE_INSTANCES), _study(MR, _LARGE_INSTANCES)]


def compressed() -> list[Study]:
    """Images in three lossless transfer syntaxes, and multi-frame ones in all of them and in none."""
    syntaxes = (RLELossless, JPEG2000Lossless, JPEGLSLossless)
    single = _study(SMALL, 3 * len(syntaxes), lambda number, dataset: dataset.compress(syntaxes[number % 3]))
    several = _study(SMALL, 1 + len(syntaxes), partial(_multi_frame, syntaxes))
    return [single, several]


def _study(
    kind: Kind, instances: int, change: Callable[[int, Dataset], None] = lambda _number, _dataset: None
) -> Study:
    with tempfile.TemporaryDirectory() as made:
        paths = written(Path(made) / "study", kind, instances)
        return [_changed(path, partial(change, number)) for number, path in enumerate(paths)]


def _changed(path: Path, change: Callable[[Dataset], None]) -> Sent:
    dataset = dcmread(path)
    uid = dataset.SOPInstanceUID
    change(dataset)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid  # compressing may give another
    dataset.save_as(path, enforce_file_format=True)
    return read(path)


def _multi_frame(syntaxes: Sequence[UID], number: int, dataset: Dataset) -> None:
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = (
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    )
    dataset.NumberOfFrames = _FRAMES
    dataset.PixelData = dataset.PixelData * _FRAMES
    if number < len(syntaxes):
        dataset.compress(syntaxes[number])


def hostile(good: Sent, draw: random.Random) -> Sent:
    """An object that means harm, made of a good one."""
    return draw.choice(_HOSTILE)(good, draw)


def _with(good: Sent, data_set: bytes, sop_instance_uid: str | None = None) -> Sent:
    return Sent(good.sop_class_uid, sop_instance_uid or good.sop_instance_uid, good.transfer_syntax_uid, data_set)


def _noise(good: Sent, draw: random.Random) -> Sent:
    return _with(good, draw.randbytes(draw.randrange(1, 65536)))


def _empty(good: Sent, _draw: random.Random) -> Sent:
    return _with(good, b"")


def _cut(good: Sent, draw: random.Random) -> Sent:
    return _with(good, good.data_set[: draw.randrange(len(good.data_set))])


def _flipped(good: Sent, draw: random.Random) -> Sent:
    changed = bytearray(good.data_set)
    for _ in range(16):
        changed[draw.randrange(min(len(changed), 4096))] ^= 1 << draw.randrange(8)
    return _with(good, bytes(changed))


def _endless_element(good: Sent, _draw: random.Random) -> Sent:
    return _with(good, struct.pack("<HH2s2xL", 0x0008, 0x0008, b"UT", 0xFFFFFFF0) + good.data_set)


def _deep(good: Sent, draw: random.Random) -> Sent:
    sequence = struct.pack("<HH2s2xL", 0x0008, 0x1140, b"SQ", 0xFFFFFFFF)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return _with(good, (sequence + item) * draw.randrange(1, 5000))


def _path_as_uid(good: Sent, _draw: random.Random) -> Sent:
    return _with(good, good.data_set, "../../../../../../tmp/soak")


def _other_uid(good: Sent, draw: random.Random) -> Sent:
    return _with(good, good.data_set, f"2.25.{draw.getrandbits(100)}")


_HOSTILE: Final = (_noise, _empty, _cut, _flipped, _endless_element, _deep, _path_as_uid, _other_uid)
