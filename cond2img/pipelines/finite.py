"""Samples that are not finite, and whose fault it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ctrlgenaug.errors import UserError


def check_finite(
    unet: Any, vae: Any, latents: Tensor, pixels: Tensor | None = None
) -> list[UserError | None]:
    """Why each sample is not finite; None for one that is.

    Args:
        unet, vae: the models that made them.
        latents: (B, ...), of the sampler.
        pixels: (B, ...), decoded from them, before anything is clipped away; None: not decoded yet.
    """
    errors: list[UserError | None] = []
    for index in range(len(latents)):
        if not _finite(latents[index]):
            errors.append(_cause(unet, "UNet", "latents", "Lower --guidance_scale or --class_contrast"))
        elif pixels is not None and not _finite(pixels[index]):
            errors.append(_cause(vae, "VAE", "pixels", "Check the VAE's folder, or lower --guidance_scale"))
        else:
            errors.append(None)
    return errors


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _cause(model: nn.Module, name: str, made: str, otherwise: str) -> UserError:
    """The error of a model whose output is not finite."""
    damaged = [key for key, value in model.state_dict().items() if not _finite(value)]
    if damaged:
        return UserError(
            f"the {name}'s weights are not finite ({damaged[0]} and {len(damaged) - 1} more)",
            "Use another checkpoint; this training has diverged",
        )
    dtype = str(model.dtype).removeprefix("torch.")
    remedy = "Use --dtype bfloat16 or float32" if dtype == "float16" else otherwise
    return UserError(f"the {name}'s {made} are not finite (in {dtype})", remedy)
