"""Series as they would be at lower doses, as files: what `trainers simulate` writes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from trainers.data.cache import Cache, Simulation
from trainers.data.provenance import read_provenance
from trainers.data.series import LOWEST_HU, Series, Stored
from trainers.data.sources.dicom import read_dicom
from trainers.data.sources.volumes import read_volumes
from trainers.errors import SourceError
from trainers.material import noise_counted
from trainers.physics.dose import noise_factor
from trainers.progress import Say
from trainers.whole import whole

_HIGHEST_HU: Final = 32767
_TABLE: Final = "provenance.csv"
_COLUMNS: Final = ("file", "licence", "collection", "attribution", "path")


@dataclass(frozen=True, eq=False)
class Lowered:
    """A series at a share of its dose: int16 HU like its own."""

    series: Series
    dose: float
    hu: Stored

    @property
    def file(self) -> str:
        """What it is called once written."""
        name = "".join(letter if letter.isalnum() else "-" for letter in self.series.name)
        return f"{name}-dose-{self.dose:g}.npz"


def lowered(
    files: Sequence[Path], provenance: Path, doses: Sequence[float], cache: Path, say: Say = lambda line: None
) -> Iterator[Lowered]:
    """Each series at each dose. Raises SourceError on a file that is not there, a dose that is no share of the full
    one, and where two series would be written to one file."""
    for path in files:
        if not path.exists():
            raise SourceError(f"{path} is not there", "give DICOM folders or archives, or .npz volumes")
    for dose in doses:
        if not 0 < dose <= 1:
            raise SourceError(f"{dose:g} is no share of the dose", "give one above 0, at most 1")
    table, kept = read_provenance(provenance), Cache(cache, Simulation(fields=1))
    volumes = [path for path in files if path.suffix == ".npz"]
    others = [path for path in files if path.suffix != ".npz"]
    names: set[str] = set()
    for read, paths in ((read_volumes, volumes), (read_dicom, others)):
        for series in read(paths, table):
            (noisy,) = kept.all_noisy([series], noise_counted(say))
            for dose in doses:
                added = np.float32(noise_factor(dose)) * noisy.noise[0].astype(np.float32)
                low = np.clip(np.rint(series.hu + added), LOWEST_HU, _HIGHEST_HU).astype(np.int16)
                made = Lowered(series, dose, low)
                if made.file in names:
                    raise SourceError(f"two series would be written to {made.file}", "give each an --out of its own")
                names.add(made.file)
                yield made


def write_lowered(folder: Path, lowered: Lowered) -> Path:
    """An npz as `read_volumes` reads it, `hu` at the lower dose; beside it `full` and `dose`. Who is to be named for it
    goes into the folder's table."""
    series = lowered.series
    neighbours: dict[str, Any] = {} if series.z_mm is None else {"z": series.z_mm, "spacing": np.array(series.pixel_mm)}
    meta = json.dumps([_header(series)] * series.slices)
    _credit(folder / _TABLE, lowered)
    with whole(folder / lowered.file) as file:
        np.savez_compressed(file, hu=lowered.hu, full=series.hu, dose=lowered.dose, meta=np.array(meta), **neighbours)
    return folder / lowered.file


def _header(series: Series) -> dict[str, object]:
    """Of each of its slices, in DICOM's words."""
    said = {"ConvolutionKernel": series.kernel, "Manufacturer": series.maker, "BodyPartExamined": series.body_part}
    return {
        "PatientID": series.patient,
        "PixelSpacing": list(series.pixel_mm),
        "SliceThickness": series.spacing_mm[0],
        "KVP": series.kvp,
        **said,
    }


def require_own_table(folder: Path) -> None:
    """Raises SourceError where a folder has a table of other columns than those that are written here."""
    table = folder / _TABLE
    if table.exists() and table.read_text(errors="replace").splitlines()[:1] != [",".join(_COLUMNS)]:
        raise SourceError(f"{table} is a table of other images", "give a new folder as --out")


def _credit(table: Path, lowered: Lowered) -> None:
    """A row more; of a file that is written anew the last one counts."""
    require_own_table(table.parent)
    credit, rows = lowered.series.credit, io.StringIO()
    writer = csv.writer(rows)
    writer.writerows([] if table.exists() else [_COLUMNS])
    writer.writerow((lowered.file, credit.licence, credit.collection, credit.attribution, credit.source))
    known = table.read_bytes() if table.exists() else b""
    with whole(table) as file:
        file.write(known + rows.getvalue().encode())
