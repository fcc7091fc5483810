"""Batch normalisation over all processes that train one net: each patch is normalised by the whole batch, as one
process would."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import distributed, nn
from torch.autograd.function import FunctionCtx


class JoinedNorm(nn.BatchNorm2d):
    """As `nn.BatchNorm2d`, with mean and variance of the patches of all processes while it is trained."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(given)
        values, patches = given.to(torch.promote_types(given.dtype, torch.float32)), len(given)
        own = torch.cat((values.sum(dim=(0, 2, 3)), values.new_tensor([values[:, 0].numel()])))
        sums = _summed(own, patches)
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean[:, None, None]
        variance = _summed(centred.square().sum(dim=(0, 2, 3)), patches) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centred * (self.weight * torch.rsqrt(variance + self.eps))[:, None, None]
        return (scaled + self.bias[:, None, None]).to(given.dtype)

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """What it normalises by once it is trained."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def joined_norms(net: nn.Module) -> nn.Module:
    """The net with each `nn.BatchNorm2d` replaced, in place; weights and their names stay."""
    for module in list(net.modules()):
        for name, inner in list(module.named_children()):
            if type(inner) is nn.BatchNorm2d:
                joined = JoinedNorm(inner.num_features, inner.eps, inner.momentum).to(inner.weight)
                joined.load_state_dict(inner.state_dict())
                setattr(module, name, joined)
    return net


class _Summed(torch.autograd.Function):
    """A sum over processes. What each loss says of it is weighted by the patches that the loss is the mean of, so that
    gradients which are averaged afterwards, by patches too, are those of the mean over the whole batch."""

    @staticmethod
    def forward(ctx: FunctionCtx, own: torch.Tensor, patches: int) -> torch.Tensor:
        cast(Any, ctx).patches = patches
        together = own.clone()
        distributed.all_reduce(together)
        return together

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        patches = cast(Any, ctx).patches
        together = patches * gradients[0]
        distributed.all_reduce(together)
        return together / patches, None


def _summed(own: torch.Tensor, patches: int) -> torch.Tensor:
    return cast(torch.Tensor, _Summed.apply(own, patches))
