"""Full and low dose of the same patients: TCIA's LDCT-and-Projection-data, and the AAPM challenge of 2016 before it.

Both have a folder a patient, such as `L067`; which series is of which dose is said by the names of its folders and by
its Series Description ("Full Dose Images", "Low Dose Images", `full_3mm`, `quarter_3mm`). Low is a tenth of the dose
for chests (C...) and a quarter for abdomens (L...) and heads (N...) (McCollough et al., Med Phys 2021; 48:902).
Projections are passed over: they are no images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from dicomnode.core.headers import number, value
from dicomnode.core.stacks import along_normal_mm
from dicomnode.core.types import Stack
from dicomnode.pixels.read import quiet_pydicom
from trainers.data.series import Credit, PairedSeries, Series
from trainers.data.sources.dicom import ReadStack, series_of, stacks_below
from trainers.errors import SourceError

CREDIT: Final = Credit(
    collection="LDCT-and-Projection-data",
    licence="CC BY 4.0 (TCIA); heads: TCIA restricted",
    attribution="McCollough C, Chen B, Holmes D R, et al. Low Dose CT Image and Projection Data. "
    "The Cancer Imaging Archive, 2020. doi:10.7937/9npb-2637. Supported by NIBIB grants EB017095 and EB017185.",
    source="The Cancer Imaging Archive",
)
_PATIENT: Final = re.compile(r"[CLN]\d{3}")
_FULL: Final = re.compile(r"full|(?<![a-z])fd(?![a-z])")
_LOW: Final = re.compile(r"low|quarter|(?<![a-z])qd(?![a-z])")
_DOSES: Final = {"C": 0.1, "L": 0.25, "N": 0.25}
_SAME_PLACE_MM: Final = 0.05


def read_mayo(root: Path, credit: Credit = CREDIT) -> Iterator[PairedSeries]:
    """The pairs below `root`, patient after patient. Raises SourceError where there are none."""
    quiet_pydicom()
    found = 0
    for patient, folders in _patients(root).items():
        doses: dict[str, list[ReadStack]] = {"full": [], "low": []}
        for read in (read for folder in folders for read in stacks_below(folder)):
            if dose := _dose_word(root, read):
                doses[dose].append(read)
        for at, reads in enumerate(_paired(doses["full"], doses["low"]), 1):
            found += 1
            yield _pair(patient, reads, f"{patient}#{at}", credit)
    if not found:
        raise SourceError(f"{root.name} holds no pair of full and low dose", "see docs/trainers/data.md for the layout")


def _patients(root: Path) -> dict[str, list[Path]]:
    """The outermost folders named like a patient; the challenge has one for each dose and thickness."""
    found: dict[str, list[Path]] = {}
    for folder in sorted(path for path in (root, *root.rglob("*")) if path.is_dir()):
        above = [part for part in folder.relative_to(root).parts[:-1] if _PATIENT.fullmatch(part)]
        if _PATIENT.fullmatch(folder.name) and not above:
            found.setdefault(folder.name, []).append(folder)
    return found


def _dose_word(root: Path, read: ReadStack) -> str:
    """What its folders call it, or its description does; "" where neither says which dose it is."""
    folders = "/".join(read.paths[0].relative_to(root).parts[:-1]).lower()
    for words in (folders, read.description):
        if bool(_FULL.search(words)) != bool(_LOW.search(words)):
            return "full" if _FULL.search(words) else "low"
    return ""


def _paired(full: list[ReadStack], low: list[ReadStack]) -> Iterator[tuple[ReadStack, ReadStack]]:
    """Each stack of full dose with the one of low dose that is alike."""
    by_kind = {_kind(read.stack): read for read in low}
    for read in full:
        if (other := by_kind.get(_kind(read.stack))) is not None:
            yield read, other


def _kind(stack: Stack) -> tuple[object, ...]:
    first = stack.slices[0]
    thickness, kernel = number(first.header, "SliceThickness"), value(first.header, "ConvolutionKernel")
    return first.rows, first.columns, first.pixel_spacing_mm, thickness, kernel


def _pair(patient: str, reads: tuple[ReadStack, ReadStack], name: str, credit: Credit) -> PairedSeries:
    """The slices that both doses have. `patient` is the folder's name: Patient ID may be a longer one."""
    full, low = (series_of(read, name, credit) for read in reads)
    if full is None or low is None:
        raise SourceError(f"{name} is not in HU", "it is not of this collection")
    positions = [np.array([along_normal_mm(one) for one in read.stack.slices]) for read in reads]
    apart = np.abs(positions[0][:, None] - positions[1])
    both = apart.min(axis=1) <= _SAME_PLACE_MM
    if not both.any():
        raise SourceError(f"{name}: no slice of full dose lies where one of low dose does", "fetch the patient again")
    kept = Series(
        patient=patient,
        name=name,
        hu=full.hu[both],
        spacing_mm=full.spacing_mm,
        z_mm=positions[0][both],
        credit=credit,
        kernel=full.kernel,
        kvp=full.kvp,
        maker=full.maker,
        body_part=full.body_part,
    )
    return PairedSeries(kept, low.hu[apart.argmin(axis=1)[both]], _DOSES[patient[0]])
