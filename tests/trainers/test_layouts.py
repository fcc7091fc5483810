"""Published layouts, from their folders through `trainers train` to what the card says: small, made of phantoms."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicomnode.core.phantom import phantom_study
from tests.trainers.made import SIZE_PX, miniature_text
from trainers.cli import FAILED, OK, run_command

_COLUMNS = (
    "File_name,Measurement_coordinates,Bounding_boxes,Lesion_diameters_Pixel_,Possibly_noisy,Spacing_mm_px_,"
    "Train_Val_Test"
)
_LESION = '{name}_002.png,"1,1,9,1,5,0,5,3","0,0,9,9","8, 3",0,"3.75, 3.75, 2",1'


def _write(folder: Path, datasets: Sequence[Dataset]) -> None:
    folder.mkdir(parents=True)
    for at, dataset in enumerate(datasets, 1):
        dataset.save_as(folder / f"1-{at}.dcm", enforce_file_format=True)


def _mayo(folder: Path) -> None:
    """A folder a patient; the low dose has the same places and noise of its own."""
    for number, patient in enumerate(("L067", "L096", "C002")):
        for dose, noise_hu in (("Full", 10.0), ("Low", 25.0)):
            study = phantom_study(np.random.default_rng(number), 2, SIZE_PX, noise_hu=noise_hu)
            for dataset in study:
                dataset.PatientID, dataset.SeriesDescription = patient, f"{dose} Dose Images"
            _write(folder / "LDCT" / patient / f"1.0-{dose} Dose Images-1", study)


def _deeplesion(folder: Path) -> None:
    """Two neighbouring slices around a lesion of each of three patients: 16-bit PNG."""
    names = [f"{number:06d}_01_01" for number in (1, 2, 3)]
    for number, name in enumerate(names):
        place = folder / "DeepLesion" / "Images_png" / name
        place.mkdir(parents=True)
        for at, dataset in enumerate(phantom_study(np.random.default_rng(number), 2, SIZE_PX, noise_hu=10.0), 1):
            stored = np.frombuffer(dataset.PixelData, "<i2").reshape(SIZE_PX, SIZE_PX).astype(np.int32)
            cv2.imwrite(str(place / f"{at:03d}.png"), (stored - 1024 + 32768).astype(np.uint16))
    rows = [_LESION.format(name=name) for name in names]
    (folder / "DeepLesion" / "DL_info.csv").write_text("\n".join([_COLUMNS, *rows]))


@pytest.mark.parametrize(
    ("lay", "source", "patients", "collection"),
    [
        (_mayo, ("mayo", "LDCT"), ("L067", "L096", "C*"), "LDCT-and-Projection-data"),
        (_deeplesion, ("deeplesion", "Deep*"), ("*-000001", "*-000002", "*-000003"), "DeepLesion"),
    ],
    ids=["mayo", "deeplesion"],
)
def test_a_published_layout_is_trained_on_and_named(
    lay: Callable[[Path], None],
    source: tuple[str, str],
    patients: tuple[str, str, str],
    collection: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lay(tmp_path / "images")
    recipe = tmp_path / "mine.toml"
    sources = f'[[sources]]\nkind = "{source[0]}"\nfiles = ["{source[1]}"]\n'
    recipe.write_text(miniature_text(sources, *patients))
    command = ["train", str(recipe), "--images", str(tmp_path / "images"), "--run", str(tmp_path / "run")]
    assert run_command([*command, "--device", "cpu"]) == OK
    assert "images: file 1/1 100 %" in capsys.readouterr().out
    told = json.loads((tmp_path / "run" / "datasets.json").read_text())
    assert [(row["name"], row["role"], row["patients"]) for row in told] == [
        (collection, "training", 1),
        (collection, "validation", 1),
    ]
    assert told[0]["attribution"] and told[0]["licence"]
    assert (tmp_path / "run" / "denoise" / "net.pt").exists()


def test_a_folder_of_another_layout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _deeplesion(tmp_path / "images")
    recipe = tmp_path / "mine.toml"
    recipe.write_text(miniature_text('[[sources]]\nkind = "mayo"\nfiles = ["DeepLesion"]\n', "L*", "N*", "C*"))
    command = ["train", str(recipe), "--images", str(tmp_path / "images"), "--run", str(tmp_path / "run")]
    assert run_command(command) == FAILED
    assert "holds no pair of full and low dose" in capsys.readouterr().err
