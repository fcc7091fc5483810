"""Volumes in npz files.

`hu` int16 (slices, rows, columns), `meta` a JSON list of a header for each slice, and where the slices are neighbours
`z` (slices,) and `spacing` (rows, columns), in mm. Without `z` each slice is a series of its own, with its own patient.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.core.headers import finite
from trainers.data.provenance import Provenance
from trainers.data.series import Credit, Series
from trainers.errors import SourceError

_LARGEST_BYTES: Final = 4 << 30
_HU: Final = 1 << 15
Meta = Mapping[str, Any]


def read_volumes(files: Sequence[Path], provenance: Provenance) -> Iterator[Series]:
    """The series of npz files, one at a time in memory. Raises SourceError where a file is not of this layout."""
    for file in files:
        credit = provenance.credit_of(file)
        arrays = _arrays(file)
        hu, meta = arrays.get("hu"), _meta(arrays, file.name)
        if hu is None or hu.dtype != np.int16 or hu.ndim != 3 or len(meta) != len(hu):
            raise SourceError(f"{file.name} holds no int16 volume with a header a slice", "see docs/trainers/data.md")
        if not hu.size:
            raise SourceError(f"{file.name} holds no pixels", "leave it out")
        if "z" in arrays:
            yield _neighbours(file.name, arrays, meta, credit)
        else:
            yield from (_lone(f"{file.name}#{at}", hu[at : at + 1], one, credit) for at, one in enumerate(meta))


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > _LARGEST_BYTES:
                raise SourceError(f"{file.name} declares too much", f"{_LARGEST_BYTES >> 30} GiB are read")
        with np.load(file, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files if name in ("hu", "z", "spacing", "meta")}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, MemoryError, RuntimeError) as error:
        raise SourceError(f"{file.name} cannot be read ({type(error).__name__})", "write it with numpy.savez") from None


def _meta(arrays: Mapping[str, NDArray[Any]], name: str) -> list[Meta]:
    try:
        listed = json.loads(str(arrays["meta"]))
    except (KeyError, ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise SourceError(f"{name} has no 'meta', or it is no JSON list of headers", "see docs/trainers/data.md")
    return listed


def _neighbours(name: str, arrays: Mapping[str, NDArray[Any]], meta: Sequence[Meta], credit: Credit) -> Series:
    z_mm, spacing = _lengths(arrays["z"]), _lengths(arrays.get("spacing", np.empty(0)))
    if z_mm.shape != (len(meta),) or spacing.shape != (2,) or len({_patient(one) for one in meta}) != 1:
        raise SourceError(f"{name}: z, spacing and meta do not fit one series", "see docs/trainers/data.md")
    order = np.argsort(z_mm)
    step = float(np.median(np.diff(z_mm[order]))) if len(z_mm) > 1 else _thickness(meta[0])
    if not min(step, *spacing) > 0:
        raise SourceError(f"{name}: slices or pixels lie at one place", "give z and spacing in mm")
    spacing_mm = (step, float(spacing[0]), float(spacing[1]))
    return _series(name, arrays["hu"][order], meta[0], credit, (spacing_mm, z_mm[order]))


def _lengths(stored: NDArray[Any]) -> NDArray[np.float64]:
    """As numbers; none of them where they are not."""
    is_finite = stored.dtype.kind in "fiu" and np.isfinite(stored).all()
    return np.asarray(stored, dtype=np.float64) if is_finite else np.empty(0)


def _lone(name: str, hu: NDArray[np.int16], meta: Meta, credit: Credit) -> Series:
    pair = meta.get("PixelSpacing")
    lengths = [finite(str(one)) for one in pair] if isinstance(pair, list) else []
    if len(lengths) != 2 or lengths[0] is None or lengths[1] is None or min(lengths[0], lengths[1]) <= 0:
        raise SourceError(f"{name} has no PixelSpacing", "give it two lengths in mm")
    return _series(name, hu, meta, credit, ((_thickness(meta), lengths[0], lengths[1]), None))


def _series(
    name: str,
    hu: NDArray[np.int16],
    meta: Meta,
    credit: Credit,
    grid: tuple[tuple[float, float, float], NDArray[np.float64] | None],
) -> Series:
    return Series(
        patient=_patient(meta),
        name=name,
        hu=np.clip(hu, -1024, _HU - 1),
        spacing_mm=grid[0],
        z_mm=grid[1],
        credit=credit,
        kernel=_word(meta, "ConvolutionKernel"),
        kvp=finite(_word(meta, "KVP")),
        maker=_word(meta, "Manufacturer"),
        body_part=_word(meta, "BodyPartExamined"),
    )


def _patient(meta: Meta) -> str:
    patient = _word(meta, "PatientID")
    if not patient:
        raise SourceError("a header has no PatientID", "splits are made by patient: give each slice its own")
    return patient


def _word(meta: Meta, keyword: str) -> str:
    value = meta.get(keyword)
    return str(value).strip()[:64] if value is not None else ""


def _thickness(meta: Meta) -> float:
    found = finite(_word(meta, "SliceThickness"))
    return found if found is not None and found > 0 else 1.0
