"""Several processes, on one machine or many, that train one net: each on its part of every batch.

`torchrun --nproc-per-node 4 -m -- trainers train ...` starts them. Gradients are averaged here, in one message for each
step, and not by a wrapper around the net: a generator and its discriminator take turns, and one is trained through the
other, which wrappers do not allow for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import torch
from torch import distributed, nn

from trainers.errors import TrainerError
from trainers.training.joined_norm import joined_norms

_LONGEST_WAIT: Final = timedelta(hours=24)
"""One process simulates noise and chooses slices, while all others wait for it."""


@dataclass(frozen=True)
class World:
    """Which of how many processes this is, and what it computes on."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """The one process that writes files and speaks."""
        return self.rank == 0

    def part(self, batch: int) -> range:
        """The patches of a batch that are this process's own."""
        return range(batch * self.rank // self.size, batch * (self.rank + 1) // self.size)

    def average_gradients(self, parameters: Iterable[nn.Parameter], patches: int) -> None:
        """Gradients as one process would have them of the whole batch, of which `patches` are this one's own."""
        if self.size == 1:
            return
        gradients = [weights.grad for weights in parameters if weights.grad is not None]
        weighted = [patches * gradient.reshape(-1) for gradient in gradients]
        together = torch.cat((*weighted, weighted[0].new_tensor([patches])))
        distributed.all_reduce(together)
        averaged = (together[:-1] / together[-1]).split([gradient.numel() for gradient in gradients])
        for gradient, values in zip(gradients, averaged, strict=True):
            gradient.copy_(values.view_as(gradient))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process, then all others: what it leaves on the disk, they find.

        Raises TrainerError on the others where it fails.
        """
        if not self.is_first and any(self.all_said("")):
            raise TrainerError("the first process could not go on", "it says why")
        try:
            yield
        except BaseException:
            self._tell("failed")
            raise
        self._tell("")

    def _tell(self, how_it_went: str) -> None:
        """To those who wait for the first."""
        if self.is_first:
            self.all_said(how_it_went)

    def all_said(self, own: str) -> list[Any]:
        """What each process says, in their order."""
        said: list[Any] = [own] * self.size
        if self.size > 1:
            distributed.all_gather_object(said, own)
        return said

    def joined(self, net: nn.Module) -> nn.Module:
        """The net with batch normalisation over all processes."""
        return net if self.size == 1 else joined_norms(net)


@contextmanager
def joined_world(device: str = "auto") -> Iterator[World]:
    """This process's place among those that torchrun started; alone where none did.

    device  "cpu", "cuda", or "auto": a GPU where there is one
    Raises TrainerError where there is none and it was asked for.
    """
    chosen = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen == "cuda" and not torch.cuda.is_available():
        raise TrainerError("there is no GPU that torch could use", "give --device cpu, or see that nvidia-smi lists it")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=torch.device(chosen))
        return
    place = torch.device(chosen, int(os.environ.get("LOCAL_RANK", "0"))) if chosen == "cuda" else torch.device(chosen)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=_LONGEST_WAIT)
    try:
        yield World(distributed.get_rank(), size, place)
    finally:
        distributed.destroy_process_group()
