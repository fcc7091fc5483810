"""CT series from DICOM files, in folders and archives, read as the node reads them: the same stacks, the same HU."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.core.headers import number, value
from dicomnode.core.stacks import STACK_KEYWORDS, along_normal_mm, slice_of, split_stacks
from dicomnode.core.types import Stack
from dicomnode.errors import InputError, NotFoundError
from dicomnode.pixels.read import quiet_pydicom, read_header
from dicomnode.pixels.service import decode_stack
from engines.volume import HU, load_volume
from trainers.data.archives import files_below, is_archive, opened
from trainers.data.provenance import Provenance
from trainers.data.series import LOWEST_HU, Credit, Series, Stored
from trainers.errors import SourceError

_KEYWORDS: Final = {
    *STACK_KEYWORDS, "SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "PatientID", "Manufacturer",
    "ConvolutionKernel", "SeriesDescription",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ReadStack:
    """One CT stack as it was read.

    number       of the stack below its folder, from 1
    description  Series Description, in lower case
    """

    stack: Stack
    paths: tuple[Path, ...]
    number: int
    description: str


def read_dicom(roots: Sequence[Path], provenance: Provenance) -> Iterator[Series]:
    """The CT stacks below folders, in archives and of single files, one at a time in memory.

    What is no DICOM file, no CT in HU, or no image to be enhanced is passed over. Raises SourceError where a root holds
    no stack, or a stack cannot be decoded.
    """
    quiet_pydicom()
    for root in roots:
        credit, found = provenance.credit_of(root), 0
        for place in [root, *(path for path in files_below(root) if path != root and is_archive(path))]:
            with opened(place) as folder:
                for read in stacks_below(folder):
                    series = series_of(read, f"{place.relative_to(root.parent).as_posix()}#{read.number}", credit)
                    found += series is not None
                    if series is not None:
                        yield series
        if not found:
            raise SourceError(f"{root.name} holds no CT series", "give a folder or archive of CT images")


def stacks_below(folder: Path) -> list[ReadStack]:
    """The CT stacks of the DICOM files below a folder; headers alone are read."""
    by_series: dict[str, list[Path]] = defaultdict(list)
    headers = {}
    for path in files_below(folder):
        try:
            header = read_header(path, _KEYWORDS)
        except (InputError, NotFoundError):
            continue  # no DICOM file: archives and folders hold licences and lists too
        if value(header, "Modality") == "CT":
            headers[path] = header
            by_series[value(header, "SeriesInstanceUID")].append(path)
    found: list[ReadStack] = []
    for uid in sorted(by_series, key=lambda one: by_series[one][0]):
        paths = by_series[uid]
        slices = [
            slice_of(at, value(headers[path], "SOPInstanceUID"), value(headers[path], "SOPClassUID"), headers[path])
            for at, path in enumerate(paths)
        ]
        for stack in split_stacks(slices):
            if not stack.excluded:
                ordered = tuple(paths[placed.instance_id] for placed in stack.slices)
                description = value(stack.slices[0].header, "SeriesDescription").lower()
                found.append(ReadStack(stack, ordered, len(found) + 1, description))
    return found


def series_of(read: ReadStack, name: str, credit: Credit) -> Series | None:
    """A stack with its HU; None where it is in another unit. Raises SourceError where it cannot be decoded."""
    hu = _hu(read.paths, name)
    if hu is None:
        return None
    first = read.stack.slices[0]
    patient, *others = {value(placed.header, "PatientID") for placed in read.stack.slices}
    if others:
        raise SourceError(f"{name} has slices of several Patient IDs", "splits are made by patient: part it first")
    if not patient:
        raise SourceError(f"{name} has no Patient ID", "splits are made by patient: give each patient one")
    rows_mm, columns_mm = first.pixel_spacing_mm or (1.0, 1.0)
    step_mm = read.stack.step_mm or number(first.header, "SliceThickness") or 1.0
    z_mm: NDArray[np.float64] | None = np.array([along_normal_mm(placed) for placed in read.stack.slices])
    return Series(
        patient=patient,
        name=name,
        hu=hu,
        spacing_mm=(step_mm, rows_mm, columns_mm),
        z_mm=z_mm if len(read.paths) > 1 else None,
        credit=credit,
        kernel=value(first.header, "ConvolutionKernel"),
        kvp=number(first.header, "KVP"),
        maker=value(first.header, "Manufacturer"),
        body_part=value(first.header, "BodyPartExamined"),
    )


def _hu(paths: Sequence[Path], name: str) -> Stored | None:
    """int16 HU of a stack; what the scanner padded is air. None where the values are no HU."""
    with tempfile.TemporaryDirectory(prefix="trainers-") as folder:
        try:
            decode_stack([str(path) for path in paths], folder)
        except (InputError, NotFoundError) as error:
            raise SourceError(f"{name} cannot be decoded: {error}", error.hint) from None
        volume = load_volume(Path(folder))
        if volume.unit != HU:
            return None
        voxels = volume.voxels if volume.valid is None else np.where(volume.valid, volume.voxels, LOWEST_HU)
        return np.rint(voxels).clip(LOWEST_HU, np.iinfo(np.int16).max).astype(np.int16)
