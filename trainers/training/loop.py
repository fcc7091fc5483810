"""The training loop. What a step does depends on its number, the weights, and nothing else: a run that was killed goes
on from its last checkpoint to the same result."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from trainers.errors import TrainerError
from trainers.nets.base import middle_of
from trainers.progress import Journal, Pace, Say
from trainers.recipes.recipe import StageRecipe
from trainers.run import checkpoints
from trainers.training.ahead import drawn_ahead
from trainers.training.distributed import World
from trainers.training.losses import Sight, Terms, adversarial, critical, seen
from trainers.training.players import Players

Values = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Pair:
    """Patches in HU, (patches, channels, rows, columns): what a net is given, and what it is to make of it.

    noise_hu  (patches,): standard deviation of the noise of what is given; None where nobody knows it
    planted   like wanted: where nodules were planted, as a share of their contrast; None where none can be
    """

    given: torch.Tensor
    wanted: torch.Tensor
    noise_hu: torch.Tensor | None = None
    planted: torch.Tensor | None = None

    def to(self, device: torch.device) -> Pair:
        noise_hu = None if self.noise_hu is None else self.noise_hu.to(device)
        planted = None if self.planted is None else self.planted.to(device)
        return Pair(self.given.to(device), self.wanted.to(device), noise_hu, planted)


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be trained.

    begin   the two nets at their first step, the second None where no discriminator plays
    draw    a pair by its number, this process's part of it alone
    shown   patches for the pictures, of patients that are not trained on where there are any
    """

    stage: StageRecipe
    begin: Callable[[], tuple[nn.Module, nn.Module | None]]
    draw: Callable[[int], Pair]
    shown: Pair
    terms: Terms
    scale_hu: float = 1000.0
    seed: int = 1


@dataclass(frozen=True, eq=False)
class Run:
    """Where a task is trained. `folder` keeps its checkpoints, figures and pictures; `name` is what lines call it."""

    folder: Path
    world: World
    say: Say
    name: str


def train(task: Task, run: Run) -> nn.Module:
    """The trained net: its averaged weights where the recipe averages them. Goes on where a former run stopped."""
    stage, turns = task.stage, task.stage.adversary.critic_steps if task.stage.adversary else 0
    players = Players(stage, *begun(task), run.world)
    players.take_up(checkpoints.newest(run.folder))
    journal = Journal(run.folder, run.name, Pace(stage.steps, players.step), run.say)
    numbers = range(players.step * (turns + 1), stage.steps * (turns + 1))
    with closing(drawn_ahead(task.draw, numbers)) as pairs, closing(journal):
        while players.step < stage.steps:
            torch.manual_seed(task.seed + players.step)
            values: Values = {}
            for _ in range(turns):
                values |= judge(task, players, next(pairs).to(run.world.device))
            values |= improve(task, players, next(pairs).to(run.world.device))
            players.end_step()
            if run.world.is_first:
                keep(task, run, players, journal, values)
    run.world.wait()
    return players.trained


def improve(task: Task, players: Players, pair: Pair) -> Values:
    """One step of the generator."""
    players.hold_critic(still=True)
    with players.autocast():
        made = imaged(task, players.generator.net, pair.given)
        values = task.terms(Sight(made, pair.wanted, pair.noise_hu, pair.planted))
        if players.critic is not None and task.stage.adversary is not None:
            said = players.critic.net(seen(task.stage.adversary, made, pair.given))
            values["adversarial"] = adversarial(task.stage.adversary, said.float())
    players.generator.update(torch.stack(tuple(values.values())).sum(), players.step, len(made))
    return {name: value.detach() for name, value in values.items()}


def judge(task: Task, players: Players, pair: Pair) -> Values:
    """One step of the discriminator."""
    adversary, critic = task.stage.adversary, players.critic
    assert adversary is not None and critic is not None
    players.hold_critic(still=False)
    with players.autocast():
        with torch.no_grad():
            made = imaged(task, players.generator.net, pair.given)
        real = critic.net(seen(adversary, pair.wanted, pair.given)).float()
        loss = critical(adversary, real, critic.net(seen(adversary, made, pair.given)).float())
    critic.update(loss, players.step, len(made))
    return {"critic": loss.detach()}


def imaged(task: Task, net: nn.Module, given: torch.Tensor) -> torch.Tensor:
    """What a net makes of patches, in HU."""
    return image_of(net, given, task.stage.net.predicts == "residual", task.scale_hu)


def image_of(net: nn.Module, given: torch.Tensor, is_residual: bool, scale_hu: float) -> torch.Tensor:
    """The same for a net alone: a residual is taken away from the middle channel of what it was given."""
    out: torch.Tensor = net(given / scale_hu).float() * scale_hu
    return middle_of(given) - out if is_residual else out


@torch.no_grad()
def shown(task: Task, players: Players) -> torch.Tensor:
    """What the net makes of the patches for the pictures."""
    net = players.trained.eval()
    made = imaged(task, net, task.shown.given.to(players.device))
    net.train()
    return made


def begun(task: Task) -> tuple[nn.Module, nn.Module | None]:
    """The nets at their first step: of the same seed the same weights, on every process."""
    torch.manual_seed(task.seed)
    return task.begin()


def keep(task: Task, run: Run, players: Players, journal: Journal, values: Values) -> None:
    """What is written after a step, by one process. Raises TrainerError where the net is beyond help, before the last
    good checkpoint goes."""
    step, stage = players.step, task.stage
    if _is_due(step, stage.log_steps, stage):
        journal.figures(step, values)
    if _is_due(step, stage.sample_steps, stage):
        journal.picture(step, (task.shown.given, shown(task, players), task.shown.wanted))
    if _is_due(step, stage.checkpoint_steps, stage):
        _require_finite(stage.name, step, players.trained)
        checkpoints.save(run.folder, step, players.state())


def _require_finite(name: str, step: int, net: nn.Module) -> None:
    if not all(bool(weights.isfinite().all()) for weights in net.state_dict().values()):
        raise TrainerError(
            f"{name}: after step {step} the net no longer gives numbers",
            f"begin a new run with a lower learning rate (--set {name}.optimiser.learning_rate=...) or clip_norm",
        )


def _is_due(step: int, every: int, stage: StageRecipe) -> bool:
    return step == stage.steps or (every > 0 and step % every == 0)
