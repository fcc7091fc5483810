"""Sources by their layout, and what a card says of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.trainers.made import CREDIT, patient, picture, write_images
from trainers.data.cache import Cache, Simulation
from trainers.data.degrade import cropped
from trainers.data.series import Credit, Picture
from trainers.data.splits import Splits
from trainers.errors import RecipeError, SourceError
from trainers.material import datasets, files_of, gather, read_source
from trainers.recipes.reading import read_recipe
from trainers.recipes.recipe import SourceChoice


def test_photographs_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "natural").mkdir()
    cv2.imwrite(str(tmp_path / "natural" / "one.png"), np.full((40, 50), 128, np.uint8))
    (found,) = read_source(SourceChoice("natural", ("natural",), credit=CREDIT), tmp_path)
    assert isinstance(found, Picture)
    assert found.grey.shape == (40, 50) and found.credit == CREDIT


def test_a_source_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"ct/\*\.npz"):
        files_of(SourceChoice("npz", ("ct/*.npz",), "ct/provenance.csv"), tmp_path)


@pytest.mark.parametrize("pattern", ["/data/*.npz", "", "ct/**.npz"])
def test_what_is_no_path_below_the_images_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(RecipeError, match="no path below"):
        files_of(SourceChoice("npz", (pattern,), "ct/provenance.csv"), tmp_path)


def test_each_collection_and_role_is_a_row_of_the_card() -> None:
    rows = datasets({"training": [patient(1), patient(2)], "validation": [patient(3)]}, [picture(1)])
    assert [(row.name, row.role, row.patients, row.attribution) for row in rows] == [
        ("Phantoms", "training", 2, "nobody"),
        ("Phantoms", "validation", 1, "nobody"),
    ]
    other = Picture("p", picture(1).grey, Credit("Other", "CC0"))
    assert [row.name for row in datasets({"training": [patient(1)]}, [other])] == ["Phantoms", "Other"]


def test_files_of_the_same_name_stay_their_own_patients(tmp_path: Path) -> None:
    made = write_images(tmp_path / "made") / "ct"
    for number in (1, 2):
        place = tmp_path / f"patient-{number}"
        place.mkdir()
        shutil.copy(made / "npz" / f"p{number}.npz", place / "ct.npz")
    (tmp_path / "provenance.csv").write_text(
        "file,licence,collection\npatient-1,CC0,Phantoms\npatient-2,CC0,Phantoms\n"
    )
    recipe = replace(
        read_recipe("ct-denoise").recipe,
        sources=(SourceChoice("npz", ("*/ct.npz",), "provenance.csv"),),
        patients=Splits(("patient-1",), ("patient-2",)),
    )
    gathered = gather(recipe, tmp_path, tmp_path / "cache")
    found = gathered.material
    assert len(gathered.digests) == 1  # of what is trained on alone
    assert [(one.series.patient, one.series.name) for one in found.train] == [("patient-1", "patient-1/ct.npz")]
    assert [(one.series.patient, one.series.name) for one in found.validation] == [("patient-2", "patient-2/ct.npz")]


def test_pixels_without_a_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not square"):
        Cache(tmp_path, Simulation()).noisy(replace(patient(1).series, spacing_mm=(2.0, 0.0, 0.0)))


def test_photographs_are_kept_on_the_disk(tmp_path: Path) -> None:
    cache = Cache(tmp_path, Simulation())
    first, again = cache.picture(picture(1)), cache.picture(replace(picture(1), name="copy"))
    assert isinstance(first.grey, np.memmap) and (first.grey == picture(1).grey).all()
    assert first.digest == again.digest != cache.picture(picture(2)).digest
    patch = cropped((first.grey,), 16, (1, 2, 3))
    assert patch.dtype == np.float32 and patch.max() > 100
