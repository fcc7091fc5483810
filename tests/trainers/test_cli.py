"""The commands, on files: from images with their licences to a bundle, a page, and lower doses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from engines.bundle.folder import load_bundle
from engines.bundle.provenance import Metric
from engines.bundle.words import own_words
from tests.trainers.made import SIZE_PX, write_images
from trainers.cli import FAILED, OK, USAGE, run_command
from trainers.data.provenance import read_provenance
from trainers.data.sources.volumes import read_volumes
from trainers.recipes.reading import read_recipe
from trainers.run.folder import note_metrics
from trainers.run.page import curves
from trainers.run.subject import sealed, subject_of


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three patients as npz volumes with their table of licences, and a recipe cut down."""
    return write_images(tmp_path / "images")


def test_from_images_to_a_bundle_with_its_credits(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run, out = str(images / "mine.toml"), str(tmp_path / "run"), tmp_path / "bundle"
    assert run_command(["train", recipe, "--images", str(images), "--run", run, "--device", "cpu"]) == OK
    subject = subject_of(read_recipe(recipe).recipe, Path(run))
    note_metrics(Path(run), [Metric("PSNR", 31.0, "dB", "25 % dose", 2, (30.5, 31.5), 27.0)], [], subject)
    (tmp_path / "table.txt").write_text(
        sealed("PSNR  31.0\n", "trainers evaluate mine --slices=5", [("ct-denoise", subject)])
    )
    assert run_command(["export", recipe, "--run", run, "--table", str(tmp_path / "table.txt"), str(out)]) == OK
    assert run_command(["report", "--run", run, str(tmp_path / "page.html")]) == OK
    said = capsys.readouterr().out
    assert len(json.loads((Path(run) / "images.json").read_text())) == 2
    assert "images: file 3/3 100 %" in said and "noise: slice 4/4 100 %" in said
    assert "step 2/2 100 %" in said and "ct-denoise@1.0.0" in said

    bundle = load_bundle(out)
    (data,) = bundle.provenance.data
    assert (data.name, data.licence, data.patients, data.role) == ("Phantoms", "CC BY 4.0", 2, "training")
    assert data.attribution == "Maker 1; Maker 2"  # the third is tested on, and so not trained on
    assert bundle.provenance.metrics[0].interval == (30.5, 31.5)
    words = (out / "CARD.md").read_text()
    assert "Maker 1" in words
    assert "    trainers train mine --images IMAGES" in own_words(words) and "    PSNR  31.0\n" in own_words(words)
    assert "judged: ct-denoise of SHA-256" in own_words(words)
    assert own_words(words).count("    trainers evaluate mine --slices=5\n") == 1
    (tmp_path / "table.txt").write_text("PSNR  35.0\n")
    more = ["--table", str(tmp_path / "table.txt"), str(tmp_path / "other")]
    assert run_command(["export", recipe, "--run", run, *more]) == FAILED
    assert "no table of an evaluation" in capsys.readouterr().err and not (tmp_path / "other").exists()
    page = (tmp_path / "page.html").read_text()
    assert "<polyline" in page and "data:image/png;base64" in page and "finished" in page


def test_a_part_of_the_steps_is_said_and_kept_to(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose folder it is stands fast before any image is read."""
    train = ["train", str(images / "mine.toml"), "--images", str(tmp_path), "--run", str(tmp_path / "run")]
    assert run_command([*train, "--share", "0.5", "--set", "denoise.steps=2"]) == FAILED
    said = capsys.readouterr()
    told = "4 of 6 (denoise 2 of 2; nodules 1 of 2; textures 1 of 2). Changed: denoise.steps=2"
    assert f"To be trained for 66.7 % of its steps: {told}" in said.out
    assert "is named ct/npz/*.npz" in said.err
    assert run_command([*train, "--share", "0.5"]) == FAILED
    said = capsys.readouterr()
    assert "rained for" not in said.out and "a run of 50 % of the steps, denoise.steps=2" in said.err


def test_lower_doses_as_files(images: Path, tmp_path: Path) -> None:
    source, table = images / "ct" / "npz" / "p1.npz", images / "ct" / "provenance.csv"
    command = ["simulate", str(source), "--provenance", str(table), "--out", str(tmp_path / "low")]
    assert run_command([*command, "--dose", "0.5", "--dose", "0.1"]) == OK
    added = []
    for path in sorted((tmp_path / "low").glob("*.npz")):
        with np.load(path) as arrays:
            assert arrays["hu"].shape == (2, SIZE_PX, SIZE_PX) and arrays["hu"].dtype == np.int16
            body = arrays["full"] > -200
            added.append(float((arrays["hu"] - arrays["full"].astype(np.float32))[body].std()))
        (again,) = read_volumes([path], read_provenance(tmp_path / "low" / "provenance.csv"))
        (source_series,) = read_volumes([source], read_provenance(table))
        assert (again.patient, again.spacing_mm, again.credit) == ("patient-1", (2.0, 3.75, 3.75), source_series.credit)
        assert again.z_mm is not None and again.z_mm.tolist() == [0.0, 2.0]
    assert added[0] / added[1] == pytest.approx(3.0, rel=0.02)  # 0.1 before 0.5: sqrt(9) to sqrt(1)


def test_a_table_of_other_images_is_left_as_it_is(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, table = images / "ct" / "npz" / "p1.npz", images / "ct" / "provenance.csv"
    before = table.read_bytes()
    command = ["simulate", str(source), "--provenance", str(table), "--out", str(table.parent), "--dose", "0.5"]
    assert run_command(command) == FAILED
    assert "is a table of other images" in capsys.readouterr().err
    assert table.read_bytes() == before and not (table.parent / "cache").exists()


def test_two_series_of_one_name_do_not_overwrite_each_other(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, others = images / "ct" / "provenance.csv", images / "ct" / "npz" / "others"
    others.mkdir()
    shutil.copy(images / "ct" / "npz" / "p2.npz", others / "p1.npz")
    table.write_text("file,licence,collection\nnpz,CC0,Phantoms\n")
    files = [str(images / "ct" / "npz" / "p1.npz"), str(others / "p1.npz")]
    command = ["simulate", *files, "--provenance", str(table), "--out", str(tmp_path / "low"), "--dose", "0.5"]
    assert run_command(command) == FAILED
    assert "two series would be written to p1-npz-dose-0.5.npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train", "ct-denois", "--images", "x", "--run", "y"], FAILED, "did you mean 'ct-denoise'"),
        (["export", "ct-denoise", "--run", "nowhere", "out"], FAILED, "no run's folder"),
        (["report", "--run", "nowhere", "page.html"], FAILED, "no run's folder"),
        (["train", "sgan", "--images", "x", "--run", "y", "--device", "tpu"], USAGE, "--device"),
        (["train", "sgan", "--images", "x", "--run", "y", "--threads", "-1"], USAGE, "greater than or equal to 0"),
        (["train"], USAGE, "trainers --help"),
        (["fly"], USAGE, "No such command"),
    ],
)
def test_errors_say_what_next(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run_command(arguments) == code
    assert said in capsys.readouterr().err


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["recipes"]) == OK
    assert "cascade  ->  ct-denoise-cascade@1.0.0" in capsys.readouterr().out


def test_steps_that_were_done_twice_count_once() -> None:
    assert curves(["1,mse,3", "2,mse,2", "2,mse,2.5", "1,mae,9"]) == {"mse": [(1, 3.0), (2, 2.5)], "mae": [(1, 9.0)]}


def test_half_a_line_of_figures_is_passed_over() -> None:
    lines = ["1,mse,3e-05", "2,mse,0.", "2,ms", "3,mse,1.54,mse,2", "5,mse,-1.25", ""]
    assert curves(lines) == {"mse": [(1, 3e-05), (5, -1.25)]}
