"""Quality reports as DICOM objects, read by others (highdicom, DCMTK, dciodvfy)."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from dicomnode.core.derive.derivation import Equipment
from dicomnode.core.derive.document import ObjectReference
from dicomnode.core.derive.quality import QualityDocument, figure_code, quality_capture, quality_sr
from dicomnode.core.figures import FIGURES
from dicomnode.errors import InputError
from dicomnode.testing.objects import validation_errors
from dicomnode.testing.peers import program
from tests.core.derive.sources import CREATED_AT, as_read, ct_image, read_back, written

SOURCES = tuple(ObjectReference("1.2.3.4", CTImageStorage, f"1.2.3.4.{number}") for number in (1, 2))
DOCUMENT = QualityDocument(
    subjects=("series 1.2.3", "passed"),
    engine="ct-denoise@1.0.0",
    unit="HU",
    figures={name: 1.23456789 + index for index, name in enumerate(FIGURES)},
    sentences=("noise goes from 20.0 to 8.0 HU",),
    sources=SOURCES,
    identity={"sources": "abc"},
    series_number=2790,
    created_at=CREATED_AT,
    equipment=Equipment(),
    content_qualification="RESEARCH",
)
PAGE = np.tile(np.arange(256, dtype=np.uint8), (301, 1))[:, :255]


def made(document: QualityDocument = DOCUMENT, **attributes: object) -> list[Dataset]:
    source = as_read(ct_image(**attributes))
    return [read_back(one) for one in (quality_sr(source, document), quality_capture(source, document, PAGE))]


def test_every_figure_is_a_measurement_with_its_unit() -> None:
    report, _ = made()
    numbers = {
        item.ConceptNameCodeSequence[0].CodeValue: item.MeasuredValueSequence[0]
        for item in report.ContentSequence
        if item.ValueType == "NUM"
    }
    assert len(numbers) == len(FIGURES)
    assert numbers["NOISE_BEFORE"].MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"
    assert numbers["WIDTH_BEFORE"].MeasurementUnitsCodeSequence[0].CodeValue == "{pixels}"
    assert numbers["NOISE_RATIO"].MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert float(numbers["NOISE_BEFORE"].NumericValue) == pytest.approx(1.2345679)


def test_code_values_are_different_and_fit() -> None:
    codes = [figure_code(name) for name in FIGURES]
    assert len({code.value for code in codes}) == len(codes)
    assert all(len(code.value) <= 16 and len(code.meaning) <= 64 for code in codes)


def test_patient_and_study_are_the_sources() -> None:
    for one in made(PatientName="Müller^Jörg"):
        assert (one.PatientName, one.StudyInstanceUID, one.AccessionNumber) == ("Müller^Jörg", "1.2.3", "A1")
        assert (one.SeriesNumber, one.SeriesInstanceUID != "1.2.3.4") == (2790, True)


def test_the_same_report_is_the_same_object_and_each_form_its_own_series() -> None:
    first, again = made(), made(replace(DOCUMENT, created_at=CREATED_AT.replace(year=2030), sentences=()))
    assert [one.SOPInstanceUID for one in first] == [one.SOPInstanceUID for one in again]
    assert len({uid for one in first for uid in (one.SOPInstanceUID, one.SeriesInstanceUID)}) == 4
    other = made(replace(DOCUMENT, identity={"sources": "def"}))
    assert other[0].SOPInstanceUID != first[0].SOPInstanceUID


def test_the_capture_is_the_page() -> None:
    _, capture = made()
    assert np.array_equal(capture.pixel_array, PAGE)
    assert (capture.ConversionType, capture.BurnedInAnnotation) == ("WSD", "NO")


def test_a_source_without_a_study_is_refused() -> None:
    with pytest.raises(InputError, match="needs a study"):
        made(StudyInstanceUID="")


def test_highdicom_reads_the_report() -> None:
    report, _ = made()
    content = highdicom.sr.ContentSequence.from_sequence(report.ContentSequence)
    assert len(content) == len(report.ContentSequence)


@pytest.mark.peer("dciodvfy")
@pytest.mark.peer("dcmtk")
def test_validators_find_no_fault(tmp_path: Path) -> None:
    source = as_read(ct_image(PatientBirthDate="19700101"))
    file = tmp_path / "one.dcm"
    file.write_bytes(written(quality_capture(source, DOCUMENT, PAGE)))
    assert validation_errors(file) == set()
    file.write_bytes(written(quality_sr(source, DOCUMENT)))
    assert validation_errors(file) == set()
    dumped = subprocess.run([str(program("dsrdump")), file], capture_output=True, text=True, check=False)
    assert (dumped.returncode, dumped.stdout.count("contains NUM")) == (0, len(FIGURES)), dumped.stderr
    assert "E: " not in dumped.stderr
