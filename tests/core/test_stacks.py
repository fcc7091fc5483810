"""How a series falls apart into stacks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.core.headers import value
from dicomnode.core.stacks import (
    CR_IMAGE,
    CT_IMAGE,
    ENHANCEABLE,
    MR_IMAGE,
    STACK_KEYWORDS,
    slice_of,
    split_stacks,
)
from dicomnode.core.types import Slice, Stack
from dicomnode.pixels.read import read_header
from tests.shared import shared_data

AXIAL = ("1", "0", "0", "0", "1", "0")


def ct(number: int, z_mm: float, sop_class_uid: str = CT_IMAGE, **attributes: str | tuple[str, ...] | None) -> Slice:
    header = {
        "Modality": ("CT",),
        "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "Rows": ("64",),
        "Columns": ("64",),
        "PixelSpacing": ("0.7", "0.7"),
        "ImagePositionPatient": ("0", "0", str(z_mm)),
        "ImageOrientationPatient": AXIAL,
        "InstanceNumber": (str(number),),
    }
    for keyword, given_value in attributes.items():
        header.pop(keyword, None)
        if given_value is not None:
            header[keyword] = (given_value,) if isinstance(given_value, str) else given_value
    return slice_of(number, f"1.2.{number}", sop_class_uid, header)


def members(stacks: Sequence[Stack]) -> list[list[int]]:
    return [[placed.instance_id for placed in stack.slices] for stack in stacks]


def series(name: str) -> tuple[Stack, ...]:
    return split_stacks([_read(index, path) for index, path in enumerate(sorted(shared_data(name).iterdir()))])


def _read(index: int, path: Path) -> Slice:
    header = read_header(path, STACK_KEYWORDS | {"SOPInstanceUID", "SOPClassUID"})
    return slice_of(index, value(header, "SOPInstanceUID"), value(header, "SOPClassUID"), header)


def test_sorted_by_position_along_the_normal_not_by_number() -> None:
    (stack,) = split_stacks([ct(1, 10), ct(2, -5), ct(3, 0), ct(4, 5)])
    assert members([stack]) == [[2, 3, 4, 1]]
    assert (stack.step_mm, stack.regular, stack.excluded) == (5, True, "")


def test_a_gap_is_kept_and_said() -> None:
    (stack,) = split_stacks([ct(1, 0), ct(2, 5), ct(3, 15), ct(4, 20)])
    assert (stack.step_mm, stack.regular) == (5, False)


@pytest.mark.parametrize(
    ("keyword", "given_value"),
    [
        ("ImageOrientationPatient", ("1", "0", "0", "0", "0", "-1")),
        ("Rows", "32"),
        ("PixelSpacing", ("0.8", "0.8")),
        ("ImageType", ("ORIGINAL", "PRIMARY", "OTHER")),
        ("ImageType", ("DERIVED", "PRIMARY", "AXIAL")),
        ("EchoNumbers", "2"),
        ("TemporalPositionIdentifier", "2"),
        ("DiffusionBValue", "1000"),
    ],
)
def test_what_always_separates(keyword: str, given_value: str | tuple[str, ...]) -> None:
    assert len(split_stacks([ct(1, 0), ct(2, 5), ct(3, 10, **{keyword: given_value})])) == 2


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImageOrientationPatient": ("0.9999998", "0", "-1e-7", "0", "1", "-0")},
        {"PixelSpacing": ("0.70000", "7e-1")},
        {"FrameOfReferenceUID": "1.2.3"},
        {"AcquisitionNumber": "7"},
        {"ImageType": ("ORIGINAL", "PRIMARY", "AXIAL", "ADD")},
    ],
)
def test_what_never_separates_slices_at_different_places(attributes: dict[str, str | tuple[str, ...]]) -> None:
    assert members(split_stacks([ct(1, 0), ct(2, 5, **attributes), ct(3, 10)])) == [[1, 2, 3]]


def test_jitter_of_the_orientation_that_crosses_a_rounding_step() -> None:
    tilted = [("1", "0", "0", "0", cosine, "0.31650") for cosine in ("0.9484999", "0.9485001", "0.9485")]
    stacks = split_stacks([ct(i, 5 * i, ImageOrientationPatient=one) for i, one in enumerate(tilted)])
    assert members(stacks) == [[0, 1, 2]]


def test_an_acquisition_number_for_every_slice_is_one_stack() -> None:
    slices = [ct(i, 5 * i, AcquisitionNumber=str(i), AcquisitionTime=f"10000{i}.5") for i in range(8)]
    assert members(split_stacks(slices)) == [list(range(8))]


def test_two_phases_by_acquisition_number() -> None:
    slices = [ct(10 * phase + i, 5 * i, AcquisitionNumber=str(phase)) for phase in (1, 2) for i in range(4)]
    first, second = split_stacks(slices)
    assert members([first, second]) == [[10, 11, 12, 13], [20, 21, 22, 23]]
    assert second.key == f"{first.key} AcquisitionNumber=2"


def test_a_late_phase_does_not_rename_the_one_before() -> None:
    early = [ct(i, 5 * i, AcquisitionNumber="1") for i in range(4)]
    late = [ct(10 + i, 5 * i, AcquisitionNumber="2") for i in range(4)]
    assert split_stacks(early)[0].key == split_stacks(early + late)[0].key


def test_two_passes_in_which_every_slice_has_its_own_number() -> None:
    slices = [ct(10 * turn + i, 5 * i, AcquisitionNumber=str(10 * turn + i)) for turn in (1, 2) for i in range(5)]
    missing = [placed for placed in slices if placed.instance_id != 12]
    assert members(split_stacks(slices)) == [[10, 11, 12, 13, 14], [20, 21, 22, 23, 24]]
    assert members(split_stacks(missing)) == [[10, 11, 13, 14], [20, 21, 22, 23, 24]]


def test_two_energies_of_each_slice() -> None:
    slices = [ct(2 * i + energy, 5 * i, KVP=("80", "140")[energy]) for i in range(3) for energy in (0, 1)]
    assert members(split_stacks(slices)) == [[0, 2, 4], [1, 3, 5]]


def test_phases_that_nothing_tells_apart_go_by_instance_number() -> None:
    slices = [ct(number, 5 * (number // 3)) for number in range(9)]
    assert members(split_stacks(slices)) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_two_passes_out_of_step_are_not_one_irregular_stack() -> None:
    slices = [ct(10 * turn + i, 5 * i + 1.7 * turn, AcquisitionNumber=str(turn)) for turn in (0, 1) for i in range(4)]
    assert [stack.regular for stack in split_stacks(slices)] == [True, True]


def test_two_regions_of_one_series_stay_together() -> None:
    slices = [ct(10 * turn + i, 5 * i + 60 * turn, AcquisitionNumber=str(turn)) for turn in (0, 1) for i in range(4)]
    assert len(split_stacks(slices)) == 1


@pytest.mark.parametrize(
    ("placed", "reason"),
    [
        (ct(1, 0, ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER")), "localizer"),
        (ct(1, 0, ImageType=("DERIVED", "SECONDARY", "SCOUT")), "localizer"),
        (ct(1, 0, sop_class_uid="1.2.840.10008.5.1.4.1.1.88.22"), "not a CT, MR, CR or DX"),
        (ct(1, 0, sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1.1"), "not a CT, MR, CR or DX"),
        (ct(1, 0, Rows=None), "no pixel data"),
        (ct(1, 0, NumberOfFrames="20"), "multi-frame"),
        (ct(1, 0, SamplesPerPixel="3", PhotometricInterpretation="RGB"), "colour"),
        (ct(1, 0, PhotometricInterpretation="PALETTE COLOR"), "colour"),
        (ct(1, 0, ImagePositionPatient=None), "no usable position"),
        (ct(1, 0, ImagePositionPatient=("0", "0", "nan")), "no usable position"),
        (ct(1, 0, ImageOrientationPatient=("0", "0", "0", "0", "0", "0")), "no usable position"),
        (ct(1, 0, PixelSpacing=("0", "0.7")), "no usable pixel spacing"),
    ],
)
def test_excluded_with_its_reason(placed: Slice, reason: str) -> None:
    stacks = split_stacks([placed, ct(2, 5), ct(3, 10)])
    excluded = [stack for stack in stacks if stack.excluded]
    assert members(excluded) == [[1]]
    assert excluded[0].excluded.startswith(reason)
    assert members([stack for stack in stacks if not stack.excluded]) == [[2, 3]]


def test_each_projection_image_is_a_stack() -> None:
    nothing = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None}
    pair = [ct(number, 0, sop_class_uid=CR_IMAGE, ImagerPixelSpacing=("0.1", "0.1"), **nothing) for number in (1, 2)]
    stacks = split_stacks(pair)
    assert members(stacks) == [[1], [2]]
    assert all(stack.excluded == "" and stack.step_mm is None and stack.regular for stack in stacks)
    assert stacks[0].key == split_stacks(pair[:1])[0].key
    assert stacks[0].slices[0].pixel_spacing_mm == (0.1, 0.1)


def any_series() -> st.SearchStrategy[list[Slice]]:
    attributes = st.fixed_dictionaries(
        {},
        optional={
            "ImageOrientationPatient": st.sampled_from([AXIAL, ("1", "0", "0", "0", "0", "-1"), ("9",), None]),
            "ImageType": st.sampled_from([("ORIGINAL", "PRIMARY", "LOCALIZER"), ("ORIGINAL",), None]),
            "AcquisitionNumber": st.sampled_from(["1", "2", "x", "1.0"]),
            "AcquisitionTime": st.sampled_from(["100000", "100001.5", ""]),
            "InstanceNumber": st.sampled_from(["1", "2", None]),
            "EchoNumbers": st.sampled_from(["1", "2"]),
            "FrameOfReferenceUID": st.sampled_from(["1.2", "1.3"]),
        },
    )
    places = st.tuples(
        st.sampled_from([0.0, 0.005, 1.0, 2.5, 5.0, 10.0]), attributes, st.sampled_from([CT_IMAGE, CR_IMAGE])
    )
    return st.lists(places, min_size=1, max_size=14).map(
        lambda drawn: [ct(i, z, sop_class_uid=uid, **extra) for i, (z, extra, uid) in enumerate(drawn)]
    )


@settings(deadline=None)
@given(any_series(), st.data())
def test_no_order_changes_the_stacks_and_no_slice_is_lost(slices: list[Slice], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(slices))
    stacks = split_stacks(slices)
    assert split_stacks(shuffled) == stacks
    assert sorted(chain(*members(stacks))) == list(range(len(slices)))
    assert len({stack.key for stack in stacks}) == len(stacks)


@settings(deadline=None)
@given(st.sets(st.integers(0, 19), min_size=1))
def test_whichever_slices_arrived_the_key_is_the_same(arrived: set[int]) -> None:
    whole = [ct(i, 1.25 * i, AcquisitionNumber=str(i // 2), AcquisitionTime=f"1000{i:02}") for i in range(20)]
    assert {stack.key for stack in split_stacks([whole[i] for i in arrived])} == {split_stacks(whole)[0].key}


def test_thousands_of_slices_each_with_its_own_time() -> None:
    slices = [ct(2000 * k + i, i, AcquisitionTime=str(100000 + 5000 * k + i)) for k in (0, 1) for i in range(2000)]
    assert [len(stack.slices) for stack in split_stacks(slices)] == [2000, 2000]


@pytest.mark.parametrize(
    ("name", "sizes", "excluded"),
    [
        ("out_of_order", [6], 0),
        ("missing_slice", [7], 0),
        ("localizer_inside", [6], 1),
        ("duplicate_position", [4, 4], 0),
        ("multi_acquisition", [4, 4], 0),
        ("mixed_matrix_nonsquare", [3, 3], 0),
        ("mixed_orientation", [1, 1, 1, 3], 0),
        ("mixed_signedness", [4], 0),
        ("rescale_differs", [4], 0),
        ("no_instance_number", [4], 0),
        ("same_uid_other_content", [1, 1, 1], 0),
        ("no_geometry", [], 4),
    ],
)
def test_the_shared_series(name: str, sizes: list[int], excluded: int) -> None:
    stacks = series(f"dicom/series/{name}")
    assert sorted(len(stack.slices) for stack in stacks if not stack.excluded) == sizes
    assert sum(len(stack.slices) for stack in stacks if stack.excluded) == excluded


@pytest.mark.parametrize(
    ("name", "slices", "regular"),
    [
        ("ct/dicom/lidc0002", 12, True),
        ("ct/dicom/lidc0003", 11, True),
        ("ct/dicom/kits00072", 18, True),
        ("ct/dicom/head_ge", 28, False),  # a tilted gantry, two steps, a number for every rotation
        ("dicom/geometry/gantry_tilt_variable_spacing", 12, False),
        ("dicom/geometry/for_uid_per_slice", 8, False),
    ],
)
def test_the_shared_scans_are_one_stack_each(name: str, slices: int, regular: bool) -> None:
    (stack,) = series(name)
    assert (len(stack.slices), stack.regular, stack.excluded) == (slices, regular, "")


def test_mosaics_are_excluded() -> None:
    assert {stack.excluded for stack in series("dicom/geometry/siemens_mosaic")} == {
        "mosaic: several slices tiled in one image"
    }


def test_the_first_engines_take_four_classes() -> None:
    assert {CT_IMAGE, MR_IMAGE, CR_IMAGE} < ENHANCEABLE
    assert len(ENHANCEABLE) == 4
