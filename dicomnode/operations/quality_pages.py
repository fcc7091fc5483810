"""The slice that the page of a quality report shows, from what is still stored here of its job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.errors import DicomNodeError
from dicomnode.pixels.pages import Shown, slice_to_show
from dicomnode.pixels.values import SliceValues, slice_values
from dicomnode.store.index import quality as index
from dicomnode.store.results import stage_folder
from dicomnode.store.schema import Instance, Job, QualityRow
from engines.volume import load_volume


def shown_slice(config: Config, session: Session, job: Job, row: QualityRow) -> Shown | None:
    """The slice that says most, before and after the stage; None where one of the two is not kept here any more."""
    place = slice_to_show(row.report, len(job.instance_rows))
    before = _after_stage(config, session, job, row.stage - 1, place)
    if before is None:
        return None
    if row.kind == "constancy":
        return Shown(place, before.values, None, before.unit, before.window)
    after = _after_stage(config, session, job, row.stage, place, row.output)
    if after is None or after.values.shape != before.values.shape or after.unit != before.unit:
        return None
    return Shown(place, before.values, after.values, before.unit, before.window)


def _after_stage(
    config: Config, session: Session, job: Job, stage: int, place: int, output: str = ""
) -> SliceValues | None:
    """One slice as a stage left it (-1: as it was received): from the result at rest, else from what was derived.

    output  of a stage, where it is not the main one that is meant
    """
    source_row = job.instance_rows[place]
    if stage < 0:
        return _stored(config, session.get(Instance, source_row))
    told: dict[str, Any] = job.stages[stage] if stage < len(job.stages) else {}
    name = output or told.get("output", "")
    at_rest = _at_rest(config, job, told.get("outputs", {}).get(name, {}).get("folder"), place)
    if at_rest is not None:
        return at_rest
    return _stored(config, index.derived_slice(session, job, (stage, name), source_row))


def _at_rest(config: Config, job: Job, made: str | None, place: int) -> SliceValues | None:
    if job.result is None or not made:
        return None
    folder = stage_folder(config.files, job.result, made)
    if not folder.is_dir():
        return None
    volume = load_volume(folder)
    values: NDArray[np.float32] = np.array(volume.voxels[place])
    return SliceValues(values, volume.unit, volume.window)


def _stored(config: Config, instance: Instance | None) -> SliceValues | None:
    """The values of a stored instance; None where it was deleted, or lies elsewhere."""
    if instance is None:
        return None
    path = Path(config.files) / "objects" / f"{instance.file}.dcm"
    try:
        return slice_values(path) if path.is_file() else None
    except DicomNodeError:  # it is damaged by now: `why` tells of it, and the figures stand
        return None
