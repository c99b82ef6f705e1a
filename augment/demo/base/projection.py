"""The UNet's projection of the stand-in's image priors, computed from what these are mixed of.

A prior of the stand-in encoder is 256 mixtures of 32 features. Batch norm and convolution are linear in it, so they can
take the 32 in its place, with the mixing multiplied into the weights: the same result and the same gradients at an
eighth of the arithmetic, which for a small UNet is half of a step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from augment.demo.encoder import mixing
from cond2img.models.unet import ImageProjection


def project(projection: ImageProjection, features: Tensor) -> Tensor:
    """``projection(mixing() @ features)`` (B, 1024, D), running statistics and all.

    Args:
        projection: the UNet's.
        features: (B, 32, 64, 64), `augment.demo.encoder.features`; zeros for a prior that is dropped.
    """
    norm, conv, matrix = projection.bn, projection.down, mixing().to(features)  # (256, 32)
    with torch.autocast(features.device.type, enabled=False):
        if norm.training:
            mean, variance = _moments(features, matrix)
            norm.num_batches_tracked.add_(1)
            count = features.numel() // features.shape[1]
            with torch.no_grad():
                norm.running_mean.lerp_(mean, norm.momentum)
                norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
        else:
            mean, variance = norm.running_mean, norm.running_var
        scale = norm.weight * torch.rsqrt(variance + norm.eps)  # (256,)
        shift = norm.bias - mean * scale
        # A 33rd feature that is 1 carries the shift, so that the convolution's padding stays zero after the norm.
        mixed = torch.cat([scale[:, None] * matrix, shift[:, None]], dim=1)  # (256, 33)
        weight = torch.einsum("ocyx,ci->oiyx", conv.weight, mixed)
        features = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
    x = functional.conv2d(
        features.contiguous(memory_format=torch.channels_last), weight, conv.bias, conv.stride, conv.padding
    )
    return projection.norm(projection.proj(functional.silu(x).flatten(2).transpose(1, 2)))


def _moments(features: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (256,) of the mixtures over batch and positions."""
    samples = features.transpose(0, 1).flatten(1)  # (32, N)
    centre = samples.mean(1, keepdim=True)
    covariance = (samples - centre) @ (samples - centre).T / samples.shape[1]
    return matrix @ centre[:, 0], ((matrix @ covariance) * matrix).sum(1)
