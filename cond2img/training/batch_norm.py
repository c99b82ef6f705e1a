"""BatchNorm over the samples of all processes, so that the statistics do not depend on how a batch is dealt out."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the processes, and of its gradient on the way back."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous().clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d with statistics over all processes, on CPU and GPU alike (torch's own is for GPUs alone).

    Every process must hold as many samples as the others.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.training and distributed.is_initialized()):
            return super().forward(x)
        processes = distributed.get_world_size()
        x32 = x.float()
        count = x.numel() // x.shape[1] * processes
        moments = torch.stack([x32.sum((0, 2, 3)), x32.square().sum((0, 2, 3))])  # (2, C)
        total, squares = _Sum.apply(moments) / count
        variance = (squares - total.square()).clamp(min=0)
        with torch.no_grad():
            factor = self.momentum
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(total.to(self.running_mean.dtype), factor)
            unbiased = variance * count / max(1, count - 1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), factor)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (x32 * scale[:, None, None] + (self.bias - total * scale)[:, None, None]).to(x.dtype)


def synchronise_batch_norm(module: nn.Module) -> None:
    """Makes every BatchNorm2d in ``module`` a `SyncedBatchNorm2d`, in place; parameters and buffers stay the same."""
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SyncedBatchNorm2d
