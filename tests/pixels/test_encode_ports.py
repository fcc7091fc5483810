"""Derived series of engines with several inputs and outputs: what each object is known by, and names as its sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicomnode.pixels.encode import derive_stack
from dicomnode.pixels.service import decode_stack
from dicomnode.testing.objects import validation_errors
from engines.volume import load_volume, save_volume
from tests.end_to_end.studies import phantom_series

STAGE = {
    "engine": "fuse", "version": "1.0.0", "card_digest": "ab" * 32, "bundle": "cd" * 32, "runtime": "numpy/float32",
    "operation": "enhance", "influence": "slice", "settings": {}, "presentation": False,
}  # fmt: skip


def stack(folder: Path, number: int) -> dict[str, Any]:
    """Files of a series of two slices, their digests, and the folder that they are decoded to."""
    paths = [str(path) for path in phantom_series(folder / f"source-{number}", 2, seed=number)]
    (volume := folder / f"volume-{number}").mkdir()
    return {"paths": paths, "digests": decode_stack(paths, str(volume))["digests"], "volume": volume}


def derived(folder: Path, out: str, influence: str = "slice", **more: Any) -> list[Dataset]:
    """What is derived of the first of three series, which were decoded to `folder` once."""
    (folder / out).mkdir()
    main = more.pop("main")
    answer = derive_stack(
        sources=main["paths"],
        digests=main["digests"],
        stack_key="axial",
        result=str(main["volume"]),
        stages=[{**STAGE, "influence": influence}],
        series={"description_prefix": "AI ", "number_offset": 700},
        equipment={},
        content_qualification="RESEARCH",
        created_at=1.7e9,
        out=str(folder / out),
        **more,
    )
    return [dcmread(one["path"]) for one in answer["instances"]]


@pytest.fixture(name="stacks")
def _stacks(tmp_path: Path) -> list[dict[str, Any]]:
    return [stack(tmp_path, number) for number in (1, 2, 3)]


def others(stacks: list[dict[str, Any]], names: tuple[str, str] = ("delayed", "portal")) -> list[dict[str, Any]]:
    return [
        {"input": name, "stack_key": "axial", "sources": one["paths"], "digests": one["digests"]}
        for name, one in zip(names, stacks[1:], strict=True)
    ]


def uids(paths: list[str]) -> list[str]:
    return [dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in paths]


def test_each_output_is_a_series_of_its_own(tmp_path: Path, stacks: list[dict[str, Any]]) -> None:
    first = derived(tmp_path, "first", main=stacks[0])
    other = derived(tmp_path, "other", main=stacks[0], output="enhanced")
    assert first[0].SeriesInstanceUID != other[0].SeriesInstanceUID
    assert {one.SOPInstanceUID for one in first}.isdisjoint(one.SOPInstanceUID for one in other)
    assert (first[0].SeriesDescription, other[0].SeriesDescription) == ("AI fuse", "AI fuse enhanced")
    assert first[0].DerivationCodeSequence[0].CodeValue == "ENHANCE"


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("influence", ["slice", "volume"])
def test_other_series_are_named_slice_by_slice(tmp_path: Path, stacks: list[dict[str, Any]], influence: str) -> None:
    images = derived(tmp_path, "out", influence, main=stacks[0], others=others(stacks))
    own, *beside = [uids(one["paths"]) for one in stacks]
    for index, image in enumerate(images):
        here = [own[index], *(one[index] for one in beside)]
        items = [(item.ReferencedSOPInstanceUID, item.SpatialLocationsPreserved) for item in image.SourceImageSequence]
        away = [one[1 - index] for one in (own, *beside)] if influence == "volume" else []
        assert items == [*((uid, "YES") for uid in here), *((uid, "NO") for uid in away)]
        assert [len(one.ReferencedInstanceSequence) for one in image.ReferencedSeriesSequence] == [
            1 if influence == "slice" else 2
        ] * 3
    image_path = tmp_path / "out" / "000000.dcm"
    assert validation_errors(image_path) <= validation_errors(Path(stacks[0]["paths"][0]))


def test_what_goes_in_where_makes_other_objects(tmp_path: Path, stacks: list[dict[str, Any]]) -> None:
    alone = derived(tmp_path, "alone", main=stacks[0])
    given = derived(tmp_path, "given", main=stacks[0], others=others(stacks))
    swapped = derived(tmp_path, "swapped", main=stacks[0], others=others(stacks, ("portal", "delayed")))
    assert len({one[0].SeriesInstanceUID for one in (alone, given, swapped)}) == 3
    assert len({one[0].SOPInstanceUID for one in (alone, given, swapped)}) == 3


def test_a_padded_pixel_stays_padded_on_a_finer_grid(tmp_path: Path, stacks: list[dict[str, Any]]) -> None:
    main = stacks[0]
    for path in main["paths"]:
        image = dcmread(path)
        stored = image.pixel_array.copy()
        stored[:4] = 0
        image.PixelData = stored.tobytes()
        image.add_new("PixelPaddingValue", "US", 0)
        image.save_as(path)
    volume = load_volume(main["volume"])
    finer = volume.voxels.repeat(3, axis=1).repeat(3, axis=2) + np.float32(50.0)
    (tmp_path / "finer").mkdir()
    save_volume(volume.__class__(finer, volume.affine, volume.unit), tmp_path / "finer")
    (image, _) = derived(tmp_path, "out", main={**main, "volume": tmp_path / "finer"})
    written = image.pixel_array
    assert written.shape == (384, 384)
    padded = dcmread(main["paths"][0]).pixel_array == 0
    assert padded[:4].all()
    assert np.array_equal(written == 0, padded.repeat(3, axis=0).repeat(3, axis=1))
