"""Storing what pixel workers built: derived files into the file store, and whose they are in the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from dicomnode.flow.rooms import Rooms
from dicomnode.store.index.arrivals import Identity, StoredFile, stored_files
from dicomnode.store.schema import Patient, Series, Study


def store_built(rooms: Rooms, built: Sequence[Mapping[str, Any]]) -> list[StoredFile]:
    """Put built files into the store; of those whose UID is there already the first result stays."""
    with rooms.database.read() as session:
        known = stored_files(session, [made["sop_instance_uid"] for made in built])
    new = [made for made in built if made["sop_instance_uid"] not in known]
    adopted = rooms.files.adopt([Path(made["path"]) for made in new])
    stored = known | {
        made["sop_instance_uid"]: StoredFile(
            made["sop_instance_uid"], made["sop_class_uid"], made["transfer_syntax_uid"], file, size_bytes
        )
        for made, (file, size_bytes) in zip(new, adopted, strict=True)
    }
    return [stored[made["sop_instance_uid"]] for made in built]


def drop(rooms: Rooms, files: Sequence[StoredFile]) -> None:
    """Remove stored files that no row will name."""
    with rooms.database.read() as session:
        known = stored_files(session, [file.sop_instance_uid for file in files])
    for file in files:
        if file.sop_instance_uid not in known:
            rooms.files.remove(file.file)


def identity_of(session: Session, series_row: int, series_instance_uid: str) -> Identity:
    """A derived series belongs to the study and patient of its source."""
    series = session.get_one(Series, series_row)
    study = session.get_one(Study, series.study_row)
    patient = session.get_one(Patient, study.patient_row)
    return Identity(
        patient_id=patient.patient_id,
        issuer=patient.issuer,
        study_instance_uid=study.study_instance_uid,
        accession_number=study.accession_number,
        series_instance_uid=series_instance_uid,
        modality=series.modality,
    )
