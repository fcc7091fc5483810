"""What goes from stage to stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engines.bundle.provenance import Provenance, Training
from engines.model.engine import ModelEngine
from engines.runtimes.base import Tensors
from engines.volume import HU, Volume
from tests.engines.phantoms import body, noisy
from tests.trainers.made import CREDIT, material, miniature, patient, picture, shop, states_equal
from trainers.data.degrade import Worsening, worsened
from trainers.data.series import Picture
from trainers.errors import CheckpointError, RecipeError, SourceError
from trainers.nets.base import Net
from trainers.recipes.reading import read_recipe
from trainers.recipes.recipe import NetChoice, StageRecipe
from trainers.shipping.export import Trained, card_of
from trainers.training import pairs, stages
from trainers.training.distributed import World
from trainers.training.loop import Pair, Run, Task, begun
from trainers.training.pairs import Link, Material, Pairing, pairs_of
from trainers.training.stages import folds, train_recipe


class _Plus(Net):
    """Adds so many HU to its input, or gives them alone."""

    halo_px = 0

    def __init__(self, hu: float, alone: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(hu / 1000))
        self.alone = alone

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(image) + self.weight if self.alone else image + self.weight


class _Session:
    """A net as the node's session."""

    identity = "test/float32"

    def __init__(self, net: Net) -> None:
        self._net = net

    def run(self, tensors: Tensors) -> Tensors:
        with torch.no_grad():
            return {"y": self._net(torch.from_numpy(np.array(tensors["x"]))).numpy()}

    def close(self) -> None:
        pass


def test_the_cascade_subtracts_the_second_image_from_the_first() -> None:
    """Y1 = input + 10, and the second net predicts Y1 - Y = 3: what leaves is input + 10 - 3, in the node as here."""
    recipe = read_recipe("cascade").recipe
    first, second = _Plus(10.0), _Plus(3.0, alone=True)
    source = noisy(body(64), 10.0)[None]
    card = card_of(Trained(recipe, {"lsgan": first, "drl": second}, Provenance("x", "x", Training("x"))))
    engine = ModelEngine(card, [_Session(first), _Session(second)])
    found = engine.run({"image": Volume(source, np.eye(4), HU)}, {"strength": 1.0})["image"]
    assert isinstance(found, Volume)
    np.testing.assert_allclose(found.voxels, source + 7, atol=1e-3)

    made = torch.from_numpy(source[None])
    for net, stage in ((first, recipe.stage("lsgan")), (second, recipe.stage("drl"))):
        made = Link(net, stage, 1000.0)(made)
    np.testing.assert_allclose(made[0], source + 7, atol=1e-3)


def test_a_recipe_may_ship_less_than_all_that_its_net_takes_away() -> None:
    recipe = read_recipe("ct-denoise").recipe
    recipe = replace(recipe, shipping=replace(recipe.shipping, strength=0.5))
    net = _Plus(8.0, alone=True)
    card = card_of(Trained(recipe, {"textures": net}, Provenance("x", "x", Training("x"))))
    source = noisy(body(64), 10.0)[None]
    found = ModelEngine(card, [_Session(net)]).run({"image": Volume(source, np.eye(4), HU)}, card.resolve({}))["image"]
    assert isinstance(found, Volume)
    np.testing.assert_allclose(found.voxels, source - 4, atol=1e-3)


def test_the_second_net_learns_on_images_of_nets_that_never_saw_the_patient(tmp_path: Path) -> None:
    read = miniature(read_recipe("cascade"), 1)
    train_recipe(read, material(), shop(tmp_path))
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        "lsgan", "lsgan-without-1", "lsgan-without-2", "drl",
    }  # fmt: skip
    parts = folds(material().train, 2)
    for inside, outside in parts:
        assert not {noisy.series.patient for noisy in inside} & {noisy.series.patient for noisy in outside}
    assert sorted(noisy.series.patient for inside, _ in parts for noisy in inside) == [
        "patient-0", "patient-1", "patient-2",
    ]  # fmt: skip


def test_the_net_of_each_part_is_trained_on_all_patients_but_those_it_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[Callable[[int], Pair], Sequence[Pairing]] = {}
    trained: dict[str, tuple[Sequence[Pairing], nn.Module]] = {}

    def note_pairings(pairings: Sequence[Pairing], world: World, seed: int) -> Callable[[int], Pair]:
        draw = pairs_of(pairings, world, seed)
        drawn[draw] = pairings
        return draw

    def note_net(task: Task, run: Run) -> nn.Module:
        net, _ = begun(task)
        trained[run.name] = drawn[task.draw], net
        return net

    monkeypatch.setattr(stages, "pairs_of", note_pairings)
    monkeypatch.setattr(stages, "train", note_net)
    train_recipe(miniature(read_recipe("cascade")), material(), shop(tmp_path))
    everyone = {noisy.series.patient for noisy in material().train}
    asked_about: list[str] = []
    for pairing in trained["drl"][0]:
        asked = {noisy.series.patient for noisy in pairing.material.train}
        (link,) = pairing.chain
        ((own,),) = (pairings for pairings, net in trained.values() if states_equal(net, link.net))
        assert {noisy.series.patient for noisy in own.material.train} == everyone - asked
        asked_about.extend(asked)
    assert sorted(asked_about) == sorted(everyone)


def test_one_patient_cannot_be_parted() -> None:
    with pytest.raises(RecipeError):
        folds((patient(1), patient(1)), 2)


def test_each_part_of_a_batch_goes_through_its_own_net() -> None:
    stage = replace(miniature(read_recipe("cascade")).recipe.stage("drl"), folds=2)
    image = replace(stage, net=NetChoice("drl"))
    pairings = [
        Pairing(stage, Material((patient(number),)), (Link(_Plus(hu), image, 1000.0),))
        for number, hu in ((1, 5000.0), (2, 9000.0))
    ]
    pair = pairs_of(pairings, World(), 1)(0)
    added = (pair.given - pair.wanted).mean(dim=(1, 2, 3))
    assert (added.round(decimals=-3) / 1000).tolist() == [5, 5, 9, 9]


def test_processes_draw_together_what_one_draws() -> None:
    stage = miniature(read_recipe("ct-denoise")).recipe.stages[0]
    pairing = (Pairing(stage, material()),)
    whole = pairs_of(pairing, World(), 3)(7)
    parts = [pairs_of(pairing, World(rank, 2), 3)(7) for rank in range(2)]
    assert torch.equal(whole.given, torch.cat([part.given for part in parts]))


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    train_recipe(miniature(read_recipe("dncnn"), 1), material(), shop(tmp_path))
    with pytest.raises(CheckpointError, match="peer-dncnn"):
        train_recipe(miniature(read_recipe("redcnn"), 1), material(), shop(tmp_path))


def test_photographs_are_wanted_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="photographs"):
        train_recipe(miniature(read_recipe("sgan-g1"), 1), replace(material(), pictures=()), shop(tmp_path))


def test_worse_images() -> None:
    rng = np.random.default_rng(0)
    grey = body(64)
    same = worsened(grey, Worsening(), rng)
    np.testing.assert_allclose(same, grey, atol=1e-3)
    flat = worsened(grey, Worsening(flatten=(2.0, 2.0)), rng)
    assert flat.std() == pytest.approx(grey.std() / 2, rel=1e-3)
    assert flat.mean() == pytest.approx(grey.mean(), rel=1e-3)
    noise = worsened(grey, Worsening(noise_grey=(25.5, 25.5)), rng) - grey
    assert noise.std() == pytest.approx(40.0, rel=0.05)
    shrunk = worsened(grey, Worsening(shrink=(4.0, 4.0)), rng)
    assert shrunk.shape == grey.shape
    assert np.abs(np.diff(shrunk)).max() < np.abs(np.diff(grey)).max()


def test_how_a_patch_is_worsened_does_not_follow_from_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = miniature(read_recipe("sgan")).recipe.stage("g2-natural")
    left = np.tile(np.arange(90, dtype=np.uint8), (90, 1))  # the grey level tells the column
    pictures = (Picture("ramp", left, CREDIT),)
    found: list[tuple[float, float]] = []

    def note(patch: np.ndarray, _: Worsening, rng: np.random.Generator) -> np.ndarray:
        found.append((float(patch.min()), float(rng.uniform())))
        return patch

    monkeypatch.setattr(pairs, "worsened", note)
    draw = pairs.pairs_of((Pairing(stage, Material((), (), pictures)),), World(), 5)
    for number in range(60):
        draw(number)
    columns, chances = zip(*found, strict=True)
    assert len(set(columns)) > 10 and abs(np.corrcoef(columns, chances)[0, 1]) < 0.25


def test_pairs_of_photographs_stay_in_the_window() -> None:
    stage: StageRecipe = miniature(read_recipe("sgan")).recipe.stage("g1-natural")
    pair = pairs_of((Pairing(stage, Material((), pictures=(picture(1),))),), World(), 1)(0)
    assert pair.wanted.shape == (4, 1, 32, 32)
    assert float(pair.wanted.min()) >= -160 and float(pair.wanted.max()) <= 240
    assert pair.noise_hu is None
