"""The grid of a derived image with more rows and columns: the same place, finer."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage

from dicomnode.core.derive.derivation import Derivation, SeriesLabel, SourceReference, Stage
from dicomnode.core.derive.grid import factor_of
from dicomnode.core.derive.image import PixelGrid, derive_image
from dicomnode.core.derive.series import DerivedSeries
from dicomnode.errors import InputError
from tests.core.derive.sources import CREATED_AT, SOP_INSTANCE_UID, as_read, ct_image, pixels, read_back

ROWS, COLUMNS = 4, 6
FINER = Stage("sr@1.0.0", "ef" * 32, "numpy/float32", "super-resolution")
_angles = st.floats(-3.1, 3.1)
_lengths = st.floats(0.05, 5.0)


def derivation(source: Dataset) -> Derivation:
    return Derivation(
        sop_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        series=SeriesLabel("AI ", 700),
        stages=(FINER,),
        presentation=False,
        sources=(SourceReference(source.SOPClassUID, source.SOPInstanceUID),),
        created_at=CREATED_AT,
    )


def finer(source: Dataset, factor: int) -> Dataset:
    stored = pixels(shape=(factor * ROWS, factor * COLUMNS))
    return read_back(derive_image(as_read(source), stored, derivation(source)))


def orientation(first: float, second: float, third: float) -> np.ndarray:
    """Rows: the directions along a row and along a column."""
    turned = np.eye(3)
    for axis, angle in enumerate((first, second, third)):
        one, other = [index for index in range(3) if index != axis]
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        turned = turned @ turn
    return turned[:2]


def centre(image: Dataset, row: float, column: float) -> np.ndarray:
    """Of a pixel, by PS3.3 C.7.6.2.1.1."""
    cosines = np.array(image.ImageOrientationPatient, dtype=float).reshape(2, 3)
    between_rows, between_columns = map(float, image.PixelSpacing)
    position = np.array(image.ImagePositionPatient, dtype=float)
    return position + cosines[0] * between_columns * column + cosines[1] * between_rows * row


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(_angles, _angles, _angles),
    st.tuples(_lengths, _lengths),
    st.tuples(*[st.floats(-900.0, 900.0)] * 3),
    st.integers(1, 8),
)
def test_the_pixels_that_one_became_lie_around_its_centre(
    angles: tuple[float, float, float],
    spacing: tuple[float, float],
    position: tuple[float, float, float],
    factor: int,
) -> None:
    source = ct_image(
        ImageOrientationPatient=[f"{one:.9f}" for one in orientation(*angles).ravel()],
        PixelSpacing=[f"{one:.6f}" for one in spacing],
        ImagePositionPatient=[f"{one:.5f}" for one in position],
    )
    image = finer(source, factor)
    assert (image.Rows, image.Columns) == (factor * ROWS, factor * COLUMNS)
    middle = (factor - 1) / 2
    for row, column in ((0, 0), (ROWS - 1, COLUMNS - 1)):
        there = centre(image, factor * row + middle, factor * column + middle)
        assert np.abs(there - centre(source, row, column)).max() < 1e-4


def test_a_source_on_the_same_grid_keeps_its_bytes() -> None:
    image = finer(ct_image(), 1)
    assert [str(one) for one in image.ImagePositionPatient] == ["-1.50", "2", "+3e0"]
    assert image.SourceImageSequence[0].SpatialLocationsPreserved == "YES"


def test_a_finer_one_says_that_no_place_in_the_source_is_one_in_it() -> None:
    image = finer(ct_image(), 2)
    assert image.SourceImageSequence[0].SpatialLocationsPreserved == "NO"
    assert image.DerivationCodeSequence[0].CodeValue == "113085"
    assert "finer grid" in image.DerivationDescription


def test_a_projection_has_a_spacing_and_no_place() -> None:
    source = ct_image(
        SOPClassUID=ComputedRadiographyImageStorage, Modality="CR", PixelSpacing=None, ImagePositionPatient=None,
        ImageOrientationPatient=None, ImagerPixelSpacing=["0.2", "0.1"],
    )  # fmt: skip
    image = finer(source, 4)
    assert list(image.ImagerPixelSpacing) == [0.05, 0.025]
    assert "ImagePositionPatient" not in image


def test_each_slice_of_a_series_is_moved_from_its_own_place() -> None:
    series, stored = DerivedSeries(), pixels(shape=(2 * ROWS, 2 * COLUMNS))
    for height in ("3", "4.5"):
        source = ct_image(ImagePositionPatient=["-1.5", "2", height], SOPInstanceUID=f"{SOP_INSTANCE_UID}.{height[0]}")
        start = series.encode_start(as_read(source), PixelGrid(stored.shape, stored.dtype), derivation(source))
        image = dcmread(BytesIO(start + stored.tobytes()))
        assert image.ImagePositionPatient == [-1.675, 1.825, float(height)]
        assert image.SourceImageSequence[0].SpatialLocationsPreserved == "NO"


@pytest.mark.parametrize("derived", [(4, 6, 1), (8, 6), (2, 3), (9, 13), (0, 0)])
def test_another_shape_is_a_defect(derived: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="its source"):
        factor_of((ROWS, COLUMNS), derived)
