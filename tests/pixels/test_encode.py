"""Derived files from real series: valid, in place, reproducible, and true to their sources byte for byte."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.filewriter import dcmwrite
from pydicom.uid import RLELossless

from dicomnode.core.derive.elements import held, value_bytes
from dicomnode.core.derive.image import derive_image
from dicomnode.core.identity import INSTANCE_CREATOR_UID
from dicomnode.core.volumes import SlicePixels
from dicomnode.errors import InputError, UnsupportedError
from dicomnode.pixels.encode import derive_stack, presentation_values
from dicomnode.pixels.read import read_dataset
from dicomnode.pixels.service import decode_stack
from dicomnode.testing.objects import validation_errors
from engines.volume import Volume, load_volume, save_volume
from tests.core.derive.sources import as_read, ct_image, derivation, pixels, written
from tests.shared import shared_data

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of what real scanners write

SERIES = ("head_ge", "kits00072", "lidc0002", "lidc0003")
SINGLE = ("control/CT_small.dcm", "control/MR_small.dcm", "multiframe_odd/MR-SIEMENS-DICOM-WithOverlays.dcm")
CREATED_AT = 1714990000.5
GEOMETRY = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SliceLocation",
    "SpacingBetweenSlices", "FrameOfReferenceUID", "PositionReferenceIndicator", "GantryDetectorTilt", "TableHeight",
    "PatientPosition", "Rows", "Columns", "InstanceNumber",
)  # fmt: skip

Voxels = NDArray[np.float32]


@dataclass
class Made:
    sources: list[Path]
    volume: Volume
    series_instance_uid: str
    instances: list[dict[str, str]]

    @property
    def files(self) -> list[Path]:
        return [Path(instance["path"]) for instance in self.instances]


def _stage(**changes: Any) -> dict[str, Any]:
    return {
        "engine": "ct-nlm", "version": "1.0.0", "card_digest": "ab" * 32, "runtime": "numpy/float32",
        "operation": "denoise", "influence": "slice", "settings": {"strength": 0.8}, "presentation": False,
        "unit": "HU", **changes,
    }  # fmt: skip


DENOISED = (_stage(),)
ENHANCED = (_stage(engine="contrast-glcae", operation="contrast", settings={}, presentation=True, unit="arbitrary"),)


def _smoothed(voxels: Voxels) -> Voxels:
    return (voxels + np.roll(voxels, 1, axis=-1)) / 2


def _levels(voxels: Voxels) -> Voxels:
    return np.interp(voxels, (voxels.min(), voxels.max()), (0, 4095)).astype(np.float32)


def _unchanged(voxels: Voxels) -> Voxels:
    return voxels


def _made(
    sources: Sequence[Path],
    folder: Path,
    engine: Callable[[Voxels], Voxels] = _smoothed,
    stages: Sequence[Mapping[str, Any]] = DENOISED,
    **changes: Any,
) -> Made:
    volume, result, out = (folder / name for name in ("volume", "result", "out"))
    for made in (volume, result, out):
        made.mkdir(parents=True)
    digests = decode_stack([str(path) for path in sources], str(volume))["digests"]
    decoded = load_volume(volume)
    save_volume(decoded.with_voxels(engine(np.asarray(decoded.voxels)).astype(np.float32)), result)
    given: dict[str, Any] = {
        "sources": [str(path) for path in sources], "digests": digests, "stack_key": "axial", "result": str(result),
        "stages": stages, "series": {"description_prefix": "AI ", "number_offset": 700},
        "equipment": {"manufacturer": "dicomnode", "institution": "", "device_uid": "2.25.7", "software_version": "1"},
        "content_qualification": "RESEARCH", "created_at": CREATED_AT, "out": str(out),
    }  # fmt: skip
    answer = derive_stack(**{**given, **changes})
    return Made(list(sources), decoded, answer["series_instance_uid"], answer["instances"])


def _series(name: str, slices: int = 3) -> list[Path]:
    return sorted(shared_data(f"ct/dicom/{name}").glob("*.dcm"))[:slices]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"card_digest": "cd" * 32}, True),  # the house's limits changed in a release, and the bundle did not
        ({"bundle": "ef" * 32}, False),
        ({"runtime": "openvino-2026.4/bfloat16"}, False),
        ({"settings": {"strength": 0.5}}, False),
        ({"bundle": ""}, False),
    ],
)
def test_a_bundle_is_known_by_its_own_digest(changes: dict[str, Any], same: bool, tmp_path: Path) -> None:
    sources = _series("lidc0002", 2)
    made = _made(sources, tmp_path / "one", stages=(_stage(bundle="0b" * 32),))
    again = _made(sources, tmp_path / "two", stages=(_stage(**{"bundle": "0b" * 32, **changes}),))
    for one, other in zip(made.instances, again.instances, strict=True):
        assert (one["sop_instance_uid"] == other["sop_instance_uid"]) == same
    assert (made.series_instance_uid == again.series_instance_uid) == same
    equipment = str(dcmread(made.files[0]).ContributingEquipmentSequence)
    assert "0b" * 32 in equipment and "ab" * 32 not in equipment


def _with_a_legal_uid(source: Path, folder: Path) -> Path:
    """A copy whose SOP Instance UID is legal, since a derived image quotes its source's."""
    image = dcmread(source)
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "2.25.4711"
    copy = folder / "legal.dcm"
    dcmwrite(copy, image)
    return copy


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize(
    ("engine", "stages"), [(_smoothed, DENOISED), (_levels, ENHANCED)], ids=["denoised", "enhanced"]
)
def test_ct_has_no_error_that_its_source_lacks(name: str, engine: Any, stages: Any, tmp_path: Path) -> None:
    made = _made(_series(name), tmp_path, engine, stages)
    for source, derived in zip(made.sources, made.files, strict=True):
        assert validation_errors(derived) - validation_errors(source) == set()


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("influence", ["slice", "volume"])
def test_a_chain_has_no_error_that_its_source_lacks(influence: str, tmp_path: Path) -> None:
    chain = (_stage(influence=influence), *ENHANCED)
    made = _made(_series("lidc0002"), tmp_path, _levels, chain)
    assert validation_errors(made.files[0]) - validation_errors(made.sources[0]) == set()


@pytest.mark.peer("dciodvfy")
def test_a_series_that_replaces_another_names_it_and_has_no_error_that_its_source_lacks(tmp_path: Path) -> None:
    own = _made(_series("lidc0002"), tmp_path / "own").series_instance_uid
    made = _made(_series("lidc0002"), tmp_path / "replacing", replaces=["2.25.99", own])
    for source, derived in zip(made.sources, made.files, strict=True):
        assert validation_errors(derived) - validation_errors(source) == set()
        image = dcmread(derived)
        assert [item.SeriesInstanceUID for item in image.RelatedSeriesSequence] == ["2.25.99"], "itself it is not"
        assert "Replaces series 2.25.99." in image.DerivationDescription
        assert image.CodingSchemeIdentificationSequence[-1].CodingSchemeDesignator == "99DICOMNODE"


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("name", [*SINGLE, "multiframe_odd/CR-ModalitySequenceLUT.dcm"])
@pytest.mark.parametrize(
    ("engine", "stages"), [(_smoothed, DENOISED), (_levels, ENHANCED)], ids=["denoised", "enhanced"]
)
def test_mr_and_cr_have_no_error_that_their_source_lacks(name: str, engine: Any, stages: Any, tmp_path: Path) -> None:
    source = _with_a_legal_uid(shared_data(f"dicom/{name}"), tmp_path)
    made = _made([source], tmp_path / "made", engine, stages)
    assert validation_errors(made.files[0]) - validation_errors(source) == set()


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize(
    ("engine", "stages"), [(_smoothed, DENOISED), (_levels, ENHANCED)], ids=["denoised", "enhanced"]
)
def test_place_and_patient_are_the_sources_bytes(name: str, engine: Any, stages: Any, tmp_path: Path) -> None:
    made = _made(_series(name, 2), tmp_path, engine, stages)
    for source, derived in zip(made.sources, made.files, strict=True):
        before, after = read_dataset(source, with_pixels=False), read_dataset(derived, with_pixels=False)
        for keyword in GEOMETRY:
            assert value_bytes(after, keyword) == value_bytes(before, keyword), keyword
        for element in after.group_dataset(0x0010):
            assert value_bytes(after, element.keyword) == value_bytes(before, element.keyword), element.keyword


@pytest.mark.parametrize("name", SERIES)
def test_an_engine_that_changes_nothing_changes_no_stored_value(name: str, tmp_path: Path) -> None:
    made = _made(_series(name, 2), tmp_path, _unchanged)
    for source, derived in zip(made.sources, made.files, strict=True):
        np.testing.assert_array_equal(dcmread(derived).pixel_array, dcmread(source).pixel_array)


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_image_round_trips_in_its_own_representation(name: str, tmp_path: Path) -> None:
    made = _made([shared_data(f"dicom/{name}")], tmp_path, _unchanged)
    source, derived = dcmread(made.sources[0]), dcmread(made.files[0])
    assert derived.PixelRepresentation == source.PixelRepresentation
    assert derived.BitsStored == source.BitsStored
    assert derived.pixel_array.dtype == source.pixel_array.dtype


def test_hu_are_what_the_engine_gave_and_padding_is_restored(tmp_path: Path) -> None:
    made = _made(_series("lidc0002", 2), tmp_path, lambda voxels: voxels + 10)
    for index, path in enumerate(made.files):
        image, source = dcmread(path), dcmread(made.sources[index])
        padded = source.pixel_array == source.PixelPaddingValue
        assert padded.any()
        assert (image.pixel_array[padded] == source.PixelPaddingValue).all()
        hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        np.testing.assert_array_equal(hu[~padded], made.volume.voxels[index][~padded] + 10)


def test_a_presentation_image_pads_with_what_nothing_else_is(tmp_path: Path) -> None:
    made = _made(_series("lidc0002", 1), tmp_path, _levels, ENHANCED)
    image, source = dcmread(made.files[0]), dcmread(made.sources[0])
    assert image.PixelPaddingValue == 0
    np.testing.assert_array_equal(image.pixel_array == 0, source.pixel_array == source.PixelPaddingValue)
    assert image.pixel_array.max() == 4095
    assert image.SeriesDescription == "AI contrast-glcae not HU"


def test_monochrome1_keeps_its_polarity(tmp_path: Path) -> None:
    made = _made([shared_data("dicom/multiframe_odd/CR-ModalitySequenceLUT.dcm")], tmp_path, _levels, ENHANCED)
    image, source = dcmread(made.files[0]), dcmread(made.sources[0])
    assert image.PhotometricInterpretation == "MONOCHROME1"
    assert np.corrcoef(image.pixel_array.ravel(), source.pixel_array.ravel())[0, 1] > 0.99
    assert image.file_meta.TransferSyntaxUID.is_compressed is False


def test_what_is_answered_is_what_is_written(tmp_path: Path) -> None:
    made = _made(_series("kits00072"), tmp_path)
    assert [path.name for path in made.files] == ["000000.dcm", "000001.dcm", "000002.dcm"]
    for instance, source in zip(made.instances, made.sources, strict=True):
        image = dcmread(instance["path"])
        assert image.SOPInstanceUID == instance["sop_instance_uid"]
        assert image.SOPClassUID == instance["sop_class_uid"]
        assert image.file_meta.TransferSyntaxUID == instance["transfer_syntax_uid"]
        assert image.SourceImageSequence[0].ReferencedSOPInstanceUID == instance["source_sop_instance_uid"]
        assert instance["source_sop_instance_uid"] == dcmread(source).SOPInstanceUID
        assert image.SeriesInstanceUID == made.series_instance_uid
        assert image.InstanceCreatorUID == INSTANCE_CREATOR_UID
        assert image.SeriesDescription == "AI ct-nlm arterial"
        assert image.SeriesNumber == 2700
    assert len({instance["sop_instance_uid"] for instance in made.instances}) == 3


def test_files_are_reproducible_byte_for_byte(tmp_path: Path) -> None:
    sources = _series("head_ge", 2)
    first, again = _made(sources, tmp_path / "a"), _made(sources, tmp_path / "b")
    assert [path.read_bytes() for path in first.files] == [path.read_bytes() for path in again.files]
    later = _made(sources, tmp_path / "c", created_at=CREATED_AT + 3600)
    assert later.series_instance_uid == first.series_instance_uid
    changed = {
        element.keyword for element in dcmread(later.files[0]) if element != dcmread(first.files[0]).get(element.tag)
    }
    assert changed <= {"InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime", "ContentDate",
                       "ContentTime", "ContributingEquipmentSequence"}  # fmt: skip


def test_a_late_slice_adds_to_a_slicewise_series_and_renews_a_volume_series(tmp_path: Path) -> None:
    sources = _series("kits00072")
    few, all_of_them = _made(sources[:2], tmp_path / "a"), _made(sources, tmp_path / "b")
    assert few.series_instance_uid == all_of_them.series_instance_uid
    assert [path.read_bytes() for path in few.files] == [path.read_bytes() for path in all_of_them.files[:2]]
    volume = [_stage(influence="volume")]
    few = _made(sources[:2], tmp_path / "c", stages=volume)
    all_of_them = _made(sources, tmp_path / "d", stages=volume)
    assert few.series_instance_uid != all_of_them.series_instance_uid
    ours, theirs = ({one["sop_instance_uid"] for one in made.instances} for made in (few, all_of_them))
    assert not ours & theirs
    assert [len(dcmread(path).SourceImageSequence) for path in all_of_them.files] == [3, 3, 3]


def test_a_corrected_patient_in_another_transfer_syntax_changes_no_uid(tmp_path: Path) -> None:
    sources = _series("lidc0002", 2)
    first, resent = _made(sources, tmp_path / "a"), []
    for source in sources:
        image = dcmread(source)
        image.PatientName, image.PatientID, image.StudyDescription = "Corrected^Name", "P2", "Other"
        image.compress(RLELossless, generate_instance_uid=False)
        resent.append(tmp_path / source.name)
        image.save_as(resent[-1])
    again = _made(resent, tmp_path / "b")
    assert again.series_instance_uid == first.series_instance_uid
    assert [one["sop_instance_uid"] for one in again.instances] == [one["sop_instance_uid"] for one in first.instances]
    assert dcmread(again.files[0]).PatientName == "Corrected^Name"


def test_a_result_that_does_not_fit_its_stack_is_refused(tmp_path: Path) -> None:
    sources = _series("kits00072", 2)
    with pytest.raises(InputError):
        _made(sources, tmp_path / "a", lambda voxels: voxels[:1])
    with pytest.raises(InputError):
        _made(sources, tmp_path / "b", lambda voxels: voxels * np.float32("nan"))


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize(
    ("engine", "stages"), [(_smoothed, DENOISED), (_levels, ENHANCED)], ids=["denoised", "enhanced"]
)
def test_dcmtk_reads_it_without_complaint(engine: Any, stages: Any, tmp_path: Path) -> None:
    made = _made(_series("lidc0003", 1), tmp_path, engine, stages)
    dumped = subprocess.run(["dcmdump", "-q", "+L", made.files[0]], capture_output=True, check=True)
    assert dumped.stderr == b""
    assert made.instances[0]["sop_instance_uid"].encode() in dumped.stdout


@pytest.mark.parametrize("name", ["injection_tags", "overlong_lo"])
def test_hostile_text_survives_byte_for_byte_and_stays_text(name: str, tmp_path: Path) -> None:
    made = _made([shared_data(f"dicom/hostile/{name}.dcm")], tmp_path)
    before = read_dataset(made.sources[0], with_pixels=False)
    after = read_dataset(made.files[0], with_pixels=False)
    for keyword in ("PatientName", "PatientID", "StudyDescription", "StudyID", "AccessionNumber"):
        assert value_bytes(after, keyword) == value_bytes(before, keyword), keyword
    described = value_bytes(before, "SeriesDescription").strip()
    assert value_bytes(after, "SeriesDescription").strip() == (b"AI ct-nlm " + described).strip()
    assert [path.name for path in made.files] == ["000000.dcm"]


CHARACTER_SETS = ("MarekLatin2", "SCSX1", "chrArab", "chrGB2312", "chrH31", "chrH32", "chrHbrw", "chrJapMulti",
                  "chrKoreanMulti", "chrRuss", "chrSQEncoding", "chrX1", "chrX2")  # fmt: skip


@pytest.mark.parametrize("name", CHARACTER_SETS)
def test_text_of_every_character_set_survives_byte_for_byte(name: str) -> None:
    """The files' patients, put on a CT image: most of the files are no images."""
    named = read_dataset(shared_data(f"dicom/charset/{name}.dcm"), with_pixels=False)
    source = as_read(ct_image())
    texts = [tag for tag in named.keys() if tag == 0x00080005 or (tag.group == 0x0010 and tag.element)]  # noqa: SIM118
    for tag in texts:
        source[tag] = held(named, tag)
    file = written(derive_image(source, pixels(), derivation()))
    assert texts
    for tag in texts:
        assert held(named, tag).value.strip(b" \0") in file


@settings(deadline=None, max_examples=60)
@given(
    arrays.arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)),
    arrays.arrays(np.int32, (3, 4), elements=st.sampled_from([-2000, 0, 7])),
    st.booleans(),
    st.sampled_from([None, (-2000, -2000)]),
)
def test_presentation_values(levels: Any, source: Any, inverted: bool, padding: Any) -> None:
    meaning = SlicePixels(1.0, 0.0, "arbitrary", inverted, 16, True, padding, None)
    dark = 4095 if inverted else 0
    values = presentation_values(levels, source, meaning, dark)
    assert values.dtype == np.uint16
    assert values.max() <= 4095
    if padding is not None:
        np.testing.assert_array_equal(values == dark, source == -2000)
    else:
        expected = np.rint(np.clip(levels, 0, 4095))
        np.testing.assert_array_equal(values, 4095 - expected if inverted else expected)


def test_an_object_of_a_class_that_nothing_is_derived_from(tmp_path: Path) -> None:
    image = dcmread(shared_data("dicom/control/CT_small.dcm"))
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1.1"
    dcmwrite(tmp_path / "dx.dcm", image)
    with pytest.raises(UnsupportedError, match=r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.1\.1\.1"):
        _made([tmp_path / "dx.dcm"], tmp_path / "made")
