"""Golden tests at rest, and what a difference is."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.base import Value
from engines.bundle.golden import Golden, Tolerance, compare, read_arrays, read_golden, write_golden
from engines.errors import BundleError
from engines.findings import Finding, Findings
from engines.prompt import Box, Prompt, Recist
from engines.volume import HU, Mask, Volume

AFFINE = np.diag([0.7, 0.7, 2.5, 1.0])
VOXELS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
VOLUME = Volume(VOXELS, AFFINE, HU, VOXELS > 3, (40.0, 400.0))
VALUES: dict[str, Value] = {
    "volume": VOLUME,
    "mask": Mask((VOXELS > 5).astype(np.uint8), AFFINE, {1: "liver", 2: "läsion"}),
    "findings": Findings((Finding(1, (0.5, 1.0, 2.0, 3.0), "nodule", 0.75),)),
    "prompt": Prompt((Box(1, (0.0, 0.0, 2.0, 2.0)), Recist(0, ((0.0, 0.0), (3.0, 0.0)), ((1.0, 1.0), (1.0, 2.0))))),
}
GOLDEN = Golden(
    VALUES, {"volume": VOLUME}, {"float32": {"volume": Tolerance(0.1, 0.3, 1.0)}}, {"strength": 0.5, "n": 3}
)


def test_every_kind_of_value_comes_back() -> None:
    content = write_golden(GOLDEN)
    back = read_golden(content)
    assert (back.tolerance, back.settings) == (GOLDEN.tolerance, GOLDEN.settings)
    for name, value in VALUES.items():
        found = back.inputs[name]
        if isinstance(value, Findings | Prompt):
            assert found == value
        elif isinstance(value, Mask):
            assert isinstance(found, Mask)
            assert (found.labels == value.labels).all()
            assert found.names == value.names
        else:
            assert isinstance(found, Volume)
            assert (found.voxels == value.voxels).all()
            assert found.valid is not None
            assert (found.valid == (VOXELS > 3)).all()
            assert (found.unit, found.window) == (value.unit, value.window)
            assert (found.affine == AFFINE).all()
    assert write_golden(back) == content


@pytest.mark.parametrize(
    ("output", "passed"),
    [
        (VOLUME, True),
        (VOLUME.with_voxels(VOXELS + np.float32(0.05)), True),
        (VOLUME.with_voxels(VOXELS + np.float32(0.2)), False),  # the mean
        (VOLUME.with_voxels(VOXELS + np.where(VOXELS % 2 == 0, np.float32(0.5), np.float32(-0.5))), False),  # the rms
        (VOLUME.with_voxels(np.where(VOXELS == 5, np.float32(6.1), VOXELS)), False),  # the largest
        (VOLUME.with_voxels(np.where(VOXELS == 5, np.float32(np.nan), VOXELS)), False),
        (Volume(VOXELS[:1], AFFINE, HU), False),
        (Volume(VOXELS, AFFINE, "arbitrary"), False),
        (Volume(VOXELS, AFFINE + np.diag([0.1, 0.0, 0.0, 0.0]), HU), False),
        (VALUES["mask"], False),
        (VALUES["findings"], False),
        (None, False),
    ],
)
def test_a_difference_is_held_to_all_tolerances(output: Value | None, passed: bool) -> None:
    outputs = {} if output is None else {"volume": output}
    assert [found.passed for found in compare(GOLDEN, "float32", outputs)] == [passed]


def test_what_cannot_be_compared_is_said_to_be() -> None:
    spoilt = VOXELS.copy()
    spoilt[0, 0, :2] = (np.nan, np.inf)
    (found,) = compare(GOLDEN, "float32", {"volume": VOLUME.with_voxels(spoilt)})
    assert str(found) == "volume: 2 of its 24 values are no numbers (NaN or infinite)"
    (found,) = compare(GOLDEN, "float32", {"volume": Volume(VOXELS[:1], AFFINE, HU)})
    assert str(found).startswith("volume: it is missing, or of another kind")
    (found,) = compare(GOLDEN, "float32", {"volume": VOLUME.with_voxels(VOXELS + np.float32(0.5))})
    assert str(found) == "volume: mean difference 0.5, rms 0.5, largest 0.5 (at most 0.1, 0.3 and 1)"


def test_an_output_that_is_missing_is_no_output_without_findings() -> None:
    golden = replace(GOLDEN, outputs={"f": Findings(())}, tolerance={"float32": {"f": Tolerance(1.0, 1.0, 1.0)}})
    assert not compare(golden, "float32", {})[0].passed


def test_findings_are_compared_in_any_order() -> None:
    one, other = Finding(0, (0.0, 0.0, 1.0, 1.0), "a", 0.5), Finding(1, (0.0, 0.0, 1.0, 1.0), "a", 0.6)
    golden = replace(
        GOLDEN, outputs={"f": Findings((one, other))}, tolerance={"float32": {"f": Tolerance(0.0, 0.0, 0.0)}}
    )
    assert compare(golden, "float32", {"f": Findings((other, one))})[0].passed
    assert not compare(golden, "float32", {"f": Findings((other,))})[0].passed
    assert compare(replace(golden, outputs={"f": Findings(())}), "float32", {"f": Findings(())})[0].passed


def test_findings_that_a_machine_finds_in_another_order_are_the_same() -> None:
    """Their left sides differ by less than the rounding."""
    one, other = Finding(0, (4.0, 0.0, 9.0, 1.0), "a", 0.5), Finding(0, (4.01, 50.0, 9.0, 51.0), "a", 0.6)
    golden = replace(
        GOLDEN, outputs={"f": Findings((one, other))}, tolerance={"float32": {"f": Tolerance(0.1, 0.1, 0.1)}}
    )
    moved = replace(one, box=(4.02, 0.0, 9.0, 1.0))
    assert compare(golden, "float32", {"f": Findings((other, moved))})[0].passed
    for spoilt in (replace(one, label="b"), replace(one, slice_index=1), replace(one, score=0.7)):
        assert not compare(golden, "float32", {"f": Findings((other, spoilt))})[0].passed
    assert not compare(golden, "float32", {"f": Findings((one, one))})[0].passed


def test_a_precision_without_tolerance_is_not_compared() -> None:
    with pytest.raises(BundleError) as error:
        compare(GOLDEN, "int8", {})
    assert "float32" in error.value.hint


def _npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def _npy(header: str, values: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values


def test_what_is_declared_is_judged_before_it_is_allocated() -> None:
    huge = _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }")
    with pytest.raises(BundleError, match="more than can be read"):
        read_arrays(_npz(a=huge), 1000)
    bomb = _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (8,), }", bytes(50_000_000))
    with pytest.raises(BundleError, match="another length"):
        read_arrays(_npz(a=bomb), 1000)
    half = _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (600,), }", bytes(600))
    with pytest.raises(BundleError, match="more than can be read"):
        read_arrays(_npz(a=half, b=half), 1000)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': __import__('os')}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }",
    ],
)
def test_arrays_of_other_kinds_are_refused(header: str) -> None:
    with pytest.raises(BundleError, match="kind that is not read"):
        read_arrays(_npz(a=_npy(header, bytes(8))), 1000)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_what_numpy_does_not_pack_is_not_unpacked(method: int) -> None:
    """An LZMA stream may ask for a dictionary of four gigabytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a.npy", _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (8,), }", bytes(8)))
    with pytest.raises(BundleError, match="no array"):
        read_arrays(file.getvalue(), 1000)


def test_a_crowd_of_arrays_is_refused_before_they_are_listed() -> None:
    with pytest.raises(BundleError, match="too many arrays"):
        read_arrays(_npz(**{str(number): b"" for number in range(1001)}), 1000)


def test_pickled_objects_are_never_loaded() -> None:
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, a=np.array([{}], dtype=object))
    with pytest.raises(BundleError):
        read_arrays(file.getvalue(), 10_000)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200), place=st.integers(0, 2000), length=st.integers(0, 30))
def test_damaged_bytes_are_refused_or_read(content: bytes, place: int, length: int) -> None:
    whole = bytearray(write_golden(GOLDEN))
    whole[place : place + length] = content
    for damaged in (bytes(whole), content):
        try:
            read_golden(damaged)
        except BundleError as error:
            assert error.hint
