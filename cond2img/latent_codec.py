"""Pixels and latents, one into the other: the only place that knows of 255, of 127.5 and of the VAE's scaling factor.

Grey values are uint8 in [0, 255] on disk, float in [-1, 1] before the VAE and in [0, 1] after it. Latents are what the
UNet sees, scaled to a deviation of about 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def to_pixels(frames: np.ndarray) -> Tensor:
    """(..., H, W) uint8 -> (..., 1, H, W) float32 in [-1, 1]: what the VAE is trained with."""
    return torch.from_numpy(np.ascontiguousarray(frames)).float().div_(127.5).sub_(1.0).unsqueeze(-3)


def to_unit_pixels(frames: np.ndarray) -> Tensor:
    """(..., H, W) uint8 -> (..., 1, H, W) float32 in [0, 1]: what the published VAE-Seq feeds the VAE with."""
    return torch.from_numpy(np.ascontiguousarray(frames)).float().div_(255).unsqueeze(-3)


def to_unit(pixels: Tensor) -> Tensor:
    """The VAE's [-1, 1], and what it overshoots, -> [0, 1] float32; what is not finite becomes NaN."""
    unit = pixels.float() / 2 + 0.5
    return unit.clamp(0, 1) + (unit - unit)  # adds 0, or NaN to an infinity that clamping would hide


def to_uint8(unit: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1] -> 0..255, truncated as the method does."""
    return (np.clip(unit, 0, 1) * 255).astype(np.uint8)


def sample_posterior(moments: Tensor, noise: Tensor) -> Tensor:
    """Unscaled latents z = mean + exp(logvar / 2) * noise.

    Args:
        moments: (..., 8, h, w), mean and log-variance along the channels.
        noise: (..., 4, h, w), standard normal.
    """
    mean, logvar = moments.float().chunk(2, dim=-3)
    return mean + torch.exp(0.5 * logvar.clamp(-30.0, 20.0)) * noise


class LatentCodec:
    """A VAE as the diffusion models use it: frozen, some frames at a time, latents scaled.

    Args:
        vae: 1-channel AutoencoderKL, in eval mode, on its device and in its precision.
        frames_at_once: frames that go through the VAE together; bounds the memory, however long a clip is.
    """

    def __init__(self, vae: Any, frames_at_once: int = 8) -> None:
        self.vae, self.frames_at_once = vae, frames_at_once

    @property
    def scale(self) -> float:
        """What the VAE's latents are multiplied by; 0.18215 for Stable Diffusion's."""
        return self.vae.config.scaling_factor

    @torch.no_grad()
    def moments(self, pixels: Tensor) -> Tensor:
        """(N, 1, H, W) in [-1, 1] -> the posterior's moments (N, 8, h, w), in the VAE's precision."""
        with torch.autocast(pixels.device.type, enabled=False):
            parts = pixels.to(self.vae.dtype).split(self.frames_at_once)
            return torch.cat([self.vae.encode(part).latent_dist.parameters for part in parts])

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """Moments (..., 8, h, w) and standard normal noise (..., 4, h, w) -> latents (..., 4, h, w) float32."""
        return self.scale * sample_posterior(moments, noise)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, 4, h, w) -> pixels (N, 1, H, W) in [0, 1], float32 on the CPU."""
        parts = (latents.to(self.vae.dtype) / self.scale).split(self.frames_at_once)
        return torch.cat([to_unit(self.vae.decode(part).sample).cpu() for part in parts])
