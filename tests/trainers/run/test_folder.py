"""What lies in a run's folder: whole or not at all, and told of what it is of."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pytest

from engines.bundle.provenance import Dataset, Metric
from tests.trainers.made import material, miniature, patient, shop
from trainers.errors import CheckpointError
from trainers.lowering import Lowered, write_lowered
from trainers.recipes.plan import planned
from trainers.recipes.reading import ReadRecipe, read_recipe
from trainers.recipes.recipe import Plan
from trainers.run import checkpoints
from trainers.run.checkpoints import ENDED
from trainers.run.folder import claim, note_datasets, note_metrics, provenance_of, trained_by
from trainers.run.subject import command_of, require_table, sealed, subject_of
from trainers.training.stages import train_recipe

_DATA = [Dataset("Phantoms", "CC0", "nobody")]


@contextmanager
def _full_disk(after_bytes: int) -> Iterator[None]:
    """No file may become longer: what is written is cut off there, as by a kill."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _lower(folder: Path) -> None:
    series = patient(1).series
    write_lowered(folder, Lowered(series, 0.5, series.hu))


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: note_datasets(folder, _DATA * 9),
        _lower,
        lambda folder: checkpoints.write(folder / "net.pt", {"net": {}}),
    ],
)
def test_half_a_file_never_has_the_files_name(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with _full_disk(40), pytest.raises((OSError, RuntimeError)):
        write(tmp_path)
    assert {path: path.read_bytes() for path in before} == before


def test_a_copy_of_a_run_is_of_the_same_day(tmp_path: Path) -> None:
    read = miniature(read_recipe("dncnn"), 1)
    train_recipe(read, material(), shop(tmp_path / "run"))
    note_datasets(tmp_path / "run", _DATA)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    os.utime(tmp_path / "copy" / "denoise" / "net.pt", (86400.0, 86400.0))
    assert provenance_of(read, tmp_path / "copy").training.date == datetime.now(UTC).date().isoformat()


_PSNR = Metric("PSNR", 31.0, "dB", "25 % dose", 2, (30.5, 31.5), 27.0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the default with a net for each stage, and a recipe of its own text."""
    run = tmp_path_factory.mktemp("finished")
    (run / "mine.toml").write_text(files("trainers.recipes").joinpath("ct-denoise.toml").read_text())
    read = read_recipe(str(run / "mine.toml"))
    claim(read, run)
    note_datasets(run, _DATA)
    for stage in read.recipe.stages:
        checkpoints.write(run / stage.name / "net.pt", {"net": {}, "stage": stage.name, ENDED: "2026-01-31"})
    note_metrics(run, [_PSNR], _DATA, subject_of(read.recipe, run))
    return run


@pytest.fixture
def judged(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def _reworded(run: Path, old: str, new: str) -> ReadRecipe:
    mine = run / "mine.toml"
    assert old in mine.read_text()
    mine.write_text(mine.read_text().replace(old, new))
    return trained_by(str(mine), run)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Less noise in CT", "Still less noise in CT"),
        ("not for heads or children", "for chest and abdomen alone"),
        ('licence = "Apache-2.0"', 'licence = "MIT"'),
        ("kvp = [100.0, 140.0]", "kvp = [120.0, 140.0]"),
        ('precisions = ["float32"]', 'precisions = ["float32", "bfloat16"]'),
        ('name = "ct-denoise"', 'name = "our-denoise"'),
    ],
)
def test_other_words_are_of_the_same_figures(old: str, new: str, judged: Path) -> None:
    provenance = provenance_of(_reworded(judged, old, new), judged)
    assert provenance.metrics == (_PSNR,) and len(provenance.data) == 2


@pytest.mark.parametrize("end", ["", ".", "\n", ".\n"])
def test_what_was_trained_is_a_sentence_of_its_own_on_the_card(end: str, judged: Path) -> None:
    read = trained_by(str(judged / "mine.toml"), judged)
    own = replace(read, recipe=replace(read.recipe, paper=f"of our own{end}"))
    assert provenance_of(own, judged).training.recipe.startswith("of our own. denoise: 40000 steps")


def test_a_run_keeps_its_recipe_where_what_that_follows_changes(tmp_path: Path) -> None:
    read = planned(read_recipe("dncnn"), Plan(changes=("denoise.steps=2",)))
    claim(read, tmp_path)
    again = trained_by(str(tmp_path / "recipe.toml"), tmp_path)
    assert (again.recipe, again.plan) == (read.recipe, read.plan)
    with pytest.raises(CheckpointError, match="of another text") as refused:
        trained_by("redcnn", tmp_path)
    assert str(tmp_path / "recipe.toml") in refused.value.hint


@pytest.mark.parametrize(
    ("old", "new"), [("strength = 0.85", "strength = 1.0"), ('stage = "textures"', 'stage = "denoise"')]
)
def test_figures_of_another_setting_are_no_figures_of_this_one(old: str, new: str, judged: Path) -> None:
    read = _reworded(judged, old, new)
    with pytest.raises(CheckpointError) as refused:
        provenance_of(read, judged)
    assert "evaluate again" in refused.value.hint


def test_figures_of_other_weights_are_no_figures_of_these(judged: Path) -> None:
    read = trained_by(str(judged / "mine.toml"), judged)
    checkpoints.write(judged / "textures" / "net.pt", {"net": {}, "stage": "trained anew"})
    with pytest.raises(CheckpointError, match="other weights") as refused:
        provenance_of(read, judged)
    assert "evaluate again" in refused.value.hint


def test_a_table_is_taken_as_it_was_written_of_what_ships(judged: Path) -> None:
    subject = subject_of(read_recipe("ct-denoise").recipe, judged)
    table = sealed(
        "PSNR  31.0\n", "trainers evaluate", [("redcnn", replace(subject, shipping="other")), ("ct-denoise", subject)]
    )
    require_table(table, subject)
    assert command_of(table) == "trainers evaluate"
    for text, said in (("PSNR  31.0\n", "no table"), (table.replace("31.0", "35.0"), "no table"), ("", "no table")):
        with pytest.raises(CheckpointError, match=said):
            require_table(text, subject)
    with pytest.raises(CheckpointError, match="another strength"):
        require_table(table, replace(subject, shipping="of strength 1"))
