"""What the pixel worker does when asked (see `dicomnode.workers`); `dicomnode enhance` calls the same in its process.

Arguments and results are JSON values; pixels travel as files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from dicomnode.core.headers import header_of, value
from dicomnode.core.stacks import STACK_KEYWORDS, slice_of
from dicomnode.core.types import Header, Slice
from dicomnode.core.volumes import DIGEST_KEYWORDS, affine_of, measured_values, slice_pixels, source_digest
from dicomnode.errors import InputError, NotFoundError
from dicomnode.pixels.decode import decode
from dicomnode.pixels.encode import derive_stack
from dicomnode.pixels.native import decode_native
from dicomnode.pixels.notes import read_rejection, write_rejection
from dicomnode.pixels.phantoms import measure_phantom
from dicomnode.pixels.read import quiet_pydicom, read_dataset, read_header
from dicomnode.pixels.reports import write_reports
from dicomnode.workers import Operation
from engines.volume import HU
from engines.volume_files import VALID, VOXELS, Grid, create_volume, read_grid, write_slices

_SLICE_KEYWORDS: Final = {*STACK_KEYWORDS, *DIGEST_KEYWORDS, "SOPInstanceUID", "SOPClassUID"}


def operations() -> Mapping[str, Operation]:
    """The worker's operations by name; called once, as its process starts."""
    quiet_pydicom()
    return {
        "read_headers": read_headers,
        "decode_stack": decode_stack,
        "open_stack": open_stack,
        "decode_slices": decode_slices,
        "derive_stack": derive_stack,
        "decode_native": decode_native,
        "read_rejection": read_rejection,
        "write_rejection": write_rejection,
        "measure_phantom": measure_phantom,
        "write_reports": write_reports,
    }


def read_headers(paths: Sequence[str], keywords: Collection[str]) -> dict[str, Any]:
    """Values of `keywords` in each stored file.

    Returns {"headers": [{"header": {keyword: [value...]}} or {"reason": why it cannot be read}...]}, as `paths` go.
    """
    return {"headers": [_header_or_reason(path, keywords) for path in paths]}


def decode_stack(paths: Sequence[str], out: str) -> dict[str, Any]:
    """Decode one stack, its files sorted by position, into a Volume in the existing, empty folder `out`.

    Returns {"digests": [`source_digest` of each slice, in the order of `paths`]}. Raises NotFoundError, or InputError
    where a file cannot be decoded or does not fit the others.
    """
    open_stack(paths, out)
    decoded = decode_slices(paths, out, 0)
    if not decoded["padded"]:
        (Path(out) / VALID).unlink(missing_ok=True)
    return {"digests": decoded["digests"]}


def open_stack(paths: Sequence[str], out: str) -> dict[str, Any]:
    """Make the files of the Volume of one stack, sorted by position, in the existing, empty folder `out`: all but its
    values, which `decode_slices` writes.

    Returns {"shape": [slices, rows, columns], "places_mm": [[x, y, z] of each slice, or None]}. Raises
    NotFoundError, InputError.
    """
    slices = [_slice_at(Path(path)) for path in paths]
    first = slice_pixels(slices[0].header)
    grid = Grid((len(slices), slices[0].rows, slices[0].columns), affine_of(slices), first.unit, first.window)
    declared = any("PixelPaddingValue" in one.header for one in slices)
    create_volume(Path(out), grid, padded=declared or grid.unit == HU)  # in HU there may be padding all the same
    return {"shape": list(grid.shape), "places_mm": [one.position_mm and list(one.position_mm) for one in slices]}


def decode_slices(paths: Sequence[str], out: str, begin: int) -> dict[str, Any]:
    """Decode the slices of `paths`, which stand in their stack from `begin` on, into what `open_stack` made in `out`.

    Returns {"digests": [`source_digest` of each], "padded": whether one of them has padding}. Raises NotFoundError, or
    InputError where a file cannot be decoded or does not fit its stack.
    """
    grid, has_valid = read_grid(Path(out)), (Path(out) / VALID).exists()
    digests, padded = [], False
    for index, path in enumerate(paths, begin):
        dataset = read_dataset(Path(path), with_pixels=True)
        placed = _slice_of(header_of(dataset, _SLICE_KEYWORDS))
        stored = decode(dataset)
        digests.append(source_digest(stored, placed.header))
        values, measured = measured_values(placed, stored, grid.unit, grid.shape[1:])
        write_slices(Path(out) / VOXELS, index, values[None])
        if has_valid:
            padded = padded or measured is not None
            measured = np.ones(stored.shape, dtype=np.bool_) if measured is None else measured
            write_slices(Path(out) / VALID, index, measured[None])
    return {"digests": digests, "padded": padded}


def _header_or_reason(path: str, keywords: Collection[str]) -> dict[str, Any]:
    try:
        return {"header": {keyword: list(values) for keyword, values in read_header(Path(path), keywords).items()}}
    except (InputError, NotFoundError) as error:
        return {"reason": str(error)}


def _slice_at(path: Path) -> Slice:
    return _slice_of(read_header(path, _SLICE_KEYWORDS))


def _slice_of(header: Header) -> Slice:
    return slice_of(0, value(header, "SOPInstanceUID"), value(header, "SOPClassUID"), header)
