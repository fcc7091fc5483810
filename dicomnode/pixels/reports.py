"""Quality reports as DICOM files: built where images are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicomnode.core.derive.derivation import ContentQualification, Equipment
from dicomnode.core.derive.document import ObjectReference
from dicomnode.core.derive.elements import ascii_text
from dicomnode.core.derive.grid import factor_of
from dicomnode.core.derive.image import series_number
from dicomnode.core.derive.quality import QualityDocument, quality_capture, quality_sr
from dicomnode.core.headers import value
from dicomnode.pixels.encode import write_file
from dicomnode.pixels.pages import Shown, Told, page_of
from dicomnode.pixels.read import read_dataset, read_header
from dicomnode.pixels.sheet import Canvas, draw
from dicomnode.pixels.values import slice_values
from engines.volume import load_volume

_REFERENCE: Final = ("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")


def write_reports(
    *,
    sources: Sequence[str],
    place: int,
    after: str,
    report: Mapping[str, Any],
    forms: Sequence[str],
    equipment: Mapping[str, Any],
    content_qualification: str,
    created_at: float,
    out: str,
) -> dict[str, Any]:
    """Write a quality report in each of `forms` ("sr", "capture") into the existing, empty folder `out`.

    sources  files of the measured stack; `place`: index of the slice that the page shows
    after    folder of the volume that the engine made of it, "" of a phantom
    report   heading, subjects, figures, notes and the report itself (`Told`), unit, identity and number_offset
             (`QualityDocument`)

    Arguments and result are JSON values. Returns {"instances": [path, sop_instance_uid, series_instance_uid,
    sop_class_uid and transfer_syntax_uid of each]}.
    """
    source = read_dataset(Path(sources[place]), with_pixels=False)
    document = QualityDocument(
        engine=report["heading"],
        subjects=tuple(report["subjects"]),
        unit=report["unit"],
        figures=report["figures"],
        sentences=tuple(report["notes"]),
        sources=tuple(_reference(Path(path)) for path in sources),
        identity=report["identity"],
        series_number=series_number(ascii_text(source, "SeriesNumber"), report["number_offset"]),
        created_at=datetime.fromtimestamp(created_at, UTC).astimezone(),
        equipment=Equipment(**equipment),
        content_qualification=cast(ContentQualification, content_qualification),
    )
    made = []
    for form in forms:
        if form == "sr":
            dataset = quality_sr(source, document)
        else:
            dataset = quality_capture(source, document, _page(report, sources[place], place, after))
        path = Path(out) / f"{form}.dcm"
        write_file(dataset, path)
        made.append(_written(path, dataset))
    return {"instances": made}


def _reference(path: Path) -> ObjectReference:
    header = read_header(path, _REFERENCE)
    return ObjectReference(*(value(header, keyword) for keyword in _REFERENCE))


def _page(report: Mapping[str, Any], source: str, place: int, folder: str) -> Canvas:
    before = slice_values(Path(source))
    after = _seen_by(load_volume(Path(folder)).voxels[place], before.values) if folder else None
    told = Told(
        report["heading"], tuple(report["subjects"]), report["report"], report["figures"], tuple(report["notes"])
    )
    return draw(page_of(told, Shown(place, before.values, after, before.unit, before.window)))


def _seen_by(after: NDArray[np.float32], before: NDArray[np.float32]) -> NDArray[np.float32]:
    """A slice as the pixels of its source see it: means over those that each became."""
    factor = factor_of((before.shape[0], before.shape[1]), after.shape)
    rows, columns = before.shape
    seen: NDArray[np.float32] = after.reshape(rows, factor, columns, factor).mean(axis=(1, 3))
    return seen


def _written(path: Path, dataset: Dataset) -> dict[str, str]:
    return {
        "path": str(path),
        "series_instance_uid": str(dataset.SeriesInstanceUID),
        "sop_instance_uid": str(dataset.SOPInstanceUID),
        "sop_class_uid": str(dataset.SOPClassUID),
        "transfer_syntax_uid": str(dataset.file_meta.TransferSyntaxUID),
    }
