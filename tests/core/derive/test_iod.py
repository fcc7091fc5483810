"""The copied tables against the ones that highdicom ships, and what the policy makes of them."""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DigitalXRayImageStorageForProcessing, EnhancedCTImageStorage, SecondaryCaptureImageStorage

from dicomnode.core.derive.elements import tag_of
from dicomnode.core.derive.iod import SOP_CLASSES, fill_type_2, iod_of, kept_tags
from dicomnode.core.derive.standard import IODS, MODULES, TYPE_2
from dicomnode.errors import UnsupportedError


def _table(name: str) -> Any:
    if not version("highdicom").startswith("0.28."):
        pytest.skip("the tables were taken from highdicom 0.28; another version may follow a later edition")
    package = find_spec("highdicom")
    assert package is not None
    assert package.origin is not None
    return json.loads((Path(package.origin).parent / "_standard" / f"{name}.json").read_text())


def test_tables_are_the_standards() -> None:
    modules_of, attributes_of = _table("iod_module_map"), _table("module_attribute_map")
    assert all(iod == _table("sop_class_iod_map")[sop_class] for sop_class, iod in SOP_CLASSES.items())
    for iod, modules in IODS.items():
        assert {entry["key"] for entry in modules_of[iod]} - {"overlay-plane"} == set(modules.split())
        mandatory = [attributes_of[entry["key"]] for entry in modules_of[iod] if entry["usage"] == "M"]
        type_2 = {a["keyword"] for module in mandatory for a in module if not a["path"] and a["type"] == "2"}
        assert type_2 == set(TYPE_2[iod].split())
    for module, keywords in MODULES.items():
        assert [a["keyword"] for a in attributes_of[module] if not a["path"]] == keywords.split()


@pytest.mark.parametrize("iod", IODS)
def test_identity_place_and_technique_are_kept(iod: str) -> None:
    kept = kept_tags(iod, presentation=False)
    for keyword in ("PatientName", "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "AccessionNumber", "StudyID",
                    "StudyInstanceUID", "RequestAttributesSequence", "ReferencedImageSequence", "AcquisitionDate",
                    "PixelSpacing", "RescaleSlope", "WindowCenter", "LossyImageCompression", "SyntheticData",
                    "BurnedInAnnotation", "PixelPaddingValue", "Laterality", "BodyPartExamined"):  # fmt: skip
        assert tag_of(keyword) in kept, keyword


@pytest.mark.parametrize("iod", IODS)
@pytest.mark.parametrize("presentation", [False, True])
def test_what_is_untrue_of_a_derived_image_is_dropped(iod: str, presentation: bool) -> None:
    kept = kept_tags(iod, presentation)
    for keyword in ("PerformedProcedureStepID", "SourceImageSequence", "SmallestImagePixelValue", "IconImageSequence",
                    "DigitalSignaturesSequence", "StationName", "DeviceSerialNumber", "WaterEquivalentDiameter",
                    "OriginalAttributesSequence", "PixelData", "ICCProfile"):  # fmt: skip
        assert tag_of(keyword) not in kept, keyword
    assert (tag_of("RescaleSlope") in kept) is not presentation
    assert not any(tag.is_private or 0x6000 <= tag.group <= 0x60FF for tag in kept)


@pytest.mark.parametrize(
    "sop_class",
    [DigitalXRayImageStorageForProcessing, EnhancedCTImageStorage, SecondaryCaptureImageStorage, "", "1.2.3"],
)
def test_other_classes_are_refused(sop_class: str) -> None:
    with pytest.raises(UnsupportedError) as refused:
        iod_of(sop_class)
    assert refused.value.hint


def test_type_2_is_filled_and_nothing_overwritten() -> None:
    image = Dataset()
    image.PatientName = "Doe^Jane"
    fill_type_2(image, "ct-image")
    assert image.PatientName == "Doe^Jane"
    assert image["PatientSex"].is_empty
    assert image["AcquisitionNumber"].VR == "IS"
