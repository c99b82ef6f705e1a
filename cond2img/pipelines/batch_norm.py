"""The published code's batch norm while sampling: with the statistics of its own batch.

The official scripts never put the UNet into evaluation mode, so the image prior's batch norm normalises the pair
[zero prior, prior] of the two guidance branches with that pair's own mean and variance. Nothing else in the UNet
differs between the modes. Frames move by 0.6 grey levels on average where training left good running statistics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def statistics_of_the_batch(bn: nn.BatchNorm2d, branches: int) -> Iterator[None]:
    """Within the block ``bn`` normalises each sample with the statistics of its own first and last branch.

    The published code takes them over all samples of a batch together. Here each sample has its own, so that a clip
    does not depend on its neighbours: equal to the published code with a batch of one. Running statistics stay.

    Args:
        bn: the batch norm; its input is (branches * B, C, H, W), branch by branch.
        branches: how many condition sets; the first is the unconditional one, the last the samples' own.
    """

    def normalise(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0].unflatten(0, (branches, -1))  # (branches, B, C, H, W)
        pairs = x[[0, -1]] if branches > 1 else x
        variance, mean = torch.var_mean(
            pairs.float(), dim=(0, 3, 4), keepdim=True, correction=0
        )  # (1, B, C, 1, 1)
        scale = bn.weight.float()[:, None, None] * torch.rsqrt(variance + bn.eps)
        normalised = (x.float() - mean) * scale + bn.bias.float()[:, None, None]
        return normalised.to(output.dtype).flatten(0, 1)

    handle = bn.register_forward_hook(normalise)
    try:
        yield
    finally:
        handle.remove()
