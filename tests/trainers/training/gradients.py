"""One of several processes that hold a gradient of all their patches to that of one process:

python -m tests.trainers.training.gradients    it fails where they differ
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from trainers.training.distributed import joined_world

_BATCH = 5


def main() -> None:
    torch.manual_seed(1)
    inner = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, momentum=0.2), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
    alone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), inner).double()
    patches = 3 + 10 * torch.randn(_BATCH, 1, 12, 12, dtype=torch.float64) * torch.arange(1, 6)[:, None, None, None]
    with joined_world("cpu") as world:
        joined, part = world.joined(copy.deepcopy(alone)), world.part(_BATCH)
        for _ in range(2):  # what is remembered of the first step is averaged with the second
            alone.zero_grad()
            alone(patches).square().mean().backward()
            joined.zero_grad()
            own = patches[part.start : part.stop]
            joined(own).square().mean().backward()
            world.average_gradients(joined.parameters(), len(own))
    for (name, wanted), found in zip(alone.named_parameters(), joined.parameters(), strict=True):
        assert wanted.grad is not None and found.grad is not None
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-6, atol=1e-9, msg=lambda text, at=name: at + text)
    for (name, kept), found in zip(alone.named_buffers(), joined.buffers(), strict=True):
        torch.testing.assert_close(found, kept, rtol=1e-6, atol=1e-9, msg=lambda text, at=name: at + text)
    with torch.no_grad():
        torch.testing.assert_close(joined.eval()(patches), alone.eval()(patches))


if __name__ == "__main__":
    main()
