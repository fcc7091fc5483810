"""From stored values to physical ones and back, slice by slice, and from slices to a Volume.

Every slice is converted by its own Modality LUT (PS3.3 C.11.1) and written back in its own representation. What the
scanner padded (C.7.5.1.1.2), whether its header says so or not, is masked, never computed on, and written back as it
was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.core.headers import finite, number, value
from dicomnode.core.types import Header, Slice
from dicomnode.errors import InputError, UnsupportedError
from engines.volume import ARBITRARY, HU, Volume

Stored = NDArray[np.int32]
"""Stored values of one slice, (rows, columns): sign and bits as PixelRepresentation and BitsStored say."""

PIXEL_KEYWORDS: Final = (
    "Modality", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "WindowCenter", "WindowWidth",
)  # fmt: skip
"""What `slice_pixels` reads."""

_GRID_KEYWORDS: Final = (
    "PixelSpacing", "ImagerPixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient",
)  # fmt: skip

PADDING_KEYWORDS: Final = (
    "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip
"""What `declared_padding` reads."""

DIGEST_KEYWORDS: Final = (*PIXEL_KEYWORDS, *_GRID_KEYWORDS)
"""What `source_digest` reads."""


_PADDING_BELOW_HU: Final = -1600.0
_PADDING_GAP_HU: Final = (-1800.0, -1400.0)
_MOST_IN_GAP: Final = 0.001

_SMALLEST: Final = 1e-30
_LARGEST: Final = 1e30
"""Slopes and values beyond these are no measurement, and come near to what float32 can write."""


@dataclass(frozen=True, slots=True)
class SlicePixels:
    """What the stored values of one slice mean.

    slope, intercept   physical value = slope * stored + intercept
    unit               "HU", or "arbitrary"
    inverted           MONOCHROME1 without HU: the lowest stored value is shown white (C.7.6.3.1.2); values are
                       mirrored within the stored range, so that larger is always brighter
    padding            lowest and highest stored value that stand for "not measured", as the header declares it
    window             (centre, width) in the unit, for values as `to_physical` gives them
    """

    slope: float
    intercept: float
    unit: str
    inverted: bool
    bits_stored: int
    signed: bool
    padding: tuple[int, int] | None
    window: tuple[float, float] | None

    @property
    def stored_range(self) -> tuple[int, int]:
        """Lowest and highest value that the stored bits can hold."""
        if self.signed:
            return -(1 << self.bits_stored - 1), (1 << self.bits_stored - 1) - 1
        return 0, (1 << self.bits_stored) - 1


def slice_pixels(header: Header) -> SlicePixels:
    """What a slice's stored values mean, from its header (PIXEL_KEYWORDS).

    Raises InputError where it cannot be known (no bits, slope zero), UnsupportedError where float32 could not hold
    the values apart.
    """
    bits_stored = _integer(header, "BitsStored")
    if not 1 <= bits_stored <= 16:
        raise UnsupportedError(f"stored values of {bits_stored} bits", "up to 16 bits are enhanced; all are forwarded")
    slope, intercept = _rescale(header)
    unit = _unit(header)
    pixels = SlicePixels(
        slope=slope,
        intercept=intercept,
        unit=unit,
        inverted=unit != HU and value(header, "PhotometricInterpretation") == "MONOCHROME1",
        bits_stored=bits_stored,
        signed=_integer(header, "PixelRepresentation") == 1,
        padding=_padding(header),
        window=None,
    )
    _require_distinct(pixels)
    return replace(pixels, window=_window(header, pixels))


def to_physical(stored: Stored, pixels: SlicePixels) -> NDArray[np.float32]:
    """Physical values float32 (rows, columns), padding included; `to_stored` gives back the same stored ones."""
    mirrored = sum(pixels.stored_range) - stored if pixels.inverted else stored
    return (mirrored * pixels.slope + pixels.intercept).astype(np.float32)


def valid_mask(stored: Stored, pixels: SlicePixels) -> NDArray[np.bool_] | None:
    """True where something was measured; None where nothing is padded."""
    return _measured(stored, padding_ranges(stored, pixels))


def declared_padding(header: Header) -> tuple[float, float] | None:
    """Lowest and highest physical value that a header declares as padding (PADDING_KEYWORDS); None: none."""
    padding = _padding(header)
    if padding is None:
        return None
    slope, intercept = _rescale(header)
    low, high = sorted(slope * bound + intercept for bound in padding)
    return low, high


def padding_ranges(stored: Stored, pixels: SlicePixels) -> tuple[tuple[int, int], ...]:
    """Lowest and highest stored value of each kind of padding that a slice may hold: declared, and not declared."""
    declared, found = pixels.padding, undeclared_padding(stored, pixels)
    known = [padding for padding in (declared, found) if padding is not None]
    if declared is None or found is None or declared[1] + 1 < found[0] or found[1] + 1 < declared[0]:
        return tuple(known)
    return ((min(declared[0], found[0]), max(declared[1], found[1])),)


def undeclared_padding(stored: Stored, pixels: SlicePixels) -> tuple[int, int] | None:
    """Lowest and highest stored value of padding that the header does not declare; None where there is none.

    Outside of the circle that a CT reconstructs, images are padded (C.7.5.1.1.2). The header may name another value:
    LIDC-IDRI-0003, of a GE LightSpeed16, declares -2000 and holds -1024 there, which its rescale makes -2048 HU; and
    lossy compression moves some of it. So in HU everything below -1600 is padding where a corner of the slice is so
    dark, and next to nothing (0.1 %: streaks beside metal) lies from -1800 to -1400. A wrong rescale moves air, lung
    and the patient's rim together, and leaves no such gap.
    """
    if pixels.unit != HU or not stored.size:
        return None
    if to_physical(stored[[0, 0, -1, -1], [0, -1, 0, -1]], pixels).min() >= _PADDING_BELOW_HU:
        return None
    values, declared = to_physical(stored, pixels), _within(stored, pixels.padding)
    beside = (values >= _PADDING_GAP_HU[0]) & (values < _PADDING_GAP_HU[1]) & ~declared
    found = stored[(values < _PADDING_BELOW_HU) & ~declared]
    if not found.size or np.count_nonzero(beside) > _MOST_IN_GAP * stored.size:
        return None
    return int(found.min()), int(found.max())


def to_stored(values: NDArray[np.float32], source: Stored, pixels: SlicePixels) -> Stored:
    """Stored values of physical `values`, rounded and clamped to the slice's bits.

    `source` are the stored values that the slice came with: where they are padding they stay, and no measured voxel
    becomes padding. Raises InputError where a value is not finite.
    """
    if not np.isfinite(values).all():
        raise InputError("values that are not finite cannot be stored", "the engine's output is broken: report it")
    low, high = pixels.stored_range
    exact = values.astype(np.float64)  # worked on in place
    exact -= pixels.intercept
    exact /= pixels.slope
    exact.clip(low, high, out=exact)  # before it is rounded to integers: beyond int32 a cast is undefined
    stored: Stored = np.rint(exact, out=exact).astype(np.int32)
    if pixels.inverted:
        stored = low + high - stored
    paddings = padding_ranges(source, pixels)
    for padding in paddings:
        stored = _beside_padding(stored, pixels, padding)
    measured = _measured(source, paddings)
    if measured is not None:
        np.copyto(stored, source, where=~measured)
    return stored


def assemble(slices: Sequence[Slice], stored: Iterable[Stored]) -> Volume:
    """The Volume of one stack: `slices` sorted by position, `stored` the stored values of each in the same order.

    `stored` is consumed one at a time. Raises InputError where a slice does not fit the others.
    """
    first = slices[0]
    voxels = np.empty((len(slices), first.rows, first.columns), dtype=np.float32)
    valid: NDArray[np.bool_] | None = None
    unit = slice_pixels(first.header).unit
    for index, (placed, values) in enumerate(zip(slices, stored, strict=True)):
        voxels[index], measured = measured_values(placed, values, unit, voxels.shape[1:])
        if measured is not None:
            valid = np.ones(voxels.shape, dtype=np.bool_) if valid is None else valid
            valid[index] = measured
    return Volume(voxels, affine_of(slices), unit, valid, slice_pixels(first.header).window)


def measured_values(
    placed: Slice, stored: Stored, unit: str, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Physical values of one slice, and where something was measured (None: everywhere).

    unit, shape  of its stack: raises InputError where the slice has others
    """
    pixels = slice_pixels(placed.header)
    if stored.shape != shape or pixels.unit != unit:
        raise InputError(f"slice {placed.sop_instance_uid} does not fit its stack", "matrix or unit differs")
    return to_physical(stored, pixels), valid_mask(stored, pixels)


def affine_of(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """(column, row, slice, 1) -> patient LPS in mm (PS3.3 C.7.6.2.1.1). The step between slices is a vector, so a
    tilted gantry's shear is kept. A projection image, which has no position, lies at the origin."""
    first = slices[0]
    row_mm, column_mm = first.pixel_spacing_mm or (1.0, 1.0)
    orientation = np.array(first.orientation or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    along_row, along_column = orientation[:3], orientation[3:]
    affine = np.eye(4)
    affine[:3, 0] = along_row * column_mm
    affine[:3, 1] = along_column * row_mm
    affine[:3, 3] = first.position_mm or (0.0, 0.0, 0.0)
    positions = np.array([placed.position_mm for placed in slices if placed.position_mm is not None])
    if len(positions) > 1:
        affine[:3, 2] = np.median(np.diff(positions, axis=0), axis=0)
    else:
        affine[:3, 2] = np.cross(along_row, along_column) * (number(first.header, "SliceThickness") or 1.0)
    return affine


def source_digest(stored: Stored, header: Header) -> str:
    """SHA-256 (hex) of what an engine can read of one source slice: its stored values and what they mean and where.

    The same for every transfer syntax and byte order, and whatever patient and study attributes say; numbers count
    by value, not by how they are written.
    """
    grid = {keyword: [_canonical(text) for text in header.get(keyword, ())] for keyword in _GRID_KEYWORDS}
    canonical = json.dumps(asdict(slice_pixels(header)) | grid | {"shape": stored.shape}, sort_keys=True)
    digest = hashlib.sha256(canonical.encode())
    digest.update(np.ascontiguousarray(stored, dtype="<i4").data)
    return digest.hexdigest()


def _canonical(text: str) -> float | None:
    parsed = finite(text)
    return None if parsed is None else parsed + 0.0  # -0 is 0


def _integer(header: Header, keyword: str) -> int:
    parsed = number(header, keyword)
    if parsed is None or parsed != int(parsed):
        raise InputError(
            f"{keyword} is missing or no integer", "the object breaks PS3.3 C.7.6.3: report it to its vendor"
        )
    return int(parsed)


def _rescale(header: Header) -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where neither is there (type 3 or a Modality LUT, for other classes than CT)."""
    if not {"RescaleSlope", "RescaleIntercept"} & header.keys():
        return 1.0, 0.0
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    if not slope or intercept is None:
        raise InputError("RescaleSlope or RescaleIntercept is zero, missing or no number", "its values mean nothing")
    return slope, intercept + 0.0


def _unit(header: Header) -> str:
    """HU only for CT that does not say otherwise (PS3.3 C.8.2.1.1.1: Rescale Type is HU where it is absent)."""
    is_hu = value(header, "RescaleType") in ("", "HU") and "RescaleSlope" in header
    return HU if value(header, "Modality") == "CT" and is_hu else ARBITRARY


def _padding(header: Header) -> tuple[int, int] | None:
    """The padding range (C.7.5.1.1.2). Its sign is often written against PixelRepresentation: the 16 bits decide."""
    first, last = number(header, "PixelPaddingValue"), number(header, "PixelPaddingRangeLimit")
    if first is None:
        return None
    signed = value(header, "PixelRepresentation") == "1"
    bounds = [_same_bits(bound, signed) for bound in (first, first if last is None else last)]
    return min(bounds), max(bounds)


def _same_bits(bound: float, signed: bool) -> int:
    bits = int(bound) & 0xFFFF
    return bits - 0x10000 if signed and bits >= 0x8000 else bits


def _measured(stored: Stored, paddings: tuple[tuple[int, int], ...]) -> NDArray[np.bool_] | None:
    padded = np.zeros(stored.shape, dtype=np.bool_)
    for padding in paddings:
        padded |= _within(stored, padding)
    return ~padded if padded.any() else None


def _within(stored: Stored, padding: tuple[int, int] | None) -> NDArray[np.bool_]:
    low, high = padding or (1, 0)  # no value lies in an empty range
    return (stored >= low) & (stored <= high)


def _require_distinct(pixels: SlicePixels) -> None:
    """Two neighbouring stored values must not become one float32, or nothing could be written back."""
    largest = max(abs(pixels.slope * bound + pixels.intercept) for bound in pixels.stored_range)
    if abs(pixels.slope) < _SMALLEST or largest > _LARGEST:
        raise InputError("the rescale slope or intercept is out of any range", "its values mean nothing")
    if largest * 2.0**-24 > abs(pixels.slope) / 4:  # half a step of float32 against a quarter of one stored step
        raise UnsupportedError("the rescale slope is too small for the intercept", "its values need more than 32 bits")


def _window(header: Header, pixels: SlicePixels) -> tuple[float, float] | None:
    centre, width = number(header, "WindowCenter"), number(header, "WindowWidth")
    if centre is None or width is None or width <= 0:
        return None
    if pixels.inverted:
        centre = pixels.slope * sum(pixels.stored_range) + 2 * pixels.intercept - centre
    return centre + 0.0, width


def _beside_padding(stored: Stored, pixels: SlicePixels, padding: tuple[int, int]) -> Stored:
    """Move values that landed in the padding range to the nearest value outside of it that the bits can hold."""
    low, high = padding
    outside = [bound for bound in (low - 1, high + 1) if pixels.stored_range[0] <= bound <= pixels.stored_range[1]]
    if not outside:
        return stored
    nearer_low = stored - low < high - stored
    moved = np.where(nearer_low, outside[0], outside[-1])
    return np.where(_within(stored, padding), moved, stored).astype(np.int32)
