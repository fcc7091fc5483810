"""Which slices of CT the stacked GANs are trained on, and that a run tells it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from engines.bundle.provenance import Dataset
from tests.engines.phantoms import body, noisy
from tests.trainers.made import material, miniature, patient, shop
from trainers.errors import TrainerError
from trainers.nets import build
from trainers.nets.base import Net
from trainers.recipes.plan import planned, steps_told
from trainers.recipes.reading import ReadRecipe, read_recipe
from trainers.recipes.recipe import Growth, NetChoice, Plan, StageRecipe
from trainers.run.folder import note_datasets, provenance_of, rounds_of
from trainers.training.distributed import World
from trainers.training.growth import gain_db, grown_pool, is_better, is_improved, one_slice
from trainers.training.losses import mse
from trainers.training.pairs import Link, Material, Pairing, pairs_of
from trainers.training.stages import load_nets, train_recipe

_GROWTH = Growth(rounds=1, gain_db=0.5)


def test_what_counts_as_better() -> None:
    full = body(256)
    given, halved = noisy(full, 40.0), noisy(full, 20.0)
    assert gain_db(full, given, halved) == pytest.approx(6.0, abs=0.3)
    assert is_improved(full, given, halved, _GROWTH)
    assert not is_improved(full, given, given, _GROWTH)
    assert not is_improved(full, given, halved + np.float32(5), _GROWTH)


def test_what_no_photograph_shows_does_not_count() -> None:
    """A net of photographs, which stand for -160 to 240 HU, knows neither air nor bone."""
    full = body(256)
    given, halved = noisy(full, 40.0), noisy(full, 20.0)
    beyond = halved + np.float32(60) * ((full < -400) | (full > 400)).astype(np.float32)
    assert is_improved(full, given, beyond, _GROWTH)


def test_what_is_given_worse_need_not_become_perfect_but_not_worse() -> None:
    full = body(256)
    given = noisy(full * np.float32(0.5), 20.0)
    nearer, farther = noisy(full * np.float32(0.7), 10.0), noisy(full * np.float32(0.4), 5.0)
    assert is_improved(full, given, nearer, _GROWTH)
    assert not is_improved(full, given, farther, _GROWTH)


class _Harm(Net):
    """Moves all tissue, and takes edges away where `blur_px` is above 1."""

    halo_px = 3

    def __init__(self, hu: float, blur_px: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(hu / 1000))
        self.blur_px = blur_px

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.weight + functional.avg_pool2d(image, self.blur_px, 1, self.blur_px // 2, count_include_pad=False)


@pytest.mark.parametrize(
    ("name", "net", "steps"),
    [
        ("g1", NetChoice("plain", {"channels": 8, "blocks": 1, "highpass_px": 3.0}, "residual"), 60),
        ("g2", NetChoice("dncnn", {"layers": 4, "channels": 12}, "residual"), 120),
    ],
)
def test_a_net_that_improves_phantoms_is_admitted_and_one_that_harms_is_not(
    name: str, net: NetChoice, steps: int
) -> None:
    """By the numbers that the recipe ships, and for g2 with all that makes its slices worse."""
    stage = read_recipe("sgan").recipe.stage(name)
    stage = replace(stage, net=net, patches=replace(stage.patches, batch=4, size_px=48))
    link, untaught = (Link(_taught(stage, count), stage, 1000.0) for count in (steps, 0))
    slices = [one_slice(patient(number), 0) for number in range(10, 16)]

    def admitted(*chain: Link) -> int:
        return sum(is_better(stage, chain, one, (1, at)) for at, one in enumerate(slices))

    assert admitted(link) >= 2
    assert admitted() == admitted(untaught) == 0
    for harm in (_Harm(-100.0), _Harm(0.0, 15)):
        assert admitted(Link(harm, replace(stage, net=NetChoice("drl")), 1000.0)) == 0


def _taught(stage: StageRecipe, steps: int) -> Net:
    """The stage's net after so many plain steps on phantoms."""
    torch.manual_seed(1)
    net = build(stage.net.kind, stage.net.arguments)
    draw = pairs_of((Pairing(stage, Material(tuple(patient(number) for number in range(3)))),), World(), 1)
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    for step in range(steps):
        pair = draw(step)
        made = pair.given - 1000.0 * net(pair.given / 1000.0)
        optimiser.zero_grad()
        mse(made, pair.wanted, 400.0).backward()
        optimiser.step()
    return net.eval()


def test_of_each_slice_something_else_is_made_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = miniature(read_recipe("sgan")).recipe.stage("g2")
    given: list[np.ndarray] = []

    def note(full: np.ndarray, image: np.ndarray, *_: object) -> bool:
        given.append(image)
        return False

    monkeypatch.setattr("trainers.training.growth.is_improved", note)
    one = one_slice(patient(1), 0)
    for chance in ((1, 0), (1, 1), (1, 1)):
        is_better(stage, (), one, chance)
    assert not np.array_equal(given[0], given[1]) and np.array_equal(given[1], given[2])


def test_which_slices_are_looked_at_follows_from_the_seed(tmp_path: Path) -> None:
    stage = miniature(read_recipe("sgan-g1"), 1).recipe.stage("g1")
    found = [
        [one.series.name for one in next(grown_pool(stage, material(), shop(tmp_path / str(seed)), tuple, seed)).slices]
        for seed in range(4)
    ]
    assert len({tuple(names) for names in found}) > 1


def test_slices_join_in_rounds_and_none_joins_twice(tmp_path: Path) -> None:
    said: list[str] = []
    train_recipe(miniature(read_recipe("sgan-g1"), 1), material(), shop(tmp_path, said))
    rounds = [json.loads((tmp_path / "g1" / f"round-{number}" / "chosen.json").read_text()) for number in (1, 2)]
    chosen = [tuple(place) for places in rounds for place in places]
    assert len(chosen) == len(set(chosen)) == 4
    assert "g1: round 2 takes in 2 slices beside 2" in said
    assert rounds_of(read_recipe("sgan-g1"), tmp_path) == {"g1": (2, 4)}


def test_a_card_tells_the_rounds_that_were_done(tmp_path: Path) -> None:
    """Of two, the second found nothing more."""
    (tmp_path / "g1" / "round-2").mkdir(parents=True)
    (tmp_path / "g1" / "round-2" / "chosen.json").write_text("[]")
    train_recipe(miniature(read_recipe("sgan-g1"), 1), material(), shop(tmp_path))
    note_datasets(tmp_path, [Dataset("Phantoms", "CC0")])
    read = read_recipe("sgan-g1")
    assert (
        "g1: 20000 steps a round, in 1 of at most 5 rounds, on 2 slices of CT."
        in provenance_of(read, tmp_path).training.recipe
    )
    part = planned(read, Plan(0.1))
    assert "Trained for 10 % of its steps: 22000 of 220000" in provenance_of(part, tmp_path).training.recipe


def test_steps_of_all_rounds_and_all_folds_are_counted() -> None:
    assert "g1: 20000 steps a round, in at most 5 rounds" in steps_told(read_recipe("sgan"))
    assert "drl: 176020 steps, and lsgan 2 times more, for parts of the patients" in steps_told(read_recipe("cascade"))
    told = steps_told(planned(read_recipe("cascade"), Plan(0.5)))
    assert told.startswith("Trained for 50 % of its steps: 352040 of 704080 ")
    part = planned(read_recipe("sgan-g1"), Plan(1.0, ("g1.growth.rounds=2",)))
    assert "80 % of its steps: 240000 of 300000" in steps_told(part, {"g1": (5, 6)})
    assert "100 % of its steps: 220000 of 220000" in steps_told(part, {"g1": (5,)})


def test_a_net_that_saw_no_ct_is_no_net_of_ct(tmp_path: Path) -> None:
    """Neither trained on, nor judged or shipped where an older version left it."""
    read = _hard_to_please(miniature(read_recipe("sgan-g1"), 1))
    said: list[str] = []
    with pytest.raises(TrainerError, match="g1: no slice of CT got better") as refused:
        train_recipe(read, material(), shop(tmp_path, said))
    assert "--set g1.growth" in refused.value.hint and "g1: round 1 takes in 0 slices beside 0" in said
    (tmp_path / "g1" / "net.pt").write_bytes((tmp_path / "g1-natural" / "net.pt").read_bytes())
    with pytest.raises(TrainerError, match="no slice of CT"):
        load_nets(read.recipe, tmp_path)


def _hard_to_please(read: ReadRecipe) -> ReadRecipe:
    stages = tuple(replace(one, growth=one.growth and replace(one.growth, gain_db=60.0)) for one in read.recipe.stages)
    return replace(read, recipe=replace(read.recipe, stages=stages))
