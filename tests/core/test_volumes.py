"""Stored values, physical values, and back; volumes; the digest of a source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dicomnode.core.headers import header_of
from dicomnode.core.stacks import CR_IMAGE, CT_IMAGE, slice_of
from dicomnode.core.types import Slice
from dicomnode.core.volumes import (
    DIGEST_KEYWORDS,
    SlicePixels,
    Stored,
    affine_of,
    assemble,
    slice_pixels,
    source_digest,
    to_physical,
    to_stored,
    valid_mask,
)
from dicomnode.errors import InputError, UnsupportedError
from dicomnode.pixels.decode import decode
from engines.volume import ARBITRARY, HU
from tests.pixels.encoded import in_syntax, phantom_slice

CT = {
    "Modality": ("CT",),
    "BitsAllocated": ("16",),
    "BitsStored": ("12",),
    "PixelRepresentation": ("0",),
    "RescaleSlope": ("1",),
    "RescaleIntercept": ("-1024",),
    "Rows": ("2",),
    "Columns": ("3",),
    "PixelSpacing": ("0.5", "0.7"),
    "ImageOrientationPatient": ("1", "0", "0", "0", "1", "0"),
}
CR = {
    "Modality": ("CR",),
    "BitsStored": ("10",),
    "PixelRepresentation": ("0",),
    "PhotometricInterpretation": ("MONOCHROME1",),
    "Rows": ("2",),
    "Columns": ("3",),
    "ImagerPixelSpacing": ("0.1", "0.2"),
}
VALUES: Stored = np.array([[0, 1, 1024], [2048, 4094, 4095]], dtype=np.int32)


def placed(z_mm: float, y_mm: float = 0.0, **attributes: str) -> Slice:
    header = CT | {"ImagePositionPatient": ("10", str(y_mm), str(z_mm))} | {k: (v,) for k, v in attributes.items()}
    return slice_of(1, "1.2.3", CT_IMAGE, header)


def test_hu_by_the_slices_own_rescale() -> None:
    pixels = slice_pixels(CT | {"RescaleSlope": ("2",)})
    assert pixels.unit == HU
    assert to_physical(VALUES, pixels).tolist() == [[-1024, -1022, 1024], [3072, 7164, 7166]]


@pytest.mark.parametrize(
    ("attributes", "unit"),
    [
        ({}, HU),
        ({"RescaleType": ("HU",)}, HU),
        ({"RescaleType": ("US",)}, ARBITRARY),
        ({"Modality": ("MR",)}, ARBITRARY),
    ],
)
def test_hu_only_where_a_ct_does_not_say_otherwise(attributes: dict[str, tuple[str, ...]], unit: str) -> None:
    assert slice_pixels(CT | attributes).unit == unit


def test_a_ct_without_rescale_is_not_in_hu() -> None:
    pixels = slice_pixels({k: v for k, v in CT.items() if not k.startswith("Rescale")})
    assert (pixels.unit, pixels.slope, pixels.intercept) == (ARBITRARY, 1, 0)


@pytest.mark.parametrize(
    "attributes",
    [
        {"RescaleSlope": ("0",)},
        {"RescaleSlope": ("inf",)},
        {"RescaleSlope": ("1e300",)},
        {"RescaleSlope": ()},
        {"RescaleIntercept": ("x",)},
        {"BitsStored": ()},
        {"BitsStored": ("1.5",)},
        {"PixelRepresentation": ()},
    ],
)
def test_values_without_meaning_are_refused(attributes: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(InputError):
        slice_pixels({k: v for k, v in (CT | attributes).items() if v})


@pytest.mark.parametrize(
    "attributes", [{"BitsStored": ("32",)}, {"RescaleSlope": ("1e-5",)}, {"RescaleIntercept": ("1e9",)}]
)
def test_values_that_float32_cannot_keep_apart_are_refused(attributes: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(UnsupportedError):
        slice_pixels(CT | attributes)


def test_monochrome1_grows_with_brightness_and_comes_back() -> None:
    pixels = slice_pixels(CR | {"WindowCenter": ("100",), "WindowWidth": ("50",)})
    stored: Stored = np.array([[0, 1, 1023]], dtype=np.int32)
    physical = to_physical(stored, pixels)
    assert physical.tolist() == [[1023, 1022, 0]]
    assert to_stored(physical, stored, pixels).tolist() == stored.tolist()
    assert pixels.window == (923, 50)  # stored 100 is shown mid-grey, and lies at 923 now


def test_monochrome1_never_turns_hu_around() -> None:
    pixels = slice_pixels(CT | {"PhotometricInterpretation": ("MONOCHROME1",)})
    assert to_physical(VALUES, pixels)[0, 0] == -1024


@pytest.mark.parametrize(
    ("attributes", "padding"),
    [
        ({"PixelPaddingValue": ("-2000",), "PixelRepresentation": ("1",)}, (-2000, -2000)),
        ({"PixelPaddingValue": ("63536",), "PixelRepresentation": ("1",)}, (-2000, -2000)),
        ({"PixelPaddingValue": ("-2000",), "PixelRepresentation": ("0",)}, (63536, 63536)),
        ({"PixelPaddingValue": ("10",), "PixelPaddingRangeLimit": ("0",)}, (0, 10)),
        ({"PixelPaddingRangeLimit": ("0",)}, None),
    ],
)
def test_padding_as_the_stored_bits_have_it(
    attributes: dict[str, tuple[str, ...]], padding: tuple[int, int] | None
) -> None:
    assert slice_pixels(CT | attributes).padding == padding


def test_padding_is_masked_and_written_back_unchanged() -> None:
    pixels = slice_pixels(CT | {"PixelPaddingValue": ("0",), "PixelPaddingRangeLimit": ("1",)})
    measured = valid_mask(VALUES, pixels)
    assert measured is not None
    assert measured.tolist() == [[False, False, True], [True, True, True]]
    written = to_stored(np.zeros_like(VALUES, dtype=np.float32), VALUES, pixels)
    assert written.tolist() == [[0, 1, 1024], [1024, 1024, 1024]]


def test_no_measured_voxel_becomes_padding() -> None:
    pixels = slice_pixels(CT | {"PixelPaddingValue": ("0",)})
    assert to_stored(np.full((2, 3), -1024, dtype=np.float32), VALUES, pixels).tolist() == [[0, 1, 1], [1, 1, 1]]


def test_nothing_padded_needs_no_mask() -> None:
    assert valid_mask(VALUES, slice_pixels(CT | {"PixelPaddingValue": ("7",)})) is None


def test_values_beyond_the_bits_are_clamped_and_rounded() -> None:
    values = np.array([[-5000, -1023.6, 1e30], [0.4, 0.6, 3071.4]], dtype=np.float32)
    written = to_stored(values, VALUES, slice_pixels(CT))
    assert written.tolist() == [[0, 0, 4095], [1024, 1025, 4095]]


def test_broken_values_are_not_stored() -> None:
    with pytest.raises(InputError, match="finite"):
        to_stored(np.full((2, 3), np.nan, dtype=np.float32), VALUES, slice_pixels(CT))


@st.composite
def any_pixels(draw: st.DrawFn) -> SlicePixels:
    header = {
        "Modality": (draw(st.sampled_from(["CT", "MR", "CR"])),),
        "PhotometricInterpretation": (draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])),),
        "BitsStored": (str(draw(st.integers(1, 16))),),
        "PixelRepresentation": (draw(st.sampled_from("01")),),
        "RescaleSlope": (repr(draw(st.floats(-1e4, 1e4).filter(bool))),),
        "RescaleIntercept": (repr(draw(st.floats(-1e5, 1e5))),),
    }
    for keyword in draw(st.sets(st.sampled_from(["PixelPaddingValue", "PixelPaddingRangeLimit"]))):
        header[keyword] = (str(draw(st.integers(-0x8000, 0xFFFF))),)
    try:
        return slice_pixels(header)
    except InputError:
        assume(False)
        raise


@settings(deadline=None)
@given(any_pixels(), st.data())
def test_unchanged_values_come_back_exactly(pixels: SlicePixels, data: st.DataObject) -> None:
    low, high = pixels.stored_range
    stored = data.draw(arrays(np.int32, (3, 4), elements=st.integers(low, high)))
    assert (to_stored(to_physical(stored, pixels), stored, pixels) == stored).all()


@settings(deadline=None)
@given(any_pixels(), st.data())
def test_whatever_is_written_fits_the_bits(pixels: SlicePixels, data: st.DataObject) -> None:
    low, high = pixels.stored_range
    stored = data.draw(arrays(np.int32, (3, 4), elements=st.integers(low, high)))
    values = data.draw(arrays(np.float32, (3, 4), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
    written = to_stored(values, stored, pixels)
    assert low <= written.min()
    assert written.max() <= high
    declared = replace(pixels, unit=ARBITRARY)  # what is found in HU is of one slice, and not said in the header
    before, after = valid_mask(stored, declared), valid_mask(written, declared)
    if pixels.padding is not None and pixels.padding[0] > low and before is not None:
        assert after is not None
        assert (before == after).all()


def test_a_volume_lies_where_its_slices_lie() -> None:
    slices = [placed(z) for z in (-5, 0, 5)]
    volume = assemble(slices, iter([VALUES] * 3))
    assert volume.shape == (3, 2, 3)
    assert volume.unit == HU
    assert volume.valid is None
    assert (volume.affine @ [2, 1, 1, 1]).tolist() == pytest.approx([10 + 2 * 0.7, 0.5, 0, 1])
    assert volume.pixel_spacing_mm == pytest.approx((0.5, 0.7))


def test_a_tilted_gantry_keeps_its_shear() -> None:
    assert affine_of([placed(5 * i, y_mm=-2 * i) for i in range(4)])[:3, 2].tolist() == [0, -2, 5]


def test_unequal_gaps_give_the_median_step() -> None:
    assert affine_of([placed(z) for z in (0, 5, 10, 30)])[2, 2] == 5


def test_a_single_slice_is_as_thick_as_it_says() -> None:
    assert affine_of([placed(0, SliceThickness="3")])[2, 2] == 3


def test_a_projection_lies_at_the_origin() -> None:
    volume = assemble([slice_of(1, "1.2", CR_IMAGE, CR)], [VALUES.clip(0, 1023)])
    assert volume.unit == ARBITRARY
    assert volume.pixel_spacing_mm == (0.1, 0.2)
    assert volume.affine[:3, 3].tolist() == [0, 0, 0]


def test_each_slice_is_converted_by_its_own_rescale_and_mask() -> None:
    slices = [placed(0, PixelPaddingValue="4095"), placed(5, RescaleSlope="2"), placed(10, RescaleIntercept="0")]
    volume = assemble(slices, [VALUES] * 3)
    assert volume.voxels[:, 1, 1].tolist() == [3070, 7164, 4094]
    assert volume.valid is not None
    assert (~volume.valid).sum() == 1


def test_a_slice_in_another_unit_does_not_fit() -> None:
    with pytest.raises(InputError, match="does not fit"):
        assemble([placed(0), placed(5, RescaleType="US")], [VALUES] * 2)


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.5",
    ],
)
@pytest.mark.parametrize("signed", [True, False])
def test_the_digest_is_the_same_in_every_lossless_transfer_syntax(syntax: str, signed: bool) -> None:
    def one() -> tuple[Stored, dict[str, tuple[str, ...]]]:
        dataset = phantom_slice(PixelPaddingValue=0)
        if not signed:
            shifted = np.frombuffer(dataset.PixelData, "<i2").astype("<i4") + 1024
            dataset.PixelData = shifted.astype("<u2").tobytes()
            dataset.PixelRepresentation, dataset.RescaleIntercept = 0, "-2048"
        if recoded:
            dataset = in_syntax(dataset, syntax)
            dataset.PatientName, dataset.StudyDescription, dataset.RescaleSlope = "Somebody^Else", "other", "1.0000"
        return decode(dataset), dict(header_of(dataset, DIGEST_KEYWORDS))

    recoded = False
    expected = source_digest(*one())
    recoded = True
    assert source_digest(*one()) == expected


@pytest.mark.parametrize(
    ("keyword", "changed"),
    [
        ("RescaleIntercept", "-1000"),
        ("PixelPaddingValue", "5"),
        ("PixelSpacing", ("0.5", "0.5")),
        ("ImagePositionPatient", ("0", "0", "1")),
        ("ImageOrientationPatient", ("1", "0", "0", "0", "0", "1")),
        ("WindowCenter", "41"),
        ("BitsStored", "13"),
    ],
)
def test_the_digest_changes_with_what_an_engine_reads(keyword: str, changed: str | tuple[str, ...]) -> None:
    header = CT | {"WindowCenter": ("40",), "WindowWidth": ("400",), "ImagePositionPatient": ("0", "0", "0")}
    other = header | {keyword: (changed,) if isinstance(changed, str) else changed}
    assert source_digest(VALUES, header) != source_digest(VALUES, other)


def test_the_digest_changes_with_one_pixel_and_with_the_shape() -> None:
    assert len({source_digest(values, CT) for values in (VALUES, VALUES ^ 1, VALUES.reshape(3, 2))}) == 3


def test_the_digest_of_today_is_the_digest_of_tomorrow() -> None:
    """It goes into the UIDs of derived objects: it may never change."""
    assert source_digest(VALUES, CT) == "9c250012c292990592f8547b71ce38b5965048f9a2a6bf8386e133a3fd77a41d"
