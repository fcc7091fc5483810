"""A denoiser for each image that leaves a run or a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from engines.bundle.provenance import Provenance, Training
from tests.trainers.evaluate.bodies import body
from tests.trainers.made import miniature
from trainers.evaluate.denoisers import Denoiser, of_bundle, of_run
from trainers.nets import build
from trainers.recipes.reading import ReadRecipe, read_recipe
from trainers.recipes.recipe import Recipe
from trainers.run import checkpoints
from trainers.shipping.export import Trained, export
from trainers.training.stages import load_nets


def _untrained(read: ReadRecipe, run: Path) -> Recipe:
    """The recipe with small nets, and a run of it whose nets are as they were begun."""
    recipe = miniature(read).recipe
    for stage in recipe.stages:
        net = build(stage.net.kind, stage.net.arguments)
        checkpoints.write(run / stage.name / "net.pt", {"net": net.state_dict()})
    return recipe


def _outputs(several: tuple[Denoiser, ...], low: np.ndarray) -> list[np.ndarray]:
    return [one.run(low) for one in several]


def test_every_image_of_a_stack_is_judged_and_each_for_itself(tmp_path: Path) -> None:
    recipe = _untrained(read_recipe("sgan"), tmp_path / "run")
    by_run = of_run(recipe, tmp_path / "run", "sgan (run)")
    assert [one.name for one in by_run] == ["sgan (run): denoised", "sgan (run): enhanced (for the eye)"]
    assert [(one.output, one.presented) for one in by_run] == [("denoised", False), ("enhanced (for the eye)", True)]

    (tmp_path / "bundle").mkdir()
    nets = load_nets(recipe, tmp_path / "run")
    export(Trained(recipe, nets, Provenance("x", "x", Training("x"))), tmp_path / "bundle")
    by_bundle = of_bundle(tmp_path / "bundle")
    assert [one.output for one in by_bundle] == [one.output for one in by_run]

    low = body()[64:192, 64:192]
    for one, other in zip(_outputs(by_run, low), _outputs(by_bundle, low), strict=True):
        by_bundle_hu, by_run_hu = (np.clip(hu, -1024, None) for hu in (other, one))  # for the eye: none below
        np.testing.assert_allclose(by_bundle_hu, by_run_hu, atol=2.0)
    first, second = _outputs(by_run, low)
    assert np.abs(second - first).max() > 1.0  # another net


def test_what_leaves_for_the_eye_alone_is_judged_in_hu_and_not_blended(tmp_path: Path) -> None:
    recipe = _untrained(read_recipe("sgan-single"), tmp_path)
    recipe = replace(recipe, shipping=replace(recipe.shipping, strength=0.5))
    (alone,) = of_run(recipe, tmp_path, "single (run)")
    assert (alone.name, alone.output, alone.shipped) == ("single (run) (for the eye)", "", 1.0)
    assert alone.rows == {1.0: "single (run) (for the eye)"}
    assert alone.run(body()[:70, :70]).shape == (70, 70)


def test_one_image_keeps_its_runs_name_and_strength(tmp_path: Path) -> None:
    recipe = _untrained(read_recipe("ct-denoise"), tmp_path)
    (only,) = of_run(recipe, tmp_path, "mine")
    assert (only.name, only.output, only.shipped) == ("mine", "", recipe.shipping.strength)
