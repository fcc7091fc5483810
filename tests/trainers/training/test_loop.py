"""What a step does, and what it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from engines.runtimes.processor import Processor
from tests.trainers.made import states_equal
from trainers.errors import CheckpointError, TrainerError
from trainers.progress import Count, Pace, panel, spoken
from trainers.recipes.recipe import Adversary, LossTerm, NetChoice, Optimiser, StageRecipe
from trainers.run import checkpoints
from trainers.training.ahead import drawn_ahead
from trainers.training.distributed import World
from trainers.training.loop import Pair, Run, Task, Values, begun, image_of, improve, judge, train
from trainers.training.losses import Terms
from trainers.training.players import Player, Players, rate

_STAGE = StageRecipe(
    "denoise", NetChoice("plain", predicts="residual"), (LossTerm("mse", unit_hu=10.0),), Optimiser(0.02), steps=60,
    checkpoint_steps=20, sample_steps=60, log_steps=20,
)  # fmt: skip


def _pair(number: int) -> Pair:
    """Noise that a net of one weight can take away: what is wanted is a half of what is given."""
    given = 30 * torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(number))
    return Pair(given, given / 2, torch.full((4,), 30.0))


def _task(stage: StageRecipe = _STAGE) -> Task:
    return Task(stage, lambda: (nn.Conv2d(1, 1, 3, padding=1), None), _pair, _pair(1000), Terms(stage.losses))


def test_it_learns_and_leaves_a_record(tmp_path: Path) -> None:
    said: list[str] = []
    net = train(_task(), Run(tmp_path, World(), said.append, "denoise"))
    given = _pair(5).given
    assert float((image_of(net, given, True, 1000.0) - given / 2).square().mean()) < 0.1 * 30**2 / 4
    assert len(said) == 3 and "step 60/60 100 %" in said[-1] and "mse" in said[-1]
    assert [path.name for path in sorted(tmp_path.glob("*.pt"))] == ["step-000000040.pt", "step-000000060.pt"]
    assert list((tmp_path / "tensorboard").glob("events.*"))
    picture = cv2.imread(str(tmp_path / "pictures" / "step-000000060.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None and picture.shape == (4 * 18, 3 * 18)


def test_a_net_that_diverges_ends_the_run_and_leaves_the_last_good_checkpoints(tmp_path: Path) -> None:
    def pair(number: int) -> Pair:
        return _pair(number) if number < 45 else Pair(_pair(number).given, torch.full((4, 1, 16, 16), math.nan))

    with pytest.raises(TrainerError, match="after step 60 the net no longer gives numbers") as refused:
        train(replace(_task(), draw=pair), Run(tmp_path, World(), print, "denoise"))
    assert "denoise.optimiser.learning_rate" in refused.value.hint
    assert [path.name for path in sorted(tmp_path.glob("*.pt"))] == ["step-000000020.pt", "step-000000040.pt"]


def test_the_same_seed_gives_the_same_net_and_another_another(tmp_path: Path) -> None:
    stage = replace(_STAGE, steps=3)
    nets = [
        train(replace(_task(stage), seed=seed), Run(tmp_path / name, World(), print, "denoise"))
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    ]
    assert states_equal(nets[0], nets[1])
    assert not states_equal(nets[0], nets[2])


def test_averaged_weights_are_what_is_kept() -> None:
    players = Players(replace(_STAGE, ema_decay=0.9), nn.Conv2d(1, 1, 1), None, World())
    kept = players.trained.weight.clone()
    with torch.no_grad():
        players.generator.net.weight += 1.0
    players.step = 1000
    players.end_step()
    assert torch.allclose(players.trained.weight, kept + 0.1)


def test_statistics_of_batches_are_kept_as_they_stand_beside_averaged_weights() -> None:
    players = Players(replace(_STAGE, ema_decay=0.9), nn.BatchNorm2d(1), None, World())
    for number in range(2):
        players.generator.net(_pair(number).given)
        players.end_step()
    kept, latest = (dict(net.named_buffers()) for net in (players.trained, players.generator.net))
    assert kept == latest and kept["num_batches_tracked"] == 2 and kept["running_var"] > 1


class _Critic(nn.Module):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.shown: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shown.append(image.detach())
        return self.weight * image.mean(dim=(1, 2, 3))[:, None]


def _shown_in(step: Callable[[Task, Players, Pair], Values]) -> tuple[list[torch.Tensor], torch.Tensor, Pair]:
    """What a critic of image and input is shown in a step, what the net made of the patches, and these."""
    stage = replace(_STAGE, adversary=Adversary("lsgan", "patch", Optimiser(0.1), conditioned=True, window_hu=(0, 1)))
    task, critic, pair = _task(stage), _Critic(), _pair(1)
    net, _ = begun(task)
    with torch.no_grad():
        made = image_of(net, pair.given, True, task.scale_hu)
    step(task, Players(stage, net, critic, World()), pair)
    return critic.shown, made, pair


def test_the_generator_is_judged_beside_the_low_dose_that_it_was_given() -> None:
    (shown,), made, pair = _shown_in(improve)
    torch.testing.assert_close(shown, torch.cat((made, pair.given), dim=1))


def test_the_critic_learns_real_and_made_images_beside_the_same_low_dose() -> None:
    (of_real, of_made), made, pair = _shown_in(judge)
    torch.testing.assert_close(of_real, torch.cat((pair.wanted, pair.given), dim=1))
    torch.testing.assert_close(of_made, torch.cat((made, pair.given), dim=1))


def test_gradients_are_clipped_to_their_norm() -> None:
    net = nn.Linear(2, 1, bias=False)
    player = Player(net, Optimiser(1.0), replace(_STAGE, steps=1), World(), clip_norm=0.5)
    player.update((1e6 * net.weight).sum(), 0, 1)
    assert net.weight.grad is not None
    assert float(net.weight.grad.norm()) == pytest.approx(0.5, rel=1e-3)


def test_rates() -> None:
    cosine = Optimiser(1.0, schedule="cosine", final_share=0.1)
    assert [rate(cosine, step, 100) for step in (0, 50, 100)] == pytest.approx([1.0, 0.55, 0.1])
    assert [rate(Optimiser(2.0, warmup_steps=4), step, 100) for step in (0, 1, 3, 50)] == [0.5, 1.0, 2.0, 2.0]


def test_a_half_written_checkpoint_is_never_seen(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 1, {"step": 1})
    (tmp_path / "step-000000002.part").write_bytes(b"half")
    found = checkpoints.newest(tmp_path)
    assert found is not None and found["step"] == 1


def test_a_checkpoint_of_other_nets_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    players = Players(_STAGE, nn.Conv2d(1, 1, 3), None, World())
    with pytest.raises(CheckpointError) as other:
        players.take_up(Players(_STAGE, nn.Conv2d(1, 2, 3), None, World()).state())
    assert "another recipe" in str(other.value)
    (tmp_path / "step-000000001.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.newest(tmp_path)


def test_patches_come_in_order_however_far_they_are_drawn_ahead() -> None:
    assert list(drawn_ahead(lambda number: number * number, range(3, 9))) == [9, 16, 25, 36, 49, 64]


def test_a_draw_that_fails_stops_the_training() -> None:
    with pytest.raises(ZeroDivisionError):
        list(drawn_ahead(lambda number: 1 // number, range(-2, 2)))


def test_the_time_that_is_left() -> None:
    now = iter([0.0, 10.0])
    pace = Pace(100, 20, clock=lambda: next(now))
    assert pace.line(40) == "step 40/100  40 %  2.00 steps/s  30 s left"
    assert [spoken(seconds) for seconds in (5, 200, 11000)] == ["5 s", "3 min", "3 h 03 min"]


def test_what_is_counted_is_said_now_and_then() -> None:
    seconds = [0.0]
    said: list[str] = []
    count = Count("noise", Pace(4, 0, lambda: seconds[0], "slice"), said.append)
    for passed in (4.0, 9.0, 11.0, 12.0):
        seconds[0] = passed
        count.note("before")
        count.another()
    assert said == [
        "noise: slice 2/4  50 %  0.18 slices/s  11 s left  before",
        "noise: slice 4/4 100 %  0.33 slices/s  0 s left",
    ]


def test_nothing_is_promised_before_the_first_is_done() -> None:
    assert Pace(8, 0, lambda: 7.0, "file").line(0) == "file 0/8   0 %"


def test_pictures_show_a_window_of_soft_tissue() -> None:
    grey = panel([np.full((1, 1, 2, 2), value, np.float32) for value in (-160.0, 40.0, 5000.0)])
    assert grey[0].tolist() == [0, 0, 255, 255, 127, 127, 255, 255, 255, 255, 255, 255]


def test_a_world_parts_a_batch_without_rest() -> None:
    parts = [World(rank, 3).part(8) for rank in range(3)]
    assert [number for part in parts for number in part] == list(range(8))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_keeps_weights_whole(tmp_path: Path, precision: Literal["bfloat16", "float16"]) -> None:
    stage = replace(_STAGE, steps=2, precision=precision)
    net = train(_task(stage), Run(tmp_path, World(), print, "denoise"))
    assert {weights.dtype for weights in net.parameters()} == {torch.float32}
    assert all(math.isfinite(float(weights.sum())) for weights in net.parameters())


@pytest.mark.parametrize(("instructions", "is_used"), [("", False), ("AMX", True)])
def test_bfloat16_is_computed_where_the_processor_has_it(
    instructions: str, is_used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.training.players.this_processor", lambda: Processor(1, bfloat16=instructions))
    players = Players(replace(_STAGE, precision="bfloat16"), nn.Conv2d(1, 1, 1), None, World())
    with players.autocast():
        made = players.generator.net(torch.ones(1, 1, 2, 2))
    assert made.dtype == (torch.bfloat16 if is_used else torch.float32)


def test_float16_leaves_a_step_out_that_overflows_and_goes_on_where_it_was() -> None:
    stage = replace(_STAGE, steps=4, precision="float16")
    players = Players(stage, nn.Conv2d(1, 1, 1), None, World())
    before = players.generator.net.weight.detach().clone()
    for loss in (math.inf, 1e-9):  # a gradient of 1e-9 is nothing in float16, unless it is scaled
        halved = players.generator.net.weight.half().float()
        players.generator.update(loss * halved.sum(), players.step, 1)
        players.end_step()
        assert torch.equal(players.generator.net.weight, before) == math.isinf(loss)
    again = Players(stage, nn.Conv2d(1, 1, 1), None, World())
    again.take_up(players.state())
    assert again.state()["generator"]["scaler"] == players.state()["generator"]["scaler"]
    assert again.state()["generator"]["scaler"]["scale"] == 2.0**15  # halved once
