"""What a run does otherwise than its recipe says: what that changes, and that it is said."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.bundle.provenance import Dataset
from tests.trainers.made import material, miniature, shop, states_equal
from trainers.errors import CheckpointError, RecipeError
from trainers.evaluate.command import terms_told
from trainers.recipes.plan import planned, steps_told
from trainers.recipes.reading import ReadRecipe, read_recipe, shipped
from trainers.recipes.recipe import OFF, Plan
from trainers.run import checkpoints
from trainers.run.folder import claim, note_datasets, note_images, provenance_of, trained_by
from trainers.run.page import page_of
from trainers.training.players import rate
from trainers.training.stages import train_recipe


def _part(read: ReadRecipe, share: float, *changes: str) -> ReadRecipe:
    return planned(read, Plan(share, changes))


def test_the_schedule_shrinks_with_the_steps() -> None:
    whole = read_recipe("ct-denoise").recipe.stages[0]
    stage = _part(read_recipe("ct-denoise"), 0.01).recipe.stages[0]
    assert (whole.steps, stage.steps) == (40000, 400)
    assert (stage.checkpoint_steps, stage.sample_steps, stage.log_steps) == (20, 20, 20)
    assert (whole.optimiser.warmup_steps, stage.optimiser.warmup_steps) == (200, 40)
    half = rate(whole.optimiser, 20000, whole.steps)
    assert rate(stage.optimiser, 200, stage.steps) == pytest.approx(half)
    assert rate(stage.optimiser, 399, stage.steps) < 0.02 * whole.optimiser.learning_rate


def test_a_short_warm_up_is_left_as_it_is() -> None:
    assert _part(read_recipe("ct-denoise"), 0.5).recipe.stages[0].optimiser.warmup_steps == 200


def test_rounds_look_at_fewer_slices_and_take_fewer() -> None:
    growth = _part(read_recipe("sgan"), 0.02).recipe.stage("g1").growth
    assert growth is not None and (growth.rounds, growth.most, growth.candidates) == (5, 20, 80)


@pytest.mark.parametrize("name", shipped())
@settings(deadline=None, max_examples=20)
@given(share=st.floats(1e-9, 1.0, exclude_min=True))
def test_every_stage_keeps_at_least_a_step(name: str, share: float) -> None:
    whole = read_recipe(name)
    for stage, before in zip(_part(whole, share).recipe.stages, whole.recipe.stages, strict=True):
        assert 1 <= stage.steps <= before.steps
        assert stage.steps == pytest.approx(before.steps * share, abs=1.0)
        assert stage.checkpoint_steps >= 1


def test_all_of_it_changes_nothing() -> None:
    read = read_recipe("cascade")
    assert _part(read, 1.0) == read


def test_single_numbers_are_changed_and_nothing_else() -> None:
    read = read_recipe("sgan")
    changed = _part(read, 0.5, "g2.patches.batch=4", "g2.steps = 300", "g1.net.arguments={ blocks = 2, channels = 8 }")
    g1, g2 = changed.recipe.stage("g1"), changed.recipe.stage("g2")
    assert (g2.patches.batch, g2.patches.size_px, g2.steps) == (4, 128, 300)
    assert g1.net.arguments == {"blocks": 2, "channels": 8} and g1.steps == 10000
    assert changed.written == read.recipe and changed.digest == read.digest


def test_a_table_that_the_recipe_leaves_out_is_begun() -> None:
    assert (
        _part(read_recipe("redcnn"), 1.0, "denoise.patches.planting.share=0.5").recipe.stages[0].patches.planting.share
    )


@pytest.mark.parametrize(
    ("share", "change", "said"),
    [
        (0.0, "", "0 is no share"),
        (1.5, "", "1.5 is no share"),
        (float("nan"), "", "nan is no share"),
        (0.1, "g3.steps=5", "no stage 'g3'"),
        (0.1, "g2.steps=much", "has no value"),
        (0.1, "g2.steps", "has no value"),
        (0.1, "g2=1", "changes nothing"),
        (0.1, "g2.steps.more=1", "changes nothing"),
        (0.1, "g2.stepz=1", "stepz"),
        (0.1, "g2.steps=0", "0 steps"),
        (0.1, "shipping.licence='mine'", "no stage 'shipping'"),
    ],
)
def test_what_makes_no_plan_is_refused(share: float, change: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as refused:
        _part(read_recipe("sgan"), share, *filter(None, [change]))
    assert refused.value.hint


def test_the_same_options_make_the_same_plan() -> None:
    assert Plan().options == ()
    assert Plan(0.05, ("g2.steps=7", "g1.steps=9")).options == (
        "--share", "0.05", "--set", "g2.steps=7", "--set", "g1.steps=9",
    )  # fmt: skip


def test_another_plan_does_not_go_on(tmp_path: Path) -> None:
    read = read_recipe("cascade")
    claim(_part(read, 0.05), tmp_path)
    claim(_part(read, 0.05), tmp_path)
    assert trained_by("cascade", tmp_path).plan == Plan(0.05)
    for other in (read, _part(read, 0.1), _part(read, 0.05, "drl.steps=7")):
        with pytest.raises(CheckpointError, match="a run of 5 % of the steps"):
            claim(other, tmp_path)


def test_what_a_run_was_trained_by_is_found_again(tmp_path: Path) -> None:
    claim(_part(read_recipe("sgan-g1"), 0.1, "g1.patches.batch=4"), tmp_path)
    assert trained_by("sgan-g1", tmp_path).recipe.stage("g1").patches.batch == 4
    with pytest.raises(CheckpointError, match="another text"):
        trained_by("sgan", tmp_path)


def test_what_is_said_of_a_run_and_shipped_may_change(tmp_path: Path) -> None:
    """Which strength is shipped is decided when the net is there to be judged."""
    text = files("trainers.recipes").joinpath("ct-denoise.toml").read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(text)
    claim(read_recipe(str(mine)), tmp_path)
    mine.write_text(text.replace("strength = 0.85", "strength = 0.7").replace("Plain convolutions", "Convolutions"))
    assert trained_by(str(mine), tmp_path).recipe.shipping.strength == 0.7
    mine.write_text(text.replace("planted = 20.0", "planted = 21.0"))
    with pytest.raises(CheckpointError, match="another text"):
        trained_by(str(mine), tmp_path)


def _finish(read: ReadRecipe, run: Path) -> None:
    net = run / read.recipe.stages[-1].name / "net.pt"
    checkpoints.write(net, {"net": {}, checkpoints.ENDED: "2026-01-31"})


def test_a_run_goes_on_with_the_images_that_it_began_with(tmp_path: Path) -> None:
    note_images(tmp_path, ["a", "b"])
    note_images(tmp_path, ["a", "b"])
    for others, said in (
        (["a", "b", "c"], "1 are new, 0 are gone"),
        (["b", "a"], "another order"),
        (["b"], "1 are gone"),
    ):
        with pytest.raises(CheckpointError, match=said):
            note_images(tmp_path, others)


def test_card_and_page_say_what_was_done_otherwise(tmp_path: Path) -> None:
    read = _part(read_recipe("sgan"), 0.05, "g2.steps=400", "g2.patches.batch=4")
    claim(read, tmp_path)
    note_datasets(tmp_path, [Dataset("Phantoms", "CC0")])
    with pytest.raises(CheckpointError, match="not finished"):
        provenance_of(read, tmp_path)
    _finish(read, tmp_path)
    training = provenance_of(read, tmp_path).training
    assert "Trained for 4.5 % of its steps: 27000 of 600000" in training.recipe
    assert (
        "g2 400 of 20000 a round, in at most 5 rounds" in training.recipe
        and "Changed: g2.steps=400, g2.patches.batch=4." in training.recipe
    )
    assert "4.5 % of its steps" in training.run
    assert "5 % of the steps, g2.steps=400" in page_of(tmp_path)
    assert "g2-natural: 200000 steps" in steps_told(read_recipe("sgan"))


def test_whether_features_were_compared_is_kept_to_and_told(tmp_path: Path) -> None:
    read = read_recipe("sgan-g1")
    off, on = (planned(read, Plan(features=features)) for features in (OFF, "ab" * 32))
    claim(off, tmp_path)
    claim(off, tmp_path)
    assert trained_by("sgan-g1", tmp_path).plan.features == OFF
    with pytest.raises(CheckpointError, match="all steps, the term vgg off"):
        claim(on, tmp_path)
    note_datasets(tmp_path, [Dataset("Phantoms", "CC0")])
    _finish(off, tmp_path)
    assert "vgg is off: no weights were given for it." in provenance_of(off, tmp_path).training.recipe
    assert "all steps, the term vgg off" in page_of(tmp_path)
    assert terms_told([(off, tmp_path / "g"), (read_recipe("redcnn"), tmp_path)]) == [
        "ablation-g1 (g): The loss term vgg is off: no weights were given for it."
    ]
    changed = planned(read_recipe("redcnn"), Plan(changes=("denoise.optimiser.learning_rate=1e-9",)))
    (told,) = terms_told([(changed, tmp_path / "redcnn")])
    assert told.endswith(": Changed: denoise.optimiser.learning_rate=1e-9.")
    assert "SHA-256 abababababababab" in steps_told(on) and on.plan.options == ("--features", "VGG")
    assert "vgg" not in steps_told(planned(read_recipe("redcnn"), Plan(features=OFF)))


def test_a_stage_that_would_be_trained_on_nothing_is_refused() -> None:
    alone = ("drlp.losses=[{ kind = 'vgg' }]",)
    assert planned(read_recipe("cascade-drlp"), Plan(changes=alone, features="ab" * 32)).recipe
    with pytest.raises(RecipeError, match="drlp has no loss but vgg") as refused:
        planned(read_recipe("cascade-drlp"), Plan(changes=alone, features=OFF))
    assert "--features" in refused.value.hint


class _Killed(Exception):
    pass


def test_a_part_that_was_stopped_goes_on_to_the_same_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at its second checkpoint, then started again with the same share."""
    small = miniature(read_recipe("redcnn"), 12)
    stage = replace(small.recipe.stages[0], checkpoint_steps=2)
    small = replace(small, recipe=replace(small.recipe, stages=(stage,)))
    read = planned(small, Plan(0.5))
    whole = train_recipe(read, material(), shop(tmp_path / "whole"))

    kept = checkpoints.save

    def save(folder: Path, step: int, state: checkpoints.State) -> Path:
        path = kept(folder, step, state)
        if step == 4:
            raise _Killed
        return path

    monkeypatch.setattr(checkpoints, "save", save)
    with pytest.raises(_Killed):
        train_recipe(read, material(), shop(tmp_path / "stopped"))
    monkeypatch.undo()
    said: list[str] = []
    again = train_recipe(read, material(), shop(tmp_path / "stopped", said))
    assert "step 5/6" in said[0] and "step 6/6" in said[-1]
    assert states_equal(again["denoise"], whole["denoise"])
