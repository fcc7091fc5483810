"""A volume's arrays as files that are written slab by slab, by several processes at once.

The folder is one that `engines.volume.load_volume` reads. Slabs are written with write(2), never through a mapping:
where the disk or the memory behind the file is full, that is an error, not a signal that ends the process.
"""

from __future__ import annotations

import ctypes
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from engines.errors import EngineInputError
from engines.whole_files import create_once

VOXELS = "voxels.npy"
VALID = "valid.npy"
DESCRIBED = "volume.json"

_SYNC_FILE_RANGE_WRITE = 2


@dataclass(frozen=True, eq=False)
class Grid:
    """A volume without its voxels: see `engines.volume.Volume`. `shape` is (slices, rows, columns)."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    unit: str
    window: tuple[float, float] | None = None

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """(between rows, between columns)."""
        return float(np.linalg.norm(self.affine[:3, 1])), float(np.linalg.norm(self.affine[:3, 0]))


def create_volume(folder: Path, grid: Grid, *, padded: bool) -> None:
    """Make the files of a volume in an existing folder; what another process has made already stays.

    padded  whether there is a `valid` array; every voxel of it is to be written too
    """
    described = {"affine": grid.affine.tolist(), "unit": grid.unit, "window": grid.window}
    create_array(folder / VOXELS, grid.shape, np.dtype(np.float32))
    if padded:
        create_array(folder / VALID, grid.shape, np.dtype(np.bool_))
    create_once(folder / DESCRIBED, lambda file: file.write(json.dumps(described).encode()))


def read_grid(folder: Path) -> Grid:
    """The grid of a volume whose files are there, without mapping its arrays."""
    described = json.loads((folder / DESCRIBED).read_text())
    with (folder / VOXELS).open("rb") as file:
        slices, rows, columns = _array_header(file)[0]
    window = described["window"]
    return Grid(
        shape=(slices, rows, columns),
        affine=np.asarray(described["affine"], dtype=np.float64),
        unit=described["unit"],
        window=None if window is None else (float(window[0]), float(window[1])),
    )


def create_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """An npy file of zeros that takes no room yet; one that is there stays."""

    def fill(file: BinaryIO) -> None:
        described = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, described)
        file.truncate(file.tell() + int(np.prod(shape)) * dtype.itemsize)

    create_once(path, fill)


def write_slices(path: Path, begin: int, values: NDArray[Any]) -> None:
    """Write `values` as the slices from `begin` on; raises EngineInputError where they do not fit the file's array."""
    with path.open("r+b") as file:
        shape, dtype = _array_header(file)
        if values.shape[1:] != shape[1:] or values.dtype != dtype or begin + len(values) > shape[0]:
            raise EngineInputError(
                f"slices from {begin} on are {values.dtype} {values.shape}, the array is {dtype} {shape}",
                "one engine gives slices of one shape",
            )
        start = file.seek(begin * int(np.prod(shape[1:])) * dtype.itemsize, os.SEEK_CUR)
        file.write(np.ascontiguousarray(values).data.cast("B"))
        file.flush()
        _begin_to_force(file.fileno(), start, values.nbytes)


def _begin_to_force(descriptor: int, start: int, size_bytes: int) -> None:
    """Have the disk begin with these bytes (sync_file_range(2)): little is left when the whole is forced to it. By
    itself it promises nothing, and in memory nothing happens."""
    force = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if force is not None:  # Linux's own
        force(descriptor, ctypes.c_int64(start), ctypes.c_int64(size_bytes), _SYNC_FILE_RANGE_WRITE)


def _array_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an npy file of version 1; leaves `file` at its first value."""
    npy.read_magic(file)
    shape, _, dtype = npy.read_array_header_1_0(file)
    return shape, dtype
