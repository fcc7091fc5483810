"""Row by row, what a derived image says (docs/derived-objects.md)."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForProcessing,
    JPEGBaseline8Bit,
    MRImageStorage,
)

from dicomnode.core.derive.derivation import Equipment, SeriesLabel, SourceReference, Stage
from dicomnode.core.derive.elements import value_bytes
from dicomnode.core.derive.image import derive_image, presentation_padding, series_number
from dicomnode.core.identity import IMPLEMENTATION_CLASS_UID, INSTANCE_CREATOR_UID
from dicomnode.errors import InputError, UnsupportedError
from tests.core.derive.sources import (
    CONTRAST,
    DENOISE,
    SOP_INSTANCE_UID,
    as_read,
    ct_image,
    derivation,
    pixels,
    presentation,
    read_back,
    written,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of the invalid values that are wanted here


def _derived(source: Dataset | None = None, how: Any = None, values: Any = None) -> Dataset:
    source = ct_image() if source is None else source
    return read_back(derive_image(as_read(source), pixels() if values is None else values, how or derivation()))


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def test_identity_and_file_meta() -> None:
    image = _derived()
    assert image.SOPClassUID == image.file_meta.MediaStorageSOPClassUID == CTImageStorage
    assert image.SOPInstanceUID == image.file_meta.MediaStorageSOPInstanceUID == "2.25.11"
    assert image.SeriesInstanceUID == "2.25.12"
    assert image.InstanceCreatorUID == INSTANCE_CREATOR_UID
    assert image.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID


@pytest.mark.parametrize("how", [derivation(), presentation()])
def test_patient_study_and_place_are_the_sources_bytes(how: Any) -> None:
    source = as_read(ct_image(PatientName="Müller^Jörg=", StudyTime="1010", PatientBirthDate="unknown"))
    image = read_back(derive_image(source, pixels(), how))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "StudyTime",
                    "AccessionNumber", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient",
                    "PixelSpacing", "SliceThickness", "SliceLocation", "InstanceNumber", "AcquisitionDate",
                    "KVP"):  # fmt: skip
        assert value_bytes(image, keyword) == value_bytes(source, keyword), keyword
        assert value_bytes(image, keyword), keyword


@pytest.mark.parametrize(
    ("image_type", "expected"),
    [
        (["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"], ["DERIVED", "SECONDARY", "AXIAL"]),
        (["DERIVED", "PRIMARY", "LOCALIZER"], ["DERIVED", "SECONDARY", "LOCALIZER"]),
        (["ORIGINAL", "PRIMARY"], ["DERIVED", "SECONDARY", "AXIAL"]),
        (None, ["DERIVED", "SECONDARY", "AXIAL"]),
        (["ORIGINAL", "PRIMARY", "axial;<b>"], ["DERIVED", "SECONDARY", "AXIAL"]),
    ],
)
def test_image_type(image_type: list[str] | None, expected: list[str]) -> None:
    assert list(_derived(ct_image(ImageType=image_type)).ImageType) == expected


def test_what_belongs_to_the_scanners_step_and_pixels_is_gone() -> None:
    source = ct_image(
        PerformedProcedureStepID="1",
        SmallestImagePixelValue=0,
        WaterEquivalentDiameter=200.0,
        OverlayDate="20240101",
        CommentsOnThePerformedProcedureStep="step",
        SourceImageSequence=Sequence([_item(ReferencedSOPInstanceUID="9.9.9", ReferencedSOPClassUID=CTImageStorage)]),
        IconImageSequence=Sequence([_item(Rows=1)]),
        NumberOfFrames=1,
        DeviceSerialNumber="4711",
    )
    source.add_new(0x60000010, "US", 4)
    source.private_block(0x0009, "ACME", create=True).add_new(1, "LO", "secret")
    image = _derived(source)
    for keyword in ("PerformedProcedureStepID", "SmallestImagePixelValue", "WaterEquivalentDiameter", "OverlayDate",
                    "CommentsOnThePerformedProcedureStep", "IconImageSequence", "NumberOfFrames"):  # fmt: skip
        assert keyword not in image, keyword
    assert not any(tag.is_private or tag.group == 0x6000 for tag in image.keys())  # noqa: SIM118
    assert "DeviceSerialNumber" not in image
    assert [item.ReferencedSOPInstanceUID for item in image.SourceImageSequence] == [SOP_INSTANCE_UID]


def test_derivation_of_a_denoised_image() -> None:
    image = _derived()
    assert image.DerivationDescription == "Noise reduction by ct-nlm@1.0.0 (numpy/float32; strength=0.8)."
    (code,) = image.DerivationCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("113087", "DCM", "Smoothing")
    assert "CodingSchemeIdentificationSequence" not in image


def test_derivation_of_a_chain_names_every_engine_and_our_coding_scheme() -> None:
    image = _derived(how=presentation(stages=(DENOISE, CONTRAST)))
    assert [code.CodeValue for code in image.DerivationCodeSequence] == ["113087", "CONTRAST"]
    (scheme,) = image.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == image.DerivationCodeSequence[1].CodingSchemeDesignator == "99DICOMNODE"
    assert "not HU" in image.DerivationDescription


def test_an_earlier_derivation_stays_as_history() -> None:
    image = _derived(ct_image(DerivationDescription="Größe angepasst " * 90))
    assert image.DerivationDescription.startswith("Noise reduction by ct-nlm@1.0.0")
    assert " Source: Größe angepasst" in image.DerivationDescription
    assert len(image.DerivationDescription) <= 1024


def test_unreadable_attributes_are_counted_not_fatal() -> None:
    source = as_read(ct_image())
    source["ProcedureCodeSequence"] = RawDataElement(Tag("ProcedureCodeSequence"), "UN", 8, b"garbage ", 0, False, True)
    image = read_back(derive_image(source, pixels(), derivation()))
    assert "ProcedureCodeSequence" not in image
    assert "1 unreadable attributes" in image.DerivationDescription


def test_sources_of_a_slicewise_engine() -> None:
    (source,) = _derived().SourceImageSequence
    assert (source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID) == (CTImageStorage, SOP_INSTANCE_UID)
    assert source.SpatialLocationsPreserved == "YES"
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"


def test_sources_of_a_volume_engine_are_all_and_the_own_slice_comes_first() -> None:
    uids = ["1.2.3.4.4", SOP_INSTANCE_UID, "1.2.3.4.6"]
    image = _derived(how=derivation(sources=tuple(SourceReference(CTImageStorage, uid) for uid in uids)))
    said = [(item.ReferencedSOPInstanceUID, item.SpatialLocationsPreserved) for item in image.SourceImageSequence]
    assert said == [(SOP_INSTANCE_UID, "YES"), ("1.2.3.4.4", "NO"), ("1.2.3.4.6", "NO")]
    (series,) = image.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.4"
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence] == uids


def test_a_source_must_be_among_the_sources() -> None:
    with pytest.raises(InputError):
        derive_image(ct_image(), pixels(), derivation(sources=(SourceReference(CTImageStorage, "1.2.9"),)))


def test_equipment_is_ours_and_the_scanner_contributed() -> None:
    earlier = _item(Manufacturer="Deid Inc", PurposeOfReferenceCodeSequence=Sequence([_item(CodeValue="109104")]))
    equipment = Equipment(manufacturer="Hospital", institution="St. Elsewhere", device_uid="2.25.77")
    image = _derived(
        ct_image(ContributingEquipmentSequence=Sequence([earlier]), DeviceSerialNumber="4711"),
        derivation(equipment=equipment),
    )
    assert (image.Manufacturer, image.ManufacturerModelName) == ("Hospital", "dicomnode")
    assert image.SoftwareVersions[1] == "ct-nlm@1.0.0 abababababababab"
    first, scanner, ours = image.ContributingEquipmentSequence
    assert first.Manufacturer == "Deid Inc"
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert (scanner.Manufacturer, scanner.ManufacturerModelName) == ("ACME", "Scan 9")
    assert scanner.DeviceSerialNumber == "4711"
    assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert (ours.DeviceUID, ours.InstitutionName) == ("2.25.77", "St. Elsewhere")
    assert ours.ContributionDateTime == "20240506223015.250000+0000"
    assert "ab" * 32 in ours.ContributionDescription


def test_of_a_derived_source_the_scanner_is_named_once() -> None:
    once = derive_image(as_read(ct_image()), pixels(), derivation())
    again = _derived(
        once, derivation(sop_instance_uid="2.25.21", sources=(SourceReference(CTImageStorage, "2.25.11"),))
    )
    purposes = [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in again.ContributingEquipmentSequence]
    assert purposes == ["109101", "109102", "109102", "109102"]


def test_equipment_without_a_manufacturer_is_unknown() -> None:
    scanner = _derived(ct_image(Manufacturer=None)).ContributingEquipmentSequence[0]
    assert scanner.Manufacturer == "unknown"


@pytest.mark.parametrize(
    ("zone", "day", "clock"),
    [
        ("+0530", "20240507", "040015.250000"),
        ("-0800", "20240506", "143015.250000"),
        (None, "20240506", "223015.250000"),
        ("+2500", "20240506", "223015.250000"),
        ("Berlin", "20240506", "223015.250000"),
    ],
)
def test_new_times_are_in_the_sources_time_zone(zone: str | None, day: str, clock: str) -> None:
    image = _derived(ct_image(TimezoneOffsetFromUTC=zone))
    for kind in ("Series", "Content", "InstanceCreation"):
        assert (image[f"{kind}Date"].value, image[f"{kind}Time"].value) == (day, clock)
    assert image.StudyDate == "20240101"


def test_marks_of_research_and_of_a_product() -> None:
    image = _derived()
    assert image.ContentQualification == "RESEARCH"
    assert "Not for diagnostic use" in image.ImageComments
    product = _derived(how=derivation(content_qualification="PRODUCT"))
    assert product.ContentQualification == "PRODUCT"
    assert "diagnostic" not in product.ImageComments


def test_series_description_and_number() -> None:
    image = _derived()
    assert image.SeriesDescription == "AI ct-nlm Thorax 1.0"
    assert image.SeriesNumber == 3700
    long = _derived(ct_image(SeriesDescription="Ü" * 64), derivation(series=SeriesLabel("rési\\due ", 1)))
    assert long.SeriesDescription == "r?si?due " + "Ü" * 55


@given(st.one_of(st.integers(-(2**40), 2**40).map(str), st.text(max_size=14)), st.integers(0, 9999))
def test_series_numbers_fit_is(source: str, offset: int) -> None:
    number = series_number(source, offset)
    assert offset <= number <= 2**31 - 1
    assert number % 1000 == offset % 1000


@pytest.mark.parametrize(
    ("source", "number"), [("3", 3701), ("", 701), ("seven", 701), ("3000522", 1000522701), (" 12 ", 12701)]
)
def test_series_number(source: str, number: int) -> None:
    assert series_number(source, 701) == number


@pytest.mark.parametrize(("dtype", "signed"), [("uint16", 0), ("int16", 1), ("uint8", 0)])
def test_pixels_and_their_description(dtype: str, signed: int) -> None:
    source = ct_image(PixelRepresentation=signed, BitsStored=8 if dtype == "uint8" else 12)
    image = _derived(source, values=pixels(dtype))
    assert image.PixelRepresentation == signed
    assert image.BitsAllocated == np.dtype(dtype).itemsize * 8
    assert image.HighBit == image.BitsStored - 1 == source.BitsStored - 1
    np.testing.assert_array_equal(image.pixel_array, pixels(dtype))


def test_a_denoised_image_keeps_scale_and_windows() -> None:
    source = as_read(ct_image(WindowCenter=["40", "-600.0"], WindowWidth=["400", "1500"]))
    image = read_back(derive_image(source, pixels(), derivation()))
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth"):
        assert value_bytes(image, keyword) == value_bytes(source, keyword)


def test_a_presentation_image_has_no_unit_and_one_window() -> None:
    values = _item(RealWorldValueSlope=1.0)
    source = ct_image(
        VOILUTFunction="SIGMOID", RealWorldValueMappingSequence=Sequence([values]), PixelRepresentation=1, BitsStored=16
    )
    image = _derived(source, presentation())
    assert (image.RescaleSlope, image.RescaleIntercept, image.RescaleType) == (1, 0, "US")
    assert (image.WindowCenter, image.WindowWidth) == (2048, 4096)
    assert (image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation) == (16, 12, 11, 0)
    assert "VOILUTFunction" not in image
    assert "RealWorldValueMappingSequence" not in image


def test_mr_keeps_a_rescale_that_its_iod_lacks_and_gets_none_for_presentation() -> None:
    source = ct_image(SOPClassUID=MRImageStorage, Modality="MR", RescaleType=None)
    sources = (SourceReference(MRImageStorage, SOP_INSTANCE_UID),)
    assert _derived(source, derivation(sources=sources)).RescaleIntercept == -1024
    assert "RescaleSlope" not in _derived(source, presentation(sources=sources))


@pytest.mark.parametrize(("signed", "bits", "expected"), [(0, 63536, 63536), (1, 63536, -2000)])
def test_padding_keeps_its_bits_under_the_vr_that_fits(signed: int, bits: int, expected: int) -> None:
    source = as_read(ct_image(PixelRepresentation=signed))
    source.add_new("PixelPaddingValue", "US", bits)  # written against Pixel Representation, as scanners do
    image = read_back(derive_image(source, pixels("int16" if signed else "uint16"), derivation()))
    assert image.PixelPaddingValue == expected
    assert ("SS" if signed else "US") == image["PixelPaddingValue"].VR


@pytest.mark.parametrize(("photometric", "darkest"), [("MONOCHROME2", 0), ("MONOCHROME1", 4095)])
def test_padding_of_a_presentation_image_is_the_darkest_value(photometric: str, darkest: int) -> None:
    source = ct_image(PixelRepresentation=1, PhotometricInterpretation=photometric)
    source.add_new("PixelPaddingValue", "SS", -2000)
    source.add_new("PixelPaddingRangeLimit", "SS", -1990)
    assert presentation_padding(source) == darkest
    image = _derived(source, presentation())
    assert image.PixelPaddingValue == darkest
    assert "PixelPaddingRangeLimit" not in image
    assert image.PhotometricInterpretation == photometric


def test_lossy_compression_is_never_forgotten() -> None:
    marked = ct_image(LossyImageCompression="01", LossyImageCompressionRatio="12.5")
    marked.LossyImageCompressionMethod = "ISO_15444_1"
    image = _derived(marked)
    assert image.LossyImageCompression == "01"
    assert (image.LossyImageCompressionRatio, image.LossyImageCompressionMethod) == (12.5, "ISO_15444_1")
    unmarked = as_read(ct_image(LossyImageCompression="00"))
    unmarked.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    assert read_back(derive_image(unmarked, pixels(), derivation())).LossyImageCompression == "01"


def test_synthetic_stays_synthetic() -> None:
    assert _derived(ct_image(SyntheticData="YES")).SyntheticData == "YES"


def test_type_2_attributes_that_the_source_lacks_are_there_empty() -> None:
    image = _derived(ct_image(PatientID=None, SliceThickness=None))
    assert image["PatientID"].is_empty
    assert image["SliceThickness"].is_empty
    assert image["PatientSex"].is_empty


def test_a_private_scaling_of_mr_is_said_to_be_lost() -> None:
    source = ct_image(SOPClassUID=MRImageStorage, Modality="MR")
    source.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 1.5)
    image = _derived(source, derivation(sources=(SourceReference(MRImageStorage, SOP_INSTANCE_UID),)))
    assert "Private attributes" in image.DerivationDescription


def test_an_empty_character_set_does_no_harm() -> None:
    source = as_read(ct_image(SpecificCharacterSet=""))
    assert "SpecificCharacterSet" not in read_back(derive_image(source, pixels(), derivation()))


@pytest.mark.parametrize("name", ["undefined", "idna", "rot13", "hex"])
def test_a_character_set_that_is_a_python_codec_is_none(name: str) -> None:
    """pydicom looks any name up among Python's codecs, of which some refuse everything."""
    source = as_read(ct_image(PatientName="Müller", SpecificCharacterSet="ISO_IR 100"))
    source["SpecificCharacterSet"] = DataElement("SpecificCharacterSet", "CS", name)
    image = derive_image(source, pixels(), derivation())
    written = BytesIO()
    image.save_as(written, enforce_file_format=True)
    assert "Müller".encode("latin-1") in written.getvalue()


def test_same_input_same_bytes_and_the_source_is_left_alone() -> None:
    source = as_read(ct_image())
    before = written(source)
    first = written(derive_image(source, pixels(), derivation()))
    assert first == written(derive_image(source, pixels(), derivation()))
    assert first == written(derive_image(as_read(ct_image()), pixels(), derivation()))
    assert written(source) == before


@pytest.mark.parametrize(
    ("changed", "values", "how"),
    [
        ({"SOPClassUID": DigitalXRayImageStorageForProcessing}, pixels(), derivation()),
        ({"PhotometricInterpretation": "RGB"}, pixels(), derivation()),
        ({}, pixels("uint32"), derivation()),
        ({}, pixels().reshape(1, 4, 6), derivation()),
        ({}, pixels(), derivation(stages=(replace(DENOISE, operation="dream"),))),
    ],
)
def test_what_nothing_is_derived_from(changed: dict[str, Any], values: Any, how: Any) -> None:
    with pytest.raises(UnsupportedError) as refused:
        derive_image(as_read(ct_image(**changed)), values, how)
    assert refused.value.hint


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_object_without_its_uids_is_refused(keyword: str) -> None:
    source = ct_image()
    del source[keyword]
    with pytest.raises(InputError):
        derive_image(source, pixels(), derivation())


def test_hostile_settings_stay_text() -> None:
    stage = Stage("x@1", "0" * 64, "numpy", "denoise", {"name": "\n\\$(id)\x00Ä" + "x" * 2000})
    image = _derived(
        ct_image(SOPClassUID=ComputedRadiographyImageStorage, Modality="CR"),
        derivation(stages=(stage,), sources=(SourceReference(ComputedRadiographyImageStorage, SOP_INSTANCE_UID),)),
    )
    assert len(image.DerivationDescription) == 1024
    assert "??$(id)??" in image.DerivationDescription
