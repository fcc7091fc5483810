"""The nets that a stage trains, each with its optimiser, and the averaged weights that are shipped."""

from __future__ import annotations

import copy
import math
from typing import Any, Final

import torch
from torch import nn

from engines.runtimes.processor import this_processor
from trainers.errors import CheckpointError
from trainers.recipes.recipe import Optimiser, StageRecipe
from trainers.run.checkpoints import State
from trainers.training.distributed import World

_COMPUTED: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""What autocast computes in."""


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16. One that would make each product up of several instructions takes ten
    times as long as in float32."""
    return bool(this_processor().bfloat16)


def rate(how: Optimiser, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0."""
    warm = min(1.0, (step + 1) / how.warmup_steps) if how.warmup_steps else 1.0
    if how.schedule == "constant":
        return warm * how.learning_rate
    share = 0.5 * (1 + math.cos(math.pi * step / steps))
    return warm * how.learning_rate * (how.final_share + (1 - how.final_share) * share)


class Player:
    """A net of a stage and what trains it. clip_norm: largest norm of its gradient; 0: any."""

    def __init__(
        self, net: nn.Module, how: Optimiser, stage: StageRecipe, world: World, clip_norm: float = 0.0
    ) -> None:
        self.net = world.joined(net).to(world.device).to(memory_format=torch.channels_last)
        self._how, self._steps, self._world, self._clip_norm = how, stage.steps, world, clip_norm
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=stage.precision == "float16")
        kind = torch.optim.AdamW if how.weight_decay else torch.optim.Adam
        self._weights = [weights for weights in self.net.parameters() if weights.requires_grad]
        self.optimiser = kind(
            self._weights, lr=how.learning_rate, betas=how.betas, weight_decay=how.weight_decay, fused=True
        )

    def update(self, loss: torch.Tensor, step: int, patches: int) -> None:
        """Go one step down the gradient of a loss over so many patches of this process."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self._how, step, self._steps)
        self.optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._world.average_gradients(self._weights, patches)  # scaled: where one overflows, all leave the step out
        self._scaler.unscale_(self.optimiser)
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self._weights, self._clip_norm)
        self._scaler.step(self.optimiser)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        state = {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}
        return state | ({"scaler": self._scaler.state_dict()} if self._scaler.is_enabled() else {})

    def take_up(self, state: State) -> None:
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])


class Players:
    """A generator, the discriminator that it plays against where the recipe has one, and its averaged weights."""

    def __init__(self, stage: StageRecipe, net: nn.Module, critic: nn.Module | None, world: World) -> None:
        self.step = 0
        self.device = world.device
        self._stage = stage
        self._computed = _COMPUTED.get(stage.precision)
        if self._computed is torch.bfloat16 and world.device.type == "cpu" and not has_bfloat16():
            self._computed = None
        self.generator = Player(net, stage.optimiser, stage, world, stage.clip_norm)
        self.critic: Player | None = None
        if critic is not None and stage.adversary is not None:
            self.critic = Player(critic, stage.adversary.optimiser, stage, world)
        self._averaged = copy.deepcopy(self.generator.net).requires_grad_(False) if stage.ema_decay else None

    @property
    def trained(self) -> nn.Module:
        """The net that is shipped."""
        net: nn.Module = self.generator.net if self._averaged is None else self._averaged
        return net

    def autocast(self) -> torch.autocast:
        """What a step is computed in: the recipe's precision, but float32 where bfloat16 would be no faster."""
        return torch.autocast(self.device.type, self._computed, enabled=self._computed is not None)

    def hold_critic(self, *, still: bool) -> None:
        """A generator is trained through its discriminator, which is not to learn from that."""
        if self.critic is not None:
            self.critic.net.requires_grad_(not still)

    @torch.no_grad()
    def end_step(self) -> None:
        """Count it, and average the weights; in the first steps over fewer."""
        self.step += 1
        if self._averaged is None:
            return
        kept = min(self._stage.ema_decay, (1 + self.step) / (10 + self.step))
        pairs = zip(self._averaged.parameters(), self.generator.net.parameters(), strict=True)
        averaged, latest = zip(*pairs, strict=True)
        torch._foreach_lerp_(averaged, latest, 1 - kept)
        for mine, its in zip(self._averaged.buffers(), self.generator.net.buffers(), strict=True):
            mine.copy_(its)

    def state(self) -> dict[str, Any]:
        """All that `take_up` needs to go on from here."""
        critic = None if self.critic is None else self.critic.state()
        return {
            "step": self.step,
            "generator": self.generator.state(),
            "critic": critic,
            "trained": self.trained.state_dict(),
        }

    def take_up(self, state: State | None) -> None:
        """Go on from a checkpoint, where there is one. Raises CheckpointError where it is of other nets."""
        if state is None:
            return
        try:
            self.generator.take_up(state["generator"])
            if self.critic is not None:
                self.critic.take_up(state["critic"])
            if self._averaged is not None:
                self._averaged.load_state_dict(state["trained"])
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise CheckpointError(
                "the checkpoint is of another recipe", "give another folder, or the recipe that began this one"
            ) from None
        self.step = int(state["step"])
