"""Marks of a person: where they lie, and the region around them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import EngineInputError
from engines.prompt import Box, Mark, Prompt, Recist, drawn, recist_from_patient, region_of_interest

BOX = Box(2, (10.0, 20.0, 30.0, 26.0))
RECIST = Recist(1, ((10.0, 10.0), (16.0, 18.0)), ((16.0, 12.0), (10.0, 16.0)))


def test_a_marks_diameter_is_its_longest() -> None:
    assert BOX.diameter_px == 20.0
    assert RECIST.diameter_px == 10.0


def test_points_in_the_patient_become_pixels() -> None:
    affine = np.array([[0.0, 0.5, 0.0, -100.0], [0.8, 0.0, 0.0, 50.0], [0.0, 0.0, -2.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
    pixels = np.array([[10.0, 20.0, 3.0], [40.0, 22.0, 3.0], [25.0, 15.0, 3.0], [26.0, 30.0, 3.0]])
    mm = pixels @ affine[:3, :3].T + affine[:3, 3]
    found = recist_from_patient(mm[:2], mm[2:], affine)
    assert found.slice_index == 3
    assert np.allclose([*found.long_axis, *found.short_axis], pixels[:, :2])


@pytest.mark.parametrize("last", [3.0, np.nan])
def test_diameters_on_two_slices_are_refused(last: float) -> None:
    mm = np.array([[1.0, 1.0, 0.0], [9.0, 1.0, 0.0], [5.0, 0.0, 0.0], [5.0, 4.0, last]])
    with pytest.raises(EngineInputError, match="one slice"):
        recist_from_patient(mm[:2], mm[2:], np.eye(4))


@pytest.mark.parametrize(
    "marks",
    [
        (),
        (Box(0, (5.0, 5.0, 5.0, 5.0)),),
        (Box(0, (5.0, 5.0, np.nan, 9.0)),),
        (Box(0, (9.0, 9.0, 1.0, 1.0)),),
        (Box(0, (-1e308, 5.0, 1e308, 9.0)),),
        (BOX,) * 1001,
    ],
)
def test_no_marks_and_marks_without_extent_are_refused(marks: tuple[Mark, ...]) -> None:
    with pytest.raises(EngineInputError) as error:
        Prompt(marks)
    assert error.value.hint


quarters_px = st.integers(0, 160).map(lambda quarters: quarters / 4)


@given(
    left=quarters_px,
    top=quarters_px,
    size=st.integers(1, 120).map(lambda quarters: quarters / 4),
    step=st.sampled_from([1, 2, 16]),
)
@settings(deadline=None)
def test_a_region_is_twice_the_mark_around_it_and_on_the_slice(left: float, top: float, size: float, step: int) -> None:
    rows, columns = 80, 100
    region = region_of_interest(Box(0, (left, top, left + size, top + size)), rows, columns, step)
    height, width = region.bottom - region.top, region.right - region.left
    assert region.top >= 0 and region.bottom <= rows and region.left >= 0 and region.right <= columns
    assert height == min(rows, int(np.ceil(2 * size / step)) * step)
    assert width == min(columns, int(np.ceil(2 * size / step)) * step)
    if 15 <= left + size / 2 < 70 and 15 <= top + size / 2 < 50 and height < 30:
        assert region.left + (width - 1) / 2 == pytest.approx(left + size / 2, abs=1)
        assert region.top + (height - 1) / 2 == pytest.approx(top + size / 2, abs=1)


def test_a_mark_outside_of_the_slice_is_refused() -> None:
    with pytest.raises(EngineInputError, match="outside"):
        region_of_interest(BOX, 20, 20)


def test_marks_are_drawn_on_their_slice() -> None:
    prompt = Prompt((BOX, RECIST))
    box = drawn(prompt, 2, 40, 50)
    assert box[20:27, 10:31].all() and box.sum() == 7 * 21
    recist = drawn(prompt, 1, 40, 50)
    assert recist[14, 13] == 1.0 and recist[18, 10] == 0.0
    assert not drawn(prompt, 0, 40, 50).any()
    assert not drawn(Prompt((Box(0, (1e9, 1e9, 1e9 + 99, 1e9 + 99)),)), 0, 40, 50).any()
