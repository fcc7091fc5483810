"""Rejection notes of ours: what they say, read by others (highdicom, DCMTK, dciodvfy)."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import highdicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from dicomnode.core.derive.derivation import Equipment
from dicomnode.core.derive.rejection import RejectedObject, Rejection, rejection_note
from dicomnode.core.identity import INSTANCE_CREATOR_UID, rejection_note_uids
from dicomnode.core.rejections import read_note
from dicomnode.errors import InputError
from dicomnode.testing.objects import validation_errors
from dicomnode.testing.peers import program
from tests.core.derive.sources import CREATED_AT, as_read, ct_image, read_back, written

OBJECTS = (
    RejectedObject("1.2.9.2", CTImageStorage, "1.2.9.2.1"),
    RejectedObject("1.2.9.1", CTImageStorage, "1.2.9.1.2"),
    RejectedObject("1.2.9.1", CTImageStorage, "1.2.9.1.1"),
)
REJECTION = Rejection("113001", OBJECTS, "Derived images: replaced by what job 2 derived.", CREATED_AT, Equipment())


def made(rejection: Rejection = REJECTION, **attributes: object) -> Dataset:
    return read_back(rejection_note(as_read(ct_image(**attributes)), rejection))


def test_it_rejects_under_its_title() -> None:
    note = made(replace(REJECTION, title="113037"))
    assert (note.ConceptNameCodeSequence[0].CodeValue, note.Modality) == ("113037", "KO")
    assert note.ConceptNameCodeSequence[0].CodeMeaning == "Rejected for Patient Safety Reasons"
    assert note.SeriesDescription == "Rejected for Patient Safety Reasons"


def test_its_evidence_lists_what_it_rejects_by_series() -> None:
    (study,) = made().CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == "1.2.3"
    listed = {
        series.SeriesInstanceUID: [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence]
        for series in study.ReferencedSeriesSequence
    }
    assert listed == {"1.2.9.1": ["1.2.9.1.1", "1.2.9.1.2"], "1.2.9.2": ["1.2.9.2.1"]}


def test_patient_and_study_are_the_sources_bytes_and_nothing_of_its_series_is() -> None:
    note = made(PatientName="Müller^Jörg", OtherPatientIDs="X9", SeriesNumber=3)
    assert (note.PatientName, note.PatientID, note.AccessionNumber) == ("Müller^Jörg", "P1", "A1")
    assert note.SpecificCharacterSet == "ISO_IR 100"
    assert note.SeriesInstanceUID != "1.2.3.4"
    assert "FrameOfReferenceUID" not in note
    assert "KVP" not in note
    assert note.InstanceCreatorUID == INSTANCE_CREATOR_UID


def test_the_same_rejection_is_the_same_object_whenever_and_however_it_is_said() -> None:
    first = made()
    again = made(replace(REJECTION, objects=OBJECTS[::-1], created_at=CREATED_AT.replace(year=2030), description="x"))
    assert (first.SOPInstanceUID, first.SeriesInstanceUID) == (again.SOPInstanceUID, again.SeriesInstanceUID)
    assert first.SOPInstanceUID != first.SeriesInstanceUID
    fewer = made(replace(REJECTION, objects=OBJECTS[:2]))
    other = made(replace(REJECTION, title="113038"))
    assert len({note.SOPInstanceUID for note in (first, fewer, other)}) == 3
    assert rejection_note_uids("113001", ["2", "1", "1"]) == rejection_note_uids("113001", ["1", "2"])


def test_we_read_it_ourselves() -> None:
    note = rejection_note(as_read(ct_image()), REJECTION)
    content = written(note)
    dataset = content[content.index(b"\x08\x00\x05\x00CS") :]
    read = read_note(dataset, "1.2.840.10008.1.2.1")
    assert read is not None
    assert read.title == "113001"
    assert set(read.sop_instance_uids) == {one.sop_instance_uid for one in OBJECTS}


def test_highdicom_reads_it() -> None:
    document = highdicom.ko.KeyObjectSelectionDocument.from_dataset(made())
    referenced = [item.referenced_sop_instance_uid for item in document.content.get_references()]
    assert sorted(referenced) == sorted(one.sop_instance_uid for one in OBJECTS)
    assert document.resolve_reference("1.2.9.1.2") == ("1.2.3", "1.2.9.1", "1.2.9.1.2")


def test_what_lacks_a_study_is_refused() -> None:
    with pytest.raises(InputError):
        made(StudyInstanceUID=None)
    with pytest.raises(InputError):
        made(replace(REJECTION, objects=()))


@pytest.mark.peer("dciodvfy")
@pytest.mark.peer("dcmtk")
def test_validators_find_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "note.dcm"
    file.write_bytes(written(rejection_note(as_read(ct_image(PatientBirthDate="19700101")), REJECTION)))
    assert validation_errors(file) == set()
    dumped = subprocess.run([str(program("dsrdump")), file], capture_output=True, text=True, check=False)
    assert (dumped.returncode, dumped.stdout.count("contains IMAGE")) == (0, 3), dumped.stderr
    assert "E: " not in dumped.stderr
