"""The stacks in a folder of DICOM files, for commands that work without the node."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomnode.core.headers import value
from dicomnode.core.stacks import slice_of, split_stacks
from dicomnode.core.types import Slice, Stack
from dicomnode.errors import InputError, NotFoundError
from dicomnode.operations.files import dicom_files
from dicomnode.pixels.read import read_header
from dicomnode.pixels.service import decode_stack
from engines.volume import Volume, load_volume

_KEYWORDS: Final = frozenset({"SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"})


@dataclass(frozen=True)
class StackFiles:
    """One stack, the UID of its series, and its files in the order of its slices."""

    series: str
    stack: Stack
    paths: tuple[Path, ...]


def stacks_in(source: Path, keywords: Collection[str]) -> tuple[tuple[StackFiles, ...], tuple[str, ...]]:
    """The stacks of a file or folder, with the headers' `keywords`; and what could not be read, with why.

    Raises NotFoundError where there is no DICOM image.
    """
    slices, unreadable = _read(dicom_files(source), {*keywords, *_KEYWORDS})
    if not slices:
        raise NotFoundError(f"there is no DICOM image in {source}", "name a folder of DICOM files")
    return tuple(_stacks(slices)), tuple(unreadable)


def middle_of(files: StackFiles, most_slices: int) -> Volume:
    """The volume of a stack, of at most so many slices about its middle. Raises InputError where one has no pixels."""
    surplus = max(len(files.paths) - most_slices, 0)
    paths = files.paths[surplus // 2 :][:most_slices]
    with tempfile.TemporaryDirectory(prefix="dicomnode-") as folder:
        decode_stack(paths=[str(path) for path in paths], out=folder)
        volume = load_volume(Path(folder))
        valid = None if volume.valid is None else volume.valid.copy()
        return Volume(volume.voxels.copy(), volume.affine, volume.unit, valid, volume.window)


def _read(paths: Sequence[Path], keywords: Collection[str]) -> tuple[list[tuple[Path, Slice]], list[str]]:
    slices, unreadable = [], []
    for index, path in enumerate(paths):
        try:
            header = read_header(path, keywords)
        except InputError as error:
            unreadable.append(f"{path.name}: {error}")
            continue
        uid, sop_class = value(header, "SOPInstanceUID"), value(header, "SOPClassUID")
        slices.append((path, slice_of(index, uid, sop_class, header)))
    return slices, unreadable


def _stacks(slices: Sequence[tuple[Path, Slice]]) -> Iterator[StackFiles]:
    by_series: Mapping[str, list[tuple[Path, Slice]]] = defaultdict(list)
    for path, one in slices:
        by_series[value(one.header, "SeriesInstanceUID")].append((path, one))
    for series, members in sorted(by_series.items()):
        path_of = {one.instance_id: path for path, one in members}
        for stack in split_stacks([one for _, one in members]):
            yield StackFiles(series, stack, tuple(path_of[one.instance_id] for one in stack.slices))
