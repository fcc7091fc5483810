"""CT series to plant faults into: folders of DICOM files, and volumes of numpy (hu, z, spacing)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from dicomnode.core.headers import value
from dicomnode.core.stacks import STACK_KEYWORDS, slice_of, split_stacks
from dicomnode.pixels.read import read_header
from dicomnode.pixels.service import decode_stack
from engines.volume import HU, Volume, load_volume

SLAB_SLICES: Final = 8
_KEYWORDS: Final = STACK_KEYWORDS | {"SOPClassUID", "SOPInstanceUID"}


@dataclass(frozen=True, eq=False)
class Series:
    """One series of one patient."""

    name: str
    volume: Volume

    def slabs(self, most: int) -> Iterator[tuple[int, Volume]]:
        """(index of the first slice, slab of 8 slices), at most so many, evenly spread; a shorter series is one."""
        last = max(len(self.volume.voxels) - SLAB_SLICES, 0)
        for first in sorted(set(np.linspace(0, last, most).astype(int).tolist())):
            yield first, cut(self.volume, first, SLAB_SLICES)


def find(root: Path) -> list[Path]:
    """What holds a series below `root`: folders with .dcm files, and .npz files; by name."""
    folders = {path.parent for path in root.rglob("*.dcm")}
    return sorted([*folders, *root.rglob("*.npz")], key=lambda path: path.stem)


def read(path: Path) -> Series | None:
    """The series; None where it is no stack of at least 8 slices in HU."""
    volume = _of_arrays(path) if path.suffix == ".npz" else _of_files(path)
    if volume is None or volume.unit != HU or len(volume.voxels) < SLAB_SLICES:
        return None
    return Series(path.stem, volume)


def cut(volume: Volume, first: int, count: int) -> Volume:
    """Some consecutive slices of a volume."""
    wanted = slice(first, first + count)
    valid = None if volume.valid is None else np.asarray(volume.valid[wanted])
    return replace(volume, voxels=np.array(volume.voxels[wanted]), valid=valid)


def _of_files(folder: Path) -> Volume | None:
    """The largest stack of the folder, decoded as the node decodes it."""
    paths = sorted(folder.glob("*.dcm"))
    headers = [read_header(path, _KEYWORDS) for path in paths]
    slices = [
        slice_of(index, value(header, "SOPInstanceUID"), value(header, "SOPClassUID"), header)
        for index, header in enumerate(headers)
    ]
    stacks = [stack for stack in split_stacks(slices) if not stack.excluded]
    if not stacks:
        return None
    largest = max(stacks, key=lambda stack: len(stack.slices))
    with tempfile.TemporaryDirectory() as out:
        decode_stack([str(paths[one.instance_id]) for one in largest.slices], out)
        volume = load_volume(Path(out))
        return replace(volume, voxels=np.array(volume.voxels))


def _of_arrays(path: Path) -> Volume | None:
    with np.load(path, allow_pickle=False) as arrays:
        if not {"hu", "z", "spacing"} <= set(arrays.files):
            return None
        order = np.argsort(arrays["z"])
        voxels = arrays["hu"][order].astype(np.float32)
        spacing = np.asarray(arrays["spacing"], dtype=np.float64).ravel()
        step_mm = float(np.median(np.diff(arrays["z"][order])))
    if voxels.ndim != 3 or not step_mm > 0:
        return None
    return Volume(voxels, np.diag([spacing[-1], spacing[-2] if len(spacing) > 1 else spacing[-1], step_mm, 1.0]), HU)
